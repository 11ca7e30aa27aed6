"""A fitted or borrowed value put into a GPU's file, with where it comes from beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accuracy import tables


def write(name: str, values: Mapping[str, float], comment: str) -> None:
    """Put values into a GPU's file, each with where it comes from beside it."""
    import tomlkit

    path = tables.ROOT / "mtia_emu" / "gpu" / "gpus" / f"{name}.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        table: Any = document
        *outer, last = key.split(".")
        for part in outer:
            table = table[part]
        item = tomlkit.item(value)
        item.comment(comment)
        item.trivia.comment_ws = "  "
        table[last] = item
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
