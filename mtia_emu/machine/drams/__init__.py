"""DRAM channels by name or file: TOML, the source of a number beside it. Those here ship with the product."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...errors import UserError, nearest, refuse_unknown
from ...files import toml
from ..units.dram import DramTiming


def dram_names() -> list[str]:
    """Return the names of the DRAM channels."""
    folder = resources.files(__name__)
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def dram_text(name: str) -> str:
    """Return the TOML text of a shipped DRAM channel, with the sources in its comments."""
    if name not in dram_names():
        raise refuse_unknown("dram", name, dram_names())
    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")


def load_dram(name: str, **changed: Any) -> DramTiming:
    """Return the shipped DRAM channel of that name, with parameters `changed`.

    Unknown names and keys, wrong types and values that cannot be raise `UserError`. A name is never a path:
    chip files and saved programs, which may come from anyone, hold names.
    """
    return check(_shipped(name) | changed, f"dram {name}")


@lru_cache(maxsize=16)
def _shipped(name: str) -> dict[str, Any]:
    return toml.parse(dram_text(name), f"dram {name}")


def read_dram(path: str | Path) -> DramTiming:
    """Return the DRAM channel that a TOML file of the user's describes; raise `UserError` for a bad one."""
    where = f"dram {path}"
    return check(toml.parse(toml.file_text(Path(path), "dram", dram_names()), where), where)


def check(values: dict[str, Any], where: str) -> DramTiming:
    """Return the DRAM channel of these parameters; raise `UserError` naming every fault."""
    try:
        return DramTiming.model_validate(values, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_fault(e) for e in error.errors())) from None


def _fault(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, DramTiming.model_fields)}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    return f"'{key}' is {error['input']!r}: {error['msg'].lower()}" if key else str(error["ctx"]["error"])
