"""Every parameter of a chip or GPU: its unit, its meaning, and the source noted beside it in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..gpu import load_gpu
from ..gpu.load import gpu_text
from ..machine.base import layers
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
    return list(_walk(load_chip(name), _chip_comments(name), ""))


def _chip_comments(name: str) -> dict[str, str]:
    """Return the comment on each key's line, those of a base's lines with the base's name."""
    comments: dict[str, str] = {}
    for depth, (where, own) in enumerate(layers(name)):
        noted = _comments(chip_text(where)[0])
        for key in _keys(own, ""):
            text = noted.get(key, "")
            comments.setdefault(key, f"{where}: {text}" if depth else text)
    return comments


def _keys(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@dataclass(frozen=True)
class Changed:
    """A parameter in which two chips differ; None where one of them does not have it."""

    key: str
    unit: str
    first: object
    second: object

    @property
    def ratio(self) -> float | None:
        """Return the second over the first, None where they are no numbers or the first is 0."""
        if isinstance(self.first, bool) or isinstance(self.second, bool):
            return None
        if not isinstance(self.first, int | float) or not isinstance(self.second, int | float):
            return None
        return self.second / self.first if self.first else None


def changed(first: str, second: str) -> list[Changed]:
    """Return the parameters in which two chips differ, in the order of a chip's file."""
    one, two = ({p.key: p for p in _walk(load_chip(name), {}, "")} for name in (first, second))
    out = []
    for key in dict.fromkeys((*one, *two)):
        a, b = one.get(key), two.get(key)
        if a is None or b is None or a.value != b.value:
            known = a or b
            out.append(Changed(key, known.unit if known else "", a and a.value, b and b.value))
    return out


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
