"""Results used again for chips that agree in every parameter that a piece of work read.

`Memo` runs a piece of work on a chip that notes which of its parameters are read. The result then serves
every chip that has the same values there: a chip with another DRAM does not compile anew what never asked
about DRAM. Nothing is listed by hand, so nothing can be forgotten when the compiler or the engine changes.

Work that decides something (which of two kernels is faster) reads much and answers little. Whoever asks for
a decision depends on the answer, not on what was read to find it: on another chip the decision is made anew,
and where it comes out the same, so does all that hangs on it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from pydantic import BaseModel

from ..machine.chip import Chip

T = TypeVar("T")
_Name = tuple[str, Hashable]  # of a piece of work: its kind and key
MOST_BYTES = 1 << 30
PACKAGE = __name__.partition(".")[0]
OBJECT_BYTES = 64  # of anything that is not an array
SAMPLE = 5  # elements of a long sequence whose size is looked at


class Memoise(Protocol):
    """How a caller is given a piece of work's result: by doing it, or from an earlier time."""

    def __call__(
        self, kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T], *, decides: bool = False
    ) -> T:
        """Return `work(chip)`; `key` holds all that the work depends on besides the chip.

        Where it `decides`, the result is small and hashable, the work never raises for a valid chip, and it
        may be done again later, on other chips.
        """


def unmemoised(
    kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T], *, decides: bool = False
) -> T:
    """Do the work."""
    return work(chip)


class SameObject:
    """A key that is equal to another when both hold the very same object, which it keeps alive."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameObject) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


class Notes(set[str]):
    """The dotted keys of a chip that a piece of work read, and the decisions that it asked for instead."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[_Name, Hashable] = {}


@dataclass(frozen=True)
class _Needs:
    """What a result depends on: parameters that were read, decisions that were asked for."""

    paths: tuple[str, ...]
    asked: tuple[_Name, ...]


@dataclass
class _Entry:
    """One result: whose it is, what it depends on, where it is found, and what it takes to keep or make it.

    `due` is when it goes: see `Memo`.
    """

    name: _Name
    needs: _Needs
    answers: tuple[Hashable, ...]
    result: Any
    size_bytes: int
    seconds: float
    place: Hashable
    due: float = 0.0


