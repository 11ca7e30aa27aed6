"""Results shared between chips that agree in every parameter that a piece of work read.

`Sharing` runs a piece of work on a chip that notes which of its parameters are read. The result then serves
every chip that has the same values there: a chip with another DRAM does not compile anew what never asked
about DRAM. Nothing is listed by hand, so nothing can be forgotten when the compiler or the engine changes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from pydantic import BaseModel

from .chip import Chip

T = TypeVar("T")
MOST_BYTES = 1 << 30
OBJECT_BYTES = 64  # of anything that is not an array
SAMPLE = 16  # elements of a long sequence whose size is looked at


class Share(Protocol):
    """How a caller is given a piece of work's result: by doing it, or from an earlier time."""

    def __call__(self, kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T]) -> T:
        """Return `work(chip)`; `key` holds all that the work depends on besides the chip."""


def unshared(kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T]) -> T:
    """Do the work."""
    return work(chip)


class Same:
    """A key that is equal to another when both hold the very same object, which it keeps alive."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


@dataclass(frozen=True)
class _Entry:
    """One result: whose it is, the parameters that it read, and the bytes that it keeps."""

    key: Hashable
    paths: tuple[str, ...]
    result: Any
    size_bytes: int


class Sharing:
    """A `Share` that keeps results of up to `most_bytes`; the one not asked for longest goes first.

    For one thread. `done` and `shared` count by kind of work.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = 0
        self.done: Counter[str] = Counter()
        self.shared: Counter[str] = Counter()
        self._reads: dict[Hashable, Counter[tuple[str, ...]]] = {}  # by key: what was read, how many results
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __call__(self, kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T]) -> T:
        """Return `work(chip)`, or its result on a chip that agrees in all that the work read."""
        full, plain, outer = (kind, key), _plain(chip), _notes(chip)
        for paths in self._reads.get(full, ()):
            entry = self._entries.get((full, paths, _values(plain, paths)))
            if entry is not None:
                self.shared[kind] += 1
                self._entries.move_to_end((full, paths, _values(plain, paths)))
                outer.update(paths)
                return cast(T, entry.result)
        self.done[kind] += 1
        with _noting(plain, outer) as (noted_chip, notes):
            result = work(noted_chip)
        self._keep(_Entry(full, tuple(sorted(notes)), result, _size((key, result))), plain)
        return result

    def _keep(self, entry: _Entry, chip: Chip) -> None:
        self._entries[entry.key, entry.paths, _values(chip, entry.paths)] = entry
        self._reads.setdefault(entry.key, Counter())[entry.paths] += 1
        self.size_bytes += entry.size_bytes
        while self.size_bytes > self.most_bytes and len(self._entries) > 1:
            _, old = self._entries.popitem(last=False)
            self.size_bytes -= old.size_bytes
            self._reads[old.key][old.paths] -= 1
            if not +self._reads[old.key]:
                del self._reads[old.key]


