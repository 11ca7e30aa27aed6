"""Step tables kept between runs, by all that they are made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import UserError
from ..files import disk_cache
from ..gpu.machine import Gpu
from ..options import Options
from ..results.machine import Machine
from ..reuse.code import code_digest
from ..serving.step_table import GroupedSteps
from ..serving.step_table_file import MAX_FILE_BYTES, as_json, table_of
from ..sources import served_decoder
from .accelerator import Accelerator
from .step_tables import HULL, Hull, Progress, silent, step_table
from .system_machine import SystemMachine

FOLDER = "steps"
MOST_TABLES = 256


def kept_table(
    name: str,
    machine: Machine,
    hull: Hull = HULL,
    *,
    options: Options,
    progress: Progress = silent,
) -> GroupedSteps:
    """Return `step_table`, from disk where the same code has made the same table before.

    Raises `UserError` as that does. Without a folder to keep tables in, nothing is kept.
    """
    file = _file(name, machine, hull, options)
    if file is not None:
        content = disk_cache.read(file, MAX_FILE_BYTES)
        if content is not None:
            try:
                return table_of(json.loads(content), str(file))
            except (UserError, ValueError):
                disk_cache.discard(file)
    table = step_table(name, machine, hull, options=options, progress=progress)
    if file is not None:
        disk_cache.write(file, json.dumps(as_json(table)).encode())
        disk_cache.trim(file.parent, MOST_TABLES)
    return table


def _file(name: str, machine: Machine, hull: Hull, options: Options) -> Path | None:
    """Return where the table is kept; None of a machine that is not known by its values."""
    if isinstance(machine, Accelerator):
        values = machine.chip.model_dump_json()
    elif isinstance(machine, Gpu):
        values = repr(machine)
    elif isinstance(machine, SystemMachine):
        chip = "" if machine.is_gpu else machine.chip.model_dump_json()
        values = repr((machine.system, machine.mesh, chip))
    else:
        return None
    place = disk_cache.folder(FOLDER)
    key = repr((code_digest(), name, served_decoder(name), values, hull, options))
    return place / hashlib.sha256(key.encode()).hexdigest()[:32] if place else None