class Memo:
    """A `Memoise` that keeps results of up to `most_bytes`.

    First goes what took least time a byte and has not been asked for long (GreedyDual-Size, Cao and Irani,
    USITS 1997): events of a block are large and soon counted again, a lowered graph is neither. `done` and
    `reused` count by kind of work. For one thread.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = 0
        self.done: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self._needs: dict[_Name, Counter[_Needs]] = {}  # by name: what was needed, how many results
        self._entries: dict[Hashable, _Entry] = {}
        self._gone = 0.0  # when the last result that went was due
        self._deciding: dict[_Name, Callable[[Chip], Any]] = {}

    def __call__(
        self, kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T], *, decides: bool = False
    ) -> T:
        """Return `work(chip)`, or its result on a chip that agrees in all that the work depended on."""
        name, plain = (kind, key), _plain(chip)
        entry = self._found(name, plain)
        if entry is not None:
            self.reused[kind] += 1
            self._defer(entry)
        else:
            self.done[kind] += 1
            notes, begun = Notes(), time.perf_counter()
            try:
                result = work(noted(plain, notes))
            except BaseException:
                _pass_on(chip, notes, notes.asked)
                raise
            entry = self._keep(name, plain, notes, result, time.perf_counter() - begun)
        if decides:
            self._deciding[name] = work
            _pass_on(chip, (), {name: entry.result})
        else:
            _pass_on(chip, entry.needs.paths, dict(zip(entry.needs.asked, entry.answers, strict=True)))
        return cast(T, entry.result)

    def _found(self, name: _Name, chip: Chip) -> _Entry | None:
        """Return a result for a chip like this one."""
        for needs in self._needs.get(name, ()):
            answers = tuple(self(*x, chip, self._deciding[x], decides=True) for x in needs.asked)
            entry = self._entries.get((name, needs, _values(chip, needs.paths), answers))
            if entry is not None:
                return entry
        return None

    def _defer(self, entry: _Entry) -> None:
        entry.due = self._gone + entry.seconds / entry.size_bytes
        self._entries[entry.place] = self._entries.pop(
            entry.place
        )  # of equals the last that was asked for stays

    def _keep(self, name: _Name, chip: Chip, notes: Notes, result: Any, seconds: float) -> _Entry:
        needs = _Needs(tuple(sorted(notes)), tuple(notes.asked))
        answers = tuple(notes.asked.values())
        place = (name, needs, _values(chip, needs.paths), answers)
        entry = _Entry(name, needs, answers, result, _size((name, result)), seconds, place)
        self._entries[place] = entry
        self._defer(entry)
        self._needs.setdefault(name, Counter())[needs] += 1
        self.size_bytes += entry.size_bytes
        if self.size_bytes > self.most_bytes:
            self._forget()
        return entry

    def _forget(self) -> None:
        """Let results go until there is room; the newest stays."""
        *others, _ = self._entries.values()
        for old in sorted(others, key=lambda entry: entry.due):
            if self.size_bytes <= self.most_bytes:
                break
            del self._entries[old.place]
            self._gone = old.due
            self.size_bytes -= old.size_bytes
            self._needs[old.name][old.needs] -= 1
            if not +self._needs[old.name]:
                del self._needs[old.name]


def _pass_on(chip: Chip, paths: Iterable[str], asked: dict[_Name, Hashable]) -> None:
    """Note with a chip what work on it depended on: all of it, where decisions cannot be noted."""
    outer = _notes(chip)
    outer.update(paths)
    if isinstance(outer, Notes):
        outer.asked.update(asked)
    elif asked:
        outer.update(_leaves(_plain(chip), ""))


def _size(value: Any, depth: int = 6) -> int:
    """Return about how many bytes a result keeps: its arrays, and a little for each object.

    Of a long sequence some elements stand for the rest.
    """
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, SameObject):  # its graph is another result, or the caller's: constants count there
        return _size(value.held, depth - 1)
    inner: Sequence[Any] = ()
    if depth and isinstance(value, tuple | list):
        inner = value
    elif depth and isinstance(value, dict):
        inner = list(value.values())
    elif depth and type(value).__module__.startswith(PACKAGE):
        return OBJECT_BYTES + sum(_size(x, depth - 1) for x in getattr(value, "__dict__", {}).values())
    some = inner[:: max(1, len(inner) // SAMPLE)]
    return OBJECT_BYTES + sum(_size(x, depth - 1) for x in some) * len(inner) // max(len(some), 1)


def noted(chip: Chip, notes: set[str]) -> Chip:
    """Return an equal chip that adds the dotted key of every parameter that is read to `notes`."""
    return cast(Chip, _noted(_plain(chip), "", notes))


def _noted(table: BaseModel, prefix: str, notes: set[str]) -> BaseModel:
    kind = _noting_class(type(table))
    copy = kind.__new__(kind)
    values: dict[str, Any] = {}
    for name, field in type(table).model_fields.items():
        value = table.__dict__[name]
        values[name] = _noted(value, f"{prefix}{name}.", notes) if _is_table(field.annotation) else value
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
        old, inner = table.__dict__[name], _is_table(type(table).model_fields[name].annotation)
        notes.update(_leaves(old, f"{prefix}{name}.") if inner else [prefix + name])
        copy.__dict__[name] = value
    changed = table.model_copy(update=update)
    copy.__dict__["_noting"] = (prefix, notes, changed)
    return copy


def _is_table(annotation: Any) -> bool:
    """Return whether a field is a table that every chip has; one that a chip may lack is noted whole."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _leaves(table: BaseModel, prefix: str) -> Iterator[str]:
    for name, field in type(table).model_fields.items():
        if _is_table(field.annotation):
            yield from _leaves(table.__dict__[name], f"{prefix}{name}.")
        else:
            yield prefix + name


def noting(chip: Chip, paths: Iterable[str]) -> None:
    """Note dotted keys as read of a chip whose reads are noted; of a plain one nothing is."""
    _notes(chip).update(paths)


def is_noted(chip: Chip) -> bool:
    """Return whether reads of a chip are noted."""
    return "_noting" in chip.__dict__


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
