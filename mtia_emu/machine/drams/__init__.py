"""Memory technologies by name: TOML, the source of a number beside it. Those here ship with the product.

A file has the timings of a channel and, in `[technology]`, what else the choice of this memory brings.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...errors import UserError, nearest, refuse_unknown
from ...files import toml
from ..units.dram import DramTiming
from .technology import Technology

TECHNOLOGY = "technology"  # the table of a file
M = TypeVar("M", bound=BaseModel)


def dram_names() -> list[str]:
    """Return the names of the memories, each with its speed grade."""
    folder = resources.files(__name__)
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def grade(name: str) -> str:
    """Return the memory that a name stands for: itself, or the fastest grade of a technology (`hbm3`).

    Raises `UserError` for a name that is neither.
    """
    names = dram_names()
    grades = [x for x in names if name in (x, _technology(x))]
    if not grades:
        raise refuse_unknown("dram", name, {*names, *map(_technology, names)})
    return max(grades, key=lambda x: int(x.rpartition("-")[2]))


def _technology(name: str) -> str:
    return name.rpartition("-")[0]


def dram_text(name: str) -> str:
    """Return the TOML text of a shipped memory, with the sources in its comments."""
    return (resources.files(__name__) / f"{grade(name)}.toml").read_text(encoding="utf-8")


def load_dram(name: str, **changed: Any) -> DramTiming:
    """Return a channel of the shipped memory of that name, with parameters `changed`.

    Unknown names and keys, wrong types and values that cannot be raise `UserError`. A name is never a path:
    chip files and saved programs, which may come from anyone, hold names.
    """
    timings = {key: value for key, value in _shipped(name).items() if key != TECHNOLOGY}
    return check(timings | changed, f"dram {name}")


@lru_cache(maxsize=64)
def load_technology(name: str) -> Technology:
    """Return what the choice of a shipped memory brings; raise `UserError` for an unknown one."""
    return _checked(Technology, _shipped(name).get(TECHNOLOGY, {}), f"dram {name}: technology")


@lru_cache(maxsize=64)
def _shipped(name: str) -> dict[str, Any]:
    return toml.parse(dram_text(name), f"dram {name}")


def read_dram(path: str | Path) -> DramTiming:
    """Return the DRAM channel that a TOML file of the user's describes; raise `UserError` for a bad one.

    Of a `[technology]` only the form is checked: chips hold names of shipped memories.
    """
    where = f"dram {path}"
    values = toml.parse(toml.file_text(Path(path), "dram", dram_names()), where)
    if TECHNOLOGY in values:
        _checked(Technology, values.pop(TECHNOLOGY), f"{where}: technology")
    return check(values, where)


def check(values: dict[str, Any], where: str) -> DramTiming:
    """Return the DRAM channel of these parameters; raise `UserError` naming every fault."""
    return _checked(DramTiming, values, where, strict=True)


def _checked(model: type[M], values: Any, where: str, *, strict: bool = False) -> M:
    try:
        return model.model_validate(values, strict=strict)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_fault(e, model) for e in error.errors())) from None


def _fault(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, model.model_fields)}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    return f"'{key}' is {error['input']!r}: {error['msg'].lower()}" if key else str(error["ctx"]["error"])
