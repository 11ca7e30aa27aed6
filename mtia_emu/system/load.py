"""From a name or a TOML file to a checked `System`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from ..errors import UserError, refuse_unknown
from ..files import toml
from ..gpu import gpu_names
from ..machine.chip import SYSTEM_TABLES, Chip, chip_names, load_chip
from .build import LoadsChip, build
from .form import MOST_WITH_CONSENT, SystemFile, keys_of
from .library import checked as checked_library
from .library import faults, library_text
from .topology import System

MOST_RANKS = 1024  # without consent


def system_names() -> list[str]:
    """Return the names of the systems that ship with the product."""
    folder = resources.files("mtia_emu.system.systems")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def system_text(name_or_path: str) -> str:
    """Return the TOML text of a shipped system or of a .toml file, with the sources in its comments."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return toml.file_text(Path(name_or_path), "system file", system_names())
    if name_or_path not in system_names():
        raise refuse_unknown("system", name_or_path, [*system_names(), *chip_names()])
    return (resources.files("mtia_emu.system.systems") / f"{name_or_path}.toml").read_text(encoding="utf-8")


def load_system(
    name_or_path: str,
    settings: Mapping[str, str] | None = None,
    *,
    consent: bool = False,
    chip: LoadsChip = load_chip,
) -> System:
    """Return the system of that name or .toml file, with `settings` (dotted key to TOML text) put over it.

    A chip of its own is a .toml file beside the system's; `chip` gives chips by name or file, as they are or
    changed.

    `name*3` is three of them, joined by the switches that are shared; a chip's or a GPU's own name is one of
    it, in no server. A group of chips, switches or links is addressed by its name: `links.nvlink.count`.
    Raises `UserError` for unknown names and keys, wrong types, NaN, names that occur twice, a topology in two
    parts, and for more than `MOST_RANKS` chips without `consent`.
    """
    base, copies = _copies(name_or_path)
    where = f"system {base}"
    alone = base in (*chip_names(), *gpu_names())
    values = _alone(base) if alone else toml.parse(system_text(base), where)
    for key, text in (settings or {}).items():
        _put(values, key, text)
    try:
        file = SystemFile.model_validate(toml.tuples(values))
    except ValidationError as error:
        raise UserError(f"{where}: {faults(error)}") from None
    _check_size(file, copies, where, consent)
    return build(_beside(file, base), copies, _library(file, where), chip)


def _alone(chip: str) -> dict[str, Any]:
    """Return the values of a system of one chip or GPU, without links and without what its server takes."""
    host = dict.fromkeys(("memory_bytes", "memory_bytes_per_s", "nic_bytes_per_s", "power_w"), 0.0)
    chips, text = [{"name": "chip", "count": 1, "chip": chip}], f"one {chip}"
    return {
        "name": chip,
        "text": text,
        "library": "plain",
        "chips": chips,
        "links": [],
        "host": host,
    }


def _beside(file: SystemFile, name: str) -> SystemFile:
    """Return a system's file with chips that are files found from its own folder."""
    chips = tuple(group.model_copy(update={"chip": _found(group.chip, name)}) for group in file.chips)
    return file.model_copy(update={"chips": chips})


def _found(chip: str, name: str) -> str:
    """Return a chip's name, or the path of its file; raise `UserError` for one in another folder."""
    if not chip.endswith(".toml"):
        return chip
    if PurePosixPath(chip).name != chip or "\\" in chip:
        raise UserError(f"system {name}: chip {chip!r} (right: a .toml file in the system's own folder)")
    return str(Path(name).parent / chip)


def changed_system(name: str, settings: Mapping[str, object], chip: Chip | None = None) -> System:
    """Return a system with settings put over it: those of its own tables, and all others over its chips'.

    `chip` stands in place of the chips of its name, as it is.
    """
    of_chips = settings_of_chips(settings)

    def found(source: str) -> Chip:
        as_shipped = load_chip(source, of_chips if chip is None else None)
        return chip if chip is not None and chip.name == as_shipped.name else as_shipped

    return load_system(name, settings_of(settings), chip=found)


def settings_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return those of some settings that are of a system, by dotted key, as TOML text."""
    return {k: json.dumps(x) for k, x in settings.items() if k.startswith(SYSTEM_TABLES)}


def settings_of_chips(settings: Mapping[str, object]) -> dict[str, object]:
    """Return those of some settings that are of chips."""
    return {k: x for k, x in settings.items() if not k.startswith(SYSTEM_TABLES)}


def _library(file: SystemFile, where: str) -> Any:
    given = file.library
    if isinstance(given, str):
        return checked_library(toml.parse(library_text(given), f"library {given}"), f"library {given}")
    return checked_library(dict(given), f"{where}: library")


def _copies(name: str) -> tuple[str, int]:
    """Return the name and the number of copies of `name*3`."""
    base, star, count = name.rpartition("*")
    if not star:
        return name, 1
    if not re.fullmatch(r"[1-9][0-9]{0,4}", count):
        raise UserError(f"system '{name[:80]}': '{count[:20]}' copies; right: a whole number from 1 to 99999")
    return base, int(count)


def _check_size(file: SystemFile, copies: int, where: str, consent: bool) -> None:
    """Refuse more chips than anyone asks for by accident, and names that occur twice."""
    ranks = copies * sum(group.count for group in file.chips)
    if ranks > (MOST_WITH_CONSENT if consent else MOST_RANKS):
        ask = (
            f"at most {MOST_WITH_CONSENT}"
            if consent
            else f"more than {MOST_RANKS} must be asked for (--many)"
        )
        raise UserError(f"{where}: {ranks} chips; {ask}")
    for what, names in (
        ("nodes", [g.name for g in file.chips] + [g.name for g in file.switches]),
        ("links", [g.name for g in file.links]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"{where}: two groups of {what} are called '{twice[0]}'; each has its own name")


def _put(values: dict[str, Any], key: str, text: str) -> None:
    """Set a dotted key, its value read as TOML; a group in a list is addressed by its name."""
    *path, last = key.split(".")
    table: Any = values
    for part in path:
        if isinstance(table, list):
            named = [g for g in table if isinstance(g, dict) and g.get("name") == part]
            if not named:
                known = [str(g.get("name")) for g in table if isinstance(g, dict)]
                raise refuse_unknown(f"group of --set {key}", part, known)
            table = named[0]
        else:
            table = table.get(part)
        if not isinstance(table, dict | list):
            raise UserError(
                f"--set {key}: no table '{part}' there (right: --set links.NAME.bytes_per_s=1e11)"
            )
    if not isinstance(table, dict):
        raise UserError(f"--set {key}: '{last}' is a group; name what of it is set (right: {key}.count=8)")
    keys = keys_of(path[0]) if path else None
    if keys is not None and len(path) == 1 + (path[0] != "host") and last not in keys:
        raise refuse_unknown(f"key of --set {key}", last, keys)
    try:
        table[last] = tomllib.loads(f"x = {text.strip()}")["x"]
    except (ValueError, RecursionError):
        table[last] = text.strip()
