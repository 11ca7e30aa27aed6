"""Chips that are another chip but for some numbers: a file says `base = "mtia-2i"`, then what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from ..files import toml
from .chips import chip_names, chip_text
from .memory_choice import DEVICE, choose

BASE = "base"
MOST_BASES = 4  # one on another
SUFFIX = ".toml"


def chip_values(name: str) -> tuple[dict[str, Any], str]:
    """Return the nested values of a shipped chip or of a file, those of its bases filled in, and where from.

    A base is a shipped chip, or a file in the same folder. Tables are put over the base's key by key; another
    `dram.device` takes the place of all that the base's memory brought. A file on a base that gives no name
    is called as the file is. Raises `UserError` for a base that is none, or one that rests on itself.
    """
    chain = list(layers(name))
    values: dict[str, Any] = {}
    for _, own in reversed(chain):
        dram = own.get("dram")
        if isinstance(dram, Mapping) and "device" in dram:
            choose(values, {DEVICE: dram["device"]})
        _put_over(values, own)
    return values, chain[0][0]


def layers(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each comes from and its own values: a chip, then its base, then that one's."""
    seen: list[str] = []
    while True:
        text, where = chip_text(name)
        own = toml.parse(text, where)
        base = own.pop(BASE, None)
        if base is not None and "name" not in own:
            own["name"] = Path(name).stem
        yield where, own
        if base is None:
            return
        seen.append(where)
        if len(seen) > MOST_BASES:
            raise UserError(
                f"chip {seen[0]}: more than {MOST_BASES} bases, one on another: {' on '.join(seen)} "
                "(right: a base that leads to a chip that has none)"
            )
        name = _place(base, where)


def _place(base: object, where: str) -> str:
    """Return the name or path of a base that a file names."""
    if isinstance(base, str) and base in chip_names():
        return base
    alone = isinstance(base, str) and PurePosixPath(base).name == base and "\\" not in base
    if isinstance(base, str) and alone and base.endswith(SUFFIX):
        return str(Path(where).parent / base)
    known = ", ".join(chip_names())
    raise UserError(
        f"chip {where}: base is {base!r}; right: one of {known}, or a {SUFFIX} file in the same folder"
    )


def _put_over(values: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Put nested tables over others, in place, key by key."""
    for key, value in own.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _put_over(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value
