"""A graph as it grows: draws of shapes, values and constants, and nodes added by motifs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.graph import Const, Graph

from ..types import TensorType, dtype

Array = np.ndarray[Any, Any]
SIZES = (1, 2, 3, 4, 6, 8)


class ChoiceSource(Protocol):
    """Where a graph's choices come from."""

    def pick(self, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1."""

    def order(self, count: int) -> tuple[int, ...]:
        """Return 0 .. count - 1 in any order."""


class Seeded:
    """Choices from a seed."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def pick(self, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return choices[int(self._rng.integers(len(choices)))]

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1."""
        return int(self._rng.integers(limit))

    def order(self, count: int) -> tuple[int, ...]:
        """Return 0 .. count - 1 in any order."""
        return tuple(map(int, self._rng.permutation(count)))


class Grower:
    """A graph as it grows: `values` are those of its own float type, which motifs read and add to."""

    def __init__(self, source: ChoiceSource, kind: str, *, empty: bool = False) -> None:
        self._source = source
        self.kind = dtype(kind)
        self.b = NodeBuilder()
        self.inputs: dict[str, TensorType] = {}
        self.values: list[str] = []
        self.kept: list[str] = []  # values that are outputs whatever is drawn
        self.extra: list[str] = []  # values of other types, which may be outputs
        self.sizes = (0, *SIZES) if empty else SIZES
        self.rng = np.random.default_rng(source.below(1 << 16))

    def pick(self, choices: Any) -> Any:
        """Return one of the choices."""
        return self._source.pick(tuple(choices))

    def chance(self) -> bool:
        """Return True or False."""
        return bool(self._source.pick((False, True)))

    def order(self, count: int) -> tuple[int, ...]:
        """Return 0 .. count - 1 in any order."""
        return self._source.order(count)

    def size(self) -> int:
        """Return the size of a dimension."""
        return int(self.pick(self.sizes))

    def shape(self, low: int, high: int) -> tuple[int, ...]:
        """Return a shape of `low` to `high` dimensions."""
        return tuple(self.size() for _ in range(self.pick(range(low, high + 1))))

    def of(self, value: str) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.b.type_of(value).shape

    def input(self, shape: tuple[int, ...], kind: str = "") -> str:
        """Return a new input of the graph."""
        name = f"in{len(self.inputs)}"
        self.inputs[name] = TensorType(dtype(kind) if kind else self.kind, shape)
        self.b.declare(name, self.inputs[name])
        return name

    def const(self, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> str:
        """Return a new constant of normal numbers."""
        data = self.rng.standard_normal(shape) * scale + shift
        return self.b.put(self.b.fresh("w"), Const.of(np.asarray(data).astype(self.kind.numpy)))

    def number(self, value: float) -> str:
        """Return a constant of one number, of rank 0 or 1."""
        return self.b.constant([value] if self.chance() else value, self.kind.numpy)

    def value(self, low: int = 0, high: int = 4) -> str:
        """Return a value of `low` to `high` dimensions: one that is there, or a new input."""
        fit = [v for v in self.values if low <= len(self.of(v)) <= high]
        return self.pick(fit) if fit and self.pick(range(4)) else self.input(self.shape(low, high))

    def like(self, value: str) -> str:
        """Return a value that broadcasts to another: one as large, or a constant with dimensions of 1."""
        shape = self.of(value)
        same = [v for v in self.values if self.of(v) == shape]
        if same and self.chance():
            return self.pick(same)
        kept = tuple(s if self.chance() else 1 for s in shape)
        return self.const(kept[self.pick(range(len(kept) + 1)) :])

    def op(self, name: str, *inputs: str, **attrs: Any) -> str:
        """Add a node and return its result."""
        return self.b.add(name, *inputs, **attrs)

    def either(self, name: str, a: str, b: str) -> str:
        """Add a commutative node, its operands in either order."""
        return self.op(name, a, b) if self.chance() else self.op(name, b, a)

    def add(self, value: str) -> str:
        """Let later motifs read a value; return it."""
        if value not in self.values:
            self.values.append(value)
        return value

    def keep(self, value: str) -> str:
        """Make a value an output; return it."""
        self.kept.append(value)
        return value

    def graph(self) -> Graph:
        """Return the graph: the last value is an output, and maybe some others."""
        outputs = (
            self.kept
            + self.values[-1:]
            + [v for v in (*self.values[:-1], *self.extra) if not self.pick(range(5))]
        )
        graph = Graph("random", self.b.nodes, self.inputs, dict.fromkeys(outputs), self.b.consts)
        return graph.prune()
