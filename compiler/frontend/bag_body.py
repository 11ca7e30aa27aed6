"""Reading the body of a Loop by what its values are, not by how it is spelt.

A value is *invariant* when every iteration computes the same; it is then made once, outside. It is an
*index* when it is the iteration's number plus a constant, and an *element* when it is that element of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mtia_emu.errors import UserError

from .distinct import distinct
from .scope import NodeList, Scope, Value, subgraphs

if TYPE_CHECKING:
    from .importer import Importer

SAME = ("Identity", "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Flatten")
Place = tuple[str, int]  # a list of ours, and how far the element is from that of the iteration's number


class NoBag(Exception):
    """Why a loop is not an embedding bag."""


def need(condition: object, why: str) -> None:
    """Raise `NoBag` unless the condition holds."""
    if not condition:
        raise NoBag(why)


@dataclass
class Body:
    """A loop's body: who makes each name in it, its branches and inner loops included.

    `inputs` are the loop's operands: how often, whether at all, and what is carried at first.
    """

    importer: Importer
    scope: Scope
    graph: Any
    inputs: tuple[Value, ...]

    def __post_init__(self) -> None:
        self.graph = distinct(self.graph)
        self.makers: dict[str, Any] = {}
        for node in (node for graph in self.graphs(self.graph) for node in graph.node):
            for name in filter(None, node.output):
                need(name not in self.makers, f"two values in it are called %{name}")
                self.makers[name] = node
        self.tensors = {t.name: t for g in self.graphs(self.graph) for t in g.initializer}
        self._made: dict[str, Value | None] = dict.fromkeys(
            i.name for g in self.graphs(self.graph) for i in g.input
        )
        self._made.update((name, first) for name, _, first in self.carried if self._passes(name))

    def graphs(self, graph: Any) -> Iterator[Any]:
        """Yield a graph and those nested in it."""
        yield graph
        for node in graph.node:
            for inner in subgraphs(node):
                yield from self.graphs(inner)

    @property
    def carried(self) -> list[tuple[str, str, Value]]:
        """Return what is carried: its name in the body, that of what becomes of it, and its first value."""
        ins = [i.name for i in self.graph.input][2:]
        outs = [o.name for o in self.graph.output][1 : 1 + len(ins)]
        return list(zip(ins, outs, self.inputs[2:], strict=True))

    def _passes(self, name: str) -> bool:
        """Return whether a carried value is handed on as it is."""
        handed = {before: after for before, after, _ in self.carried}[name]
        while (maker := self.makers.get(handed)) is not None and maker.op_type == "Identity":
            handed = maker.input[0]
        return handed == name

    def source(self, name: str, through: Sequence[str] = SAME) -> str:
        """Return the name behind reshapes and casts."""
        while (maker := self.makers.get(name)) is not None and maker.op_type in through:
            name = maker.input[0]
        return name

    def node(self, name: str) -> Any:
        """Return the node that makes a name; raise `NoBag` when none in the body does."""
        need(name in self.makers, f"%{name} is not made in it")
        return self.makers[name]

    def find(self, name: str, *ops: str) -> Any | None:
        """Return the node behind a name, reshapes and casts aside; None when it is none of `ops`."""
        node = self.makers.get(self.source(name))
        return node if node is not None and node.op_type in ops else None

    def maker(self, name: str, *ops: str) -> Any:
        """Return the node behind a name, as `find`; raise `NoBag` when it is none of `ops`."""
        node = self.find(name, *ops)
        need(node is not None, f"%{name} is not made by {' or '.join(ops)}")
        return node

    def invariant(self, name: str) -> Value | None:
        """Return our value for what every iteration computes alike, made outside the loop; else None."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Value | None:
        if name in self.tensors:
            return self.importer.stored(self.tensors[name], name)
        node = self.makers.get(name)
        if node is None:
            return self.scope.find(name)
        given = {n: self.invariant(n) for n in node.input if n}
        if any(True for _ in subgraphs(node)) or None in given.values():
            return None
        return self.evaluate([node], given, name)

    def evaluate(self, nodes: Sequence[Any], given: dict[str, Any], name: str) -> Value | None:
        """Return the value of a name that nodes make of given values; None where they cannot be imported."""
        importer, inner = self.importer, Scope(self.scope.opsets, self.scope, dict(given), self.scope.attrs)
        before, depth, origin = len(importer.failures), importer.depth, importer.builder.origin
        try:
            (result,) = importer.nodes(NodeList.of_nodes(nodes, [name]), [name], inner)
        except UserError:
            importer.depth, importer.builder.origin = depth, origin
            return None
        failed = len(importer.failures) > before
        del importer.failures[before:]
        return None if failed else result

    def tensor(self, name: str) -> str:
        """Return our tensor for a name that every iteration computes alike; raise `NoBag` for another."""
        value = self.invariant(name)
        need(isinstance(value, str) and value, f"%{name} is no tensor that is the same in every iteration")
        return str(value)

    def known(self, name: str) -> np.ndarray | None:
        """Return the value, of any shape, of what is constant; None for the rest."""
        value = self.invariant(name) if name else None
        return self.importer.builder.known(value) if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        """Return a constant of one element that is a whole number; None for all else."""
        data = self.known(self.source(name))
        if data is None or data.size != 1 or data.dtype.kind not in "iub":
            return None
        return int(data.reshape(-1)[0])

    def attr(self, node: Any, name: str, default: Any) -> Any:
        """Return an attribute of a node in the body."""
        return self.importer.attributes(node, self.scope).get(name, default)

    def plus(self, name: str) -> tuple[str, int]:
        """Return a name as another one plus a constant."""
        total = 0
        while (node := self.find(name, "Add", "Sub")) is not None:
            left, right = node.input
            amounts = self.number(left), self.number(right)
            if amounts[1] is not None:
                name, amount = left, amounts[1] if node.op_type == "Add" else -amounts[1]
            elif amounts[0] is not None and node.op_type == "Add":
                name, amount = right, amounts[0]
            else:
                break
            total += amount
        return self.source(name), total

    @cached_property
    def counters(self) -> dict[str, int]:
        """Return what counts by 1: the iteration's number and carried values, with what each starts from."""
        starts = {self.graph.input[0].name: 0}
        builder = self.importer.builder
        for name, after, first in self.carried:
            start = builder.known(first) if isinstance(first, str) else None
            if start is not None and start.size == 1 and self.plus(after) == (name, 1):
                starts[name] = int(start.reshape(-1)[0])
        return starts

    def index(self, name: str) -> int | None:
        """Return by how much a value exceeds the iteration's number; None when it is no index."""
        base, amount = self.plus(name)
        return self.counters[base] + amount if base in self.counters else None

    def element(self, name: str) -> Place | None:
        """Return the list, and the place in it, from which each iteration takes its element; else None."""
        node = self.find(name, "Gather", "Slice")
        if node is None or len(node.input) < 2:
            return None
        at = self.index(node.input[1])
        if node.op_type == "Slice":
            alone = len(node.input) > 2 and at is not None and self.index(node.input[2]) == at + 1
            at = at if alone and self.is_plain(node) else None
        elif self.attr(node, "axis", 0) not in (0, -1):
            at = None
        values = self.invariant(node.input[0])
        if at is None or not isinstance(values, str) or self.importer.builder.type_of(values).rank != 1:
            return None
        return values, at

    def is_plain(self, node: Any) -> bool:
        """Return whether a Slice is along the first axis alone, element by element."""
        axes, steps = (list(node.input[i : i + 1]) for i in (3, 4))
        return all(
            self.number(n) == right for n, right in [*((n, 0) for n in axes), *((n, 1) for n in steps)] if n
        )

    def reduces_rows(self, node: Any) -> bool:
        """Return whether a reduction of a matrix is over axis 0 alone."""
        axes = self.attr(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1]:
            data = self.known(node.input[1])
            axes = None if data is None else tuple(data.reshape(-1).tolist())
        return axes in ((0,), (-2,))
