"""Small exchanges that go together as one: fewer starts, for bytes that wait for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtia_emu.compiler.ops.collectives import PLACED, ROUTED

from .meetings import Meeting
from .partition import Exchanges

Key = tuple[str, tuple[str, ...]]


@dataclass
class _Open:
    """Exchanges that wait for more of their kind, by kind and axes; `done` are those that wait no longer."""

    limit: int
    waiting: dict[Key, list[Meeting]] = field(default_factory=dict)
    done: list[list[Meeting]] = field(default_factory=list)

    def close(self, key: Key) -> None:
        self.done.append(self.waiting.pop(key))

    def add(self, m: Meeting) -> None:
        key = (m.op, m.axes)
        if m.op in PLACED:  # one exchange, whatever its size
            self.waiting.setdefault(key, []).append(m)
            return
        if key in self.waiting and sum(x.bytes for x in self.waiting[key]) + m.bytes > self.limit:
            self.close(key)
        self.waiting.setdefault(key, []).append(m)
        if m.op in ROUTED or sum(x.bytes for x in self.waiting[key]) >= self.limit:
            self.close(key)


def is_bucketed(meetings: Sequence[Meeting], limit: int) -> bool:
    """Return whether any of these exchanges may go with others."""
    return bool(limit) or any(m.op in PLACED for m in meetings)


def bucketed(
    meetings: Sequence[Meeting], after: Sequence[Sequence[int]], on: Exchanges, stage: int, limit: int
) -> list[Meeting]:
    """Return exchanges of which those of a kind, up to `limit` bytes, are one where their last one stands.

    `after` says of each launch which it waits for. A bucket goes when it is full, and before anything waits
    for one that is in it: so none waits for what comes behind it. Exchanges with the holders of tables always
    go together.
    """
    numbers: Mapping[int, Meeting] = {m.launch: m for m in meetings}
    open_ = _Open(limit)
    for number, waited in enumerate(after):
        for key, held in list(open_.waiting.items()):
            if {m.launch for m in held} & set(waited):
                open_.close(key)
        if number in numbers:
            open_.add(numbers[number])
    for key in list(open_.waiting):
        open_.close(key)
    return sorted((together(each, on, stage) for each in open_.done), key=lambda m: m.launch)


def together(each: Sequence[Meeting], on: Exchanges, stage: int) -> Meeting:
    """Return exchanges as one of all their bytes."""
    last = each[-1]
    if len(each) == 1:
        return last
    total = sum(m.bytes for m in each)
    parts = tuple(part for m in each for part in m.parts)
    if parts:
        time, groups = on.placed(stage, last.op, last.axes, parts)
    else:
        time, groups = on.time(stage, last.op, last.axes, total)
    held = tuple(m.launch for m in each[:-1])
    return Meeting(last.launch, last.op, last.axes, total, last.size, time, groups, held, parts)
