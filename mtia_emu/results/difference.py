"""Two runs layer by layer: which layers are the same, and what differs. Plain data."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "mtia-emu.diff.v1"
AMOUNTS = ("seconds", "joules", "macs", "dram_bytes", "sram_bytes")  # of a layer and of a run
COUNTS = ("cycles", "layers", "launches", "blocks", "commands")  # of a run; the last two of programs


@dataclass(frozen=True)
class LayerRow:
    """One layer of a run; `seconds` are its own. `commands` and `mapping` are known of programs alone."""

    name: str
    op: str
    kernel: str
    bound_by: str
    seconds: float
    joules: float
    macs: int
    dram_bytes: int
    sram_bytes: int
    commands: int | None = None
    mapping: str = ""


@dataclass(frozen=True)
class Side:
    """One run: the file that it was read from, what was run on what, its totals, and its layers.

    `blocks` and `commands` are known of programs alone.
    """

    file: str
    model: str
    chip: str
    dtype: str
    dims: dict[str, int]
    seconds: float
    joules: float
    macs: int
    dram_bytes: int
    sram_bytes: int
    cycles: int
    rows: tuple[LayerRow, ...]
    launches: int
    blocks: int | None = None
    commands: int | None = None

    @property
    def layers(self) -> int:
        """Return the number of layers."""
        return len(self.rows)

    @property
    def watts(self) -> float:
        """Return the average power; 0 of a run that takes no time."""
        return self.joules / self.seconds if self.seconds else 0.0

    @property
    def clock_hz(self) -> float:
        """Return the clock that the run kept, which a limit of power may have lowered; 0 without time."""
        return self.cycles / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Pair:
    """A layer of each run, the same one; None where only the other has it."""

    a: LayerRow | None
    b: LayerRow | None

    @property
    def either(self) -> LayerRow:
        """Return the layer, of the second run where it has it."""
        layer = self.b or self.a
        assert layer is not None
        return layer

    @property
    def more_commands(self) -> int | None:
        """Return how many more commands the second run has; None where those of one are not known."""
        counts = [row.commands for row in (self.a, self.b) if row is not None]
        if None in counts:
            return None
        return (self.b.commands or 0 if self.b else 0) - (self.a.commands or 0 if self.a else 0)

    def change(self, amount: str) -> float:
        """Return how much more of an amount the second run has."""
        return _amount(self.b, amount) - _amount(self.a, amount)

    @property
    def equal(self) -> bool:
        """Return whether nothing that is compared differs."""
        if self.a is None or self.b is None or self.a.bound_by != self.b.bound_by:
            return False
        return not (self.more_commands or any(self.change(amount) for amount in AMOUNTS))


def _amount(row: LayerRow | None, amount: str) -> float:
    return 0 if row is None else getattr(row, amount)


@dataclass(frozen=True)
class Difference:
    """Two runs and their layers, in pairs: those whose time, then energy, differs most come first."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]


def compare(a: Side, b: Side, by: str = "seconds") -> Difference:
    """Return what differs between two runs; pairs in the order of the change of the amount `by`."""

    def effect(pair: Pair) -> tuple[float, float]:
        return -abs(pair.change(by)), -abs(pair.change("joules"))

    return Difference(a, b, tuple(sorted(matched(a.rows, b.rows), key=effect)))


_KEYS: tuple[Callable[[LayerRow], Hashable], ...] = (
    lambda x: (x.name, x.op, x.kernel, x.macs),
    lambda x: (x.name, x.op),
    lambda x: (x.op, x.kernel, x.macs, x.dram_bytes, x.sram_bytes),
    lambda x: (x.op, x.macs) if x.macs else x,
)


def matched(a: Sequence[LayerRow], b: Sequence[LayerRow]) -> list[Pair]:
    """Return the layers of two runs in pairs, each in one, in the order of the first.

    Layers are the same by name and op, else by op and size. Of several that are alike the first goes with the
    first. Layers of `b` alone come last.
    """
    partner: dict[int, int] = {}
    free = dict.fromkeys(range(len(b)))
    for key in _KEYS:
        waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        for j in free:
            waiting[key(b[j])].append(j)
        for i in (i for i in range(len(a)) if i not in partner):
            if waiting.get(key(a[i])):
                partner[i] = waiting[key(a[i])].popleft()
                del free[partner[i]]
    pairs = [Pair(x, b[partner[i]] if i in partner else None) for i, x in enumerate(a)]
    return pairs + [Pair(None, b[j]) for j in free]


def ratio(a: float, b: float) -> float | None:
    """Return how many times as much the second is; None where the first is nothing."""
    return b / a if a else None


def as_json(difference: Difference) -> dict[str, Any]:
    """Return the documented JSON object (`docs/howto/compare-runs.md`)."""
    a, b = difference.a, difference.b
    names = [*AMOUNTS, *(x for x in COUNTS if getattr(a, x) is not None and getattr(b, x) is not None)]
    return {
        "schema": SCHEMA,
        "a": _side_json(a),
        "b": _side_json(b),
        "change": {x: getattr(b, x) - getattr(a, x) for x in names},
        "ratio": {x: ratio(getattr(a, x), getattr(b, x)) for x in names},
        "layers": [_pair_json(pair) for pair in difference.pairs],
    }


def _side_json(side: Side) -> dict[str, Any]:
    about = ("file", "model", "chip", "dtype", "dims", *AMOUNTS, *COUNTS)
    return {name: getattr(side, name) for name in about}


def _pair_json(pair: Pair) -> dict[str, Any]:
    return {
        "name": pair.either.name,
        "op": pair.either.op,
        "a": None if pair.a is None else asdict(pair.a),
        "b": None if pair.b is None else asdict(pair.b),
        "change": {x: pair.change(x) for x in AMOUNTS} | {"commands": pair.more_commands},
        "ratio": {x: ratio(_amount(pair.a, x), _amount(pair.b, x)) for x in AMOUNTS},
    }
