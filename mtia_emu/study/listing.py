"""Every parameter of a chip or GPU: its unit, its meaning, and the source noted beside it in its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..gpu import load_gpu
from ..gpu.load import gpu_text
from ..machine.chip import chip_text, load_chip


@dataclass(frozen=True)
class Parameter:
    """One parameter; `source` is the comment on its line."""

    key: str
    value: object
    unit: str
    text: str
    source: str


def chip_parameters(name: str) -> list[Parameter]:
    """Return the parameters of a shipped chip or of a .toml file."""
    return list(_walk(load_chip(name), _comments(chip_text(name)[0]), ""))


def gpu_parameters(name: str) -> list[Parameter]:
    """Return the parameters of a shipped GPU or of a .toml file."""
    return list(_walk(load_gpu(name), _comments(gpu_text(name)), ""))


def _comments(text: str) -> dict[str, str]:
    """Return the comment on each key's line, by dotted key."""
    import tomlkit

    out: dict[str, str] = {}

    def visit(table: Any, prefix: str) -> None:
        for key, item in table.body:
            if key is None:
                continue
            name = prefix + key.key
            if isinstance(item, tomlkit.items.Table):
                visit(item.value, f"{name}.")
            else:
                out[name] = item.trivia.comment.lstrip("# ")

    visit(tomlkit.parse(text), "")
    return out


def _walk(model: BaseModel, comments: dict[str, str], prefix: str) -> Iterator[Parameter]:
    for name, info in type(model).model_fields.items():
        key, value = prefix + name, getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, comments, f"{key}.")
            continue
        if value is None:
            continue
        extra = info.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        parts = {f"{key}.{part}": x for part, x in value.items()} if isinstance(value, dict) else {key: value}
        for full, x in parts.items():
            yield Parameter(full, x, unit, info.description or "", comments.get(full, ""))
