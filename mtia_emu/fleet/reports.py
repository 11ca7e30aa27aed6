"""Rates and joules of a device, read from a report that the tool wrote of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results.report_json import SCHEMA

MAX_BYTES = 1 << 24
KEYS = ("file", "units", "machine", "error_share")
MOST = 1e18


def reported(asked: Any, folder: Path, where: str) -> dict[str, Any]:
    """Return `per_s` and `joules` as a scenario's TOML would have them, by what it says of a report.

    `file` is JSON of `mtia-emu run`, relative to the scenario; `units` how many units of work a run does,
    runs one after another; `machine` "chip" (the usual) or "gpu", the one beside it; `error_share` how far
    off its seconds may be, which for a GPU is known from measured kernels. Raises `UserError`.
    """
    if not isinstance(asked, dict) or not {"file", "units"} <= set(asked) <= set(KEYS):
        raise UserError(f'{where}: right: {{ file = "run.json", units = 64, error_share = 0.2 }}')
    units = _number(asked, "units", where)
    run = _run(folder / str(asked["file"]), str(asked.get("machine", "chip")), where)
    seconds, joules = _number(run, "seconds", where), _number(run, "joules", where)
    slow, fast = _band(run.get("seconds_band"), asked, where)
    source = f"{asked['file']}: {run.get('name', run.get('chip'))}, {units:g} units in {seconds:.4g} s"
    rate = {"value": units / seconds, "low": units / (seconds * slow), "high": units / (seconds * fast)}
    said = {"source": source, "status": "computed"}
    return {"per_s": rate | said, "joules": {"value": joules / units} | said}


def _run(path: Path, machine: str, where: str) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{where}: {path} has more than {MAX_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(
            f"{where}: {path} is no report (right: what `mtia-emu run --json {path.name}` writes)"
        )
    run = value if machine == "chip" else value.get(machine)
    if not isinstance(run, dict):
        raise UserError(f'{where}: {path} has no machine \'{machine}\' (right: "chip", or "gpu" beside it)')
    return run


def _band(known: Any, asked: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Return how many times its seconds a run may take, at most and at least."""
    if "error_share" in asked:
        share = _number(asked, "error_share", where, least=0.0, most=0.99)
        return 1 + share, 1 - share
    if isinstance(known, dict):
        return _number(known, "high", where), _number(known, "low", where)
    raise UserError(f"{where} has no error_share: how far off are the emulator's seconds?")


def _number(
    table: Mapping[str, Any], key: str, where: str, least: float = 1e-15, most: float = MOST
) -> float:
    value = table.get(key)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type]
        raise UserError(f"{where}: '{key}' is {value!r}: right: a number from {least:g} to {most:g}")
    return float(value)  # type: ignore[arg-type]
