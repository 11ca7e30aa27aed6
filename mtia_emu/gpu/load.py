"""From a name or a TOML file to a checked `Gpu`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import UserError, nearest, refuse_unknown
from ..files import toml
from .machine import Gpu

MAX_FILE_BYTES = 1 << 18


def gpu_names() -> list[str]:
    """Return the names of the GPUs that ship with the product."""
    folder = resources.files("mtia_emu.gpu.gpus")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def gpu_text(name_or_path: str) -> str:
    """Return the TOML text of a shipped GPU or of a .toml file, with the sources in its comments."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return _file_text(Path(name_or_path))
    if name_or_path not in gpu_names():
        raise _unknown(name_or_path)
    return (resources.files("mtia_emu.gpu.gpus") / f"{name_or_path}.toml").read_text(encoding="utf-8")


def _unknown(name: str) -> UserError:
    """Return the error for a name that there is no GPU of: every variant, where it is the name of several."""
    names = gpu_names()
    variants = [n for n in names if name and n.startswith(f"{name.lower()}-")]
    if not variants:
        return refuse_unknown("gpu", name, names)
    names_right = " or ".join(f"'{n}'" for n in variants)
    return UserError(f"unknown gpu '{name}'; did you mean {names_right}? (known: {', '.join(names)})")


def load_gpu(name_or_path: str, settings: Mapping[str, str] | None = None) -> Gpu:
    """Return the GPU of that name or .toml file, with `settings` (dotted key to TOML text) put over it.

    Unknown names and keys, wrong types, NaN and values out of range raise `UserError`.
    """
    where = f"gpu {name_or_path}"
    values = toml.parse(gpu_text(name_or_path), where)
    for key, text in (settings or {}).items():
        _put(values, key, text)
    try:
        return Gpu.model_validate(toml.tuples(values))
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_fault(e) for e in error.errors())) from None


def _file_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            f"gpu file {path} is not a file; give a name ({', '.join(gpu_names())}) or a .toml file"
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"gpu file {path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"gpu file {path} cannot be read as text: {error}") from None


def known_keys() -> list[str]:
    """Return every dotted key that a GPU file may have."""
    return sorted(_keys(Gpu, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        kinds = get_args(info.annotation) if isinstance(info.annotation, UnionType) else (info.annotation,)
        tables = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if tables:
            yield from _keys(tables[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def _put(values: dict[str, Any], key: str, text: str) -> None:
    """Set a dotted key in nested tables, its value read as TOML."""
    if key not in known_keys():
        raise UserError(
            f"unknown gpu key '{key}'{nearest(key, known_keys())} (a key is as in the GPU's file)"
        )
    *path, last = key.split(".")
    table = values
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"gpu key '{key}': '{part}' is {table!r} in the file; it is a table of keys")
    try:
        table[last] = tomllib.loads(f"x = {text.strip()}")["x"]
    except (ValueError, RecursionError):
        table[last] = text.strip()


def _fault(error: Any) -> str:
    """Return one fault as key, value seen and what would be right."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, known_keys())}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if not key:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"'{key}' is {error['input']!r}: {error['msg'].lower()}"
