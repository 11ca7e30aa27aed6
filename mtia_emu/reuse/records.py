"""Small results kept on disk, a file each, found again by all that they come from.

A result is a frozen dataclass of numbers, names, tuples and more of such. In a file it is a list of what its
fields hold, as JSON: nothing is executed, and what is not of the form asked for is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from .. import settings
from ..errors import UserError
from ..files import disk_cache
from ..machine.memories import Memory, memory_named
from ..types import DTYPES, DType

T = TypeVar("T")
FOLDER = "known"
MOST_FILES = 1 << 14  # of the folder: the oldest go, once in a while
ONCE = 64  # writes, about, before the folder is looked at
MOST_BYTES = 1 << 18  # of a file
WRONG = (ValueError, TypeError, RecursionError, UserError)  # what a file of another form makes


class Records:
    """Results in the files of a folder, which several processes may use at once.

    A file that is damaged or of another form is as one that is not there; where none can be written, nothing
    is kept.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def kept(self, source: str, form: Any, make: Callable[[], T]) -> T:
        """Return make(), of a form, or what was kept of an equal `source`, which tells all it comes from."""
        found = self.find(source, form)
        if found is None:
            found = (make(),)
            self.keep(source, found[0])
        return cast(T, found[0])

    def find(self, source: str, form: Any) -> tuple[Any] | None:
        """Return what was kept of an equal `source`, alone in a tuple; None where nothing of the form was."""
        data = disk_cache.read(self._file(source), MOST_BYTES)
        if data is None:
            return None
        try:
            return (loaded(form, json.loads(data)),)
        except WRONG:
            return None

    def keep(self, source: str, value: object) -> None:
        """Keep a value; one that is too large, or that holds what is no finite number, is not kept."""
        try:
            data = json.dumps(dumped(value), allow_nan=False, separators=(",", ":")).encode()
        except ValueError:
            return
        file = self._file(source)
        if len(data) <= MOST_BYTES and disk_cache.write(file, data) and int(file.stem, 16) % ONCE == 0:
            disk_cache.trim(self.place, MOST_FILES)

    def drop(self, source: str) -> None:
        """Forget what was kept of a `source`."""
        self._file(source).unlink(missing_ok=True)

    def _file(self, source: str) -> Path:
        return self.place / f"{hashlib.blake2b(source.encode(), digest_size=16).hexdigest()}.json"


def records() -> Records | None:
    """Return the user's records; None where they are switched off, or where there is no folder for them."""
    if not settings.BLOCKS.on():
        return None
    place = disk_cache.folder(FOLDER)
    return Records(place) if place else None


def dumped(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, DType):
        return value.name
    if is_dataclass(value):
        return [dumped(getattr(value, f.name)) for f in fields(value)]
    if isinstance(value, np.ndarray):
        if value.size:
            raise ValueError("an array that is not empty is no small result")
        return []
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [dumped(x) for x in value]
    if isinstance(value, dict):
        return {key: dumped(x) for key, x in value.items()}
    return value


def loaded(form: Any, data: Any) -> Any:
    """Return the value of a form, a type, that JSON holds.

    Raises `ValueError` where it holds another.
    """
    origin = get_origin(form) or form
    if origin in (Union, UnionType):
        return None if data is None else loaded(_other(form), data)
    if origin in _PLAIN:
        return _PLAIN[origin](data)
    if origin is dict and isinstance(data, dict):
        _, inner = get_args(form)
        return {key: loaded(inner, x) for key, x in data.items()}
    if not isinstance(data, list):
        raise ValueError(f"{data!r:.40} is no {form}")
    if origin is np.ndarray and not data:
        return np.zeros(0)
    if origin is tuple:
        inner = get_args(form)
        kinds = [inner[0]] * len(data) if inner[1:] == (...,) else inner
        return tuple(loaded(kind, x) for kind, x in zip(kinds, data, strict=True))
    if is_dataclass(origin):
        pairs = zip(_kinds(cast(Any, origin)), data, strict=True)
        return cast(Any, origin)(*(loaded(kind, x) for kind, x in pairs))
    raise ValueError(f"{data!r:.40} is no {form}")


def _other(form: Any) -> Any:
    """Return the type of which a value may be missing."""
    (other,) = (x for x in get_args(form) if x is not NoneType)
    return other


@cache
def _kinds(form: type) -> tuple[Any, ...]:
    """Return the types of a dataclass's fields, in order."""
    hints = get_type_hints(form)
    return tuple(hints[f.name] for f in fields(cast(Any, form)))


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def check(data: Any) -> Any:
        if type(data) not in kinds:
            raise ValueError(f"{data!r:.40} is no {kinds[0].__name__}")
        return data

    return check


def _dtype(data: Any) -> DType:
    if not isinstance(data, str) or data not in DTYPES:
        raise ValueError(f"no dtype {data!r:.40}")
    return DTYPES[data]


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _exactly(int),
    float: _exactly(float, int),
    bool: _exactly(bool),
    str: _exactly(str),
    DType: _dtype,
    Memory: lambda data: memory_named(_exactly(str)(data)),
}