def _size(value: Any, depth: int = 6) -> int:
    """Return about how many bytes a result keeps: its arrays, and a little for each object.

    Of a long sequence some elements stand for the rest.
    """
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Same):
        return _size(value.held, depth)
    inner: Sequence[Any] = ()
    if depth and isinstance(value, tuple | list):
        inner = value
    elif depth and isinstance(value, dict):
        inner = list(value.values())
    elif depth and is_dataclass(value):
        return OBJECT_BYTES + sum(_size(getattr(value, f.name), depth - 1) for f in fields(value))
    some = inner[:: max(1, len(inner) // SAMPLE)]
    return OBJECT_BYTES + sum(_size(x, depth - 1) for x in some) * len(inner) // max(len(some), 1)


@contextmanager
def _noting(chip: Chip, outer: set[str]) -> Iterator[tuple[Chip, set[str]]]:
    """Give a chip that notes what is read of it, and the notes, which are `outer`'s too at the end."""
    notes: set[str] = set()
    try:
        yield cast(Chip, _noted(chip, "", notes)), notes
    finally:
        outer |= notes


def noted(chip: Chip, notes: set[str]) -> Chip:
    """Return an equal chip that adds the dotted key of every parameter that is read to `notes`."""
    return cast(Chip, _noted(_plain(chip), "", notes))


def _noted(table: BaseModel, prefix: str, notes: set[str]) -> BaseModel:
    kind = _noting_class(type(table))
    copy = kind.__new__(kind)
    values: dict[str, Any] = {}
    for name in type(table).model_fields:
        value = table.__dict__[name]
        values[name] = _noted(value, f"{prefix}{name}.", notes) if isinstance(value, BaseModel) else value
    object.__setattr__(copy, "__dict__", values)
    for name, value in (("extra__", None), ("fields_set__", set()), ("private__", None)):
        object.__setattr__(copy, f"__pydantic_{name}", value)
    values["_noting"] = (prefix, notes, table)
    return copy


@cache
def _noting_class(kind: type[BaseModel]) -> type[BaseModel]:
    """Return a subclass of a table of parameters whose reads are noted.

    Comparing or hashing such a table, or turning it into a dictionary, reads all of it.
    """
    scalars = {n for n, f in kind.model_fields.items() if not _is_table(f.annotation)}

    def read(self: Any, name: str) -> Any:
        if name in scalars:
            prefix, notes, _ = object.__getattribute__(self, "__dict__")["_noting"]
            notes.add(prefix + name)
        return object.__getattribute__(self, name)

    def everything(self: Any) -> BaseModel:
        prefix, notes, table = object.__getattribute__(self, "__dict__")["_noting"]
        notes.update(_leaves(table, prefix))
        return cast(BaseModel, table)

    def dump(self: Any, **options: Any) -> dict[str, Any]:
        return everything(self).model_dump(**options)

    def equal(self: Any, other: object) -> bool:
        return everything(self) == (everything(other) if "_noting" in vars(other) else other)

    members = {
        "__getattribute__": read,
        "__hash__": lambda self: hash(everything(self)),
        "__eq__": equal,
        "__iter__": lambda self: iter(everything(self)),
        "model_dump": dump,
        "model_copy": _copy,
    }
    new = type.__call__(_Plain, f"Noted{kind.__name__}", (kind,), members)
    return cast("type[BaseModel]", new)


class _Plain(type(BaseModel)):  # type: ignore[misc]
    """Makes a subclass of a pydantic model as any class is made: it adds no field and checks nothing."""

    def __new__(mcs, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        return type.__new__(mcs, name, bases, members)

    def __init__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> None:
        type.__init__(cls, name, bases, members)


def _copy(self: Any, *, update: dict[str, Any] | None = None, deep: bool = False) -> BaseModel:
    """Return a copy whose reads are noted as the original's; what is updated is noted as read."""
    prefix, notes, table = object.__getattribute__(self, "__dict__")["_noting"]
    copy = _noted(table, prefix, notes)
    for name, value in (update or {}).items():
        old = table.__dict__[name]
        notes.update(_leaves(old, f"{prefix}{name}.") if isinstance(old, BaseModel) else [prefix + name])
        copy.__dict__[name] = value
    changed = table.model_copy(update=update)
    copy.__dict__["_noting"] = (prefix, notes, changed)
    return copy


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _leaves(table: BaseModel, prefix: str) -> Iterator[str]:
    for name in type(table).model_fields:
        value = table.__dict__[name]
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def noting(chip: Chip, paths: Iterable[str]) -> None:
    """Note dotted keys as read of a chip whose reads are noted; of a plain one nothing is."""
    _notes(chip).update(paths)


def known(chip: Chip, paths: tuple[str, ...]) -> bool:
    """Return whether dotted keys are all parameters of a chip."""
    return set(paths) <= set(_leaves(_plain(chip), ""))


def values_of(chip: Chip, paths: tuple[str, ...]) -> tuple[Hashable, ...]:
    """Return the values of a chip's dotted keys, as what tells them apart; none of them is noted as read."""
    return _values(_plain(chip), paths)


def _plain(chip: Chip) -> Chip:
    """Return the chip itself, or the one whose reads it notes."""
    noting = chip.__dict__.get("_noting")
    return noting[2] if noting else chip


def _notes(chip: Chip) -> set[str]:
    """Return where the reads of a chip are noted; of a plain one nowhere that matters."""
    noting = chip.__dict__.get("_noting")
    return noting[1] if noting else set()


def _values(chip: Chip, paths: tuple[str, ...]) -> tuple[Hashable, ...]:
    """Return the values of dotted keys, hashable; 1 and 1.0 and True are not the same value."""
    return tuple(_frozen(_value(chip, path)) for path in paths)


def _value(chip: Chip, path: str) -> Any:
    value: Any = chip
    for part in path.split("."):
        value = value.__dict__[part]
    return value


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple((k, _frozen(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return type(value), value
