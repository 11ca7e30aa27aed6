"""Where embedding tables lie over ranks: whole on one, cut into columns or rows, or copied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtia_emu.types import TensorType

from ..build import NodeBuilder
from ..graph import Const, Graph, Match, Node, Rewrite
from .mesh import KINDS, Mesh

WHOLE_TABLE, COLUMN, ROW, COPIED = KINDS
POOLING = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "cast")  # done where the rows are


@dataclass(frozen=True)
class TablePlace:
    """How a table lies: its kind, and for one that lies whole the rank that has it.

    Of "column" with `owners` each of these has an equal part of the columns; without, all ranks have.
    """

    kind: str
    owners: tuple[int, ...] = ()


@dataclass(frozen=True)
class TableRead:
    """A table of a graph: its type, the samples that look rows up, and how many of them each asks for."""

    kind: TensorType
    samples: int
    pooling: float

    @property
    def read_bytes(self) -> float:
        """Return the bytes of the rows that a run looks up."""
        return self.samples * self.pooling * self.kind.shape[1] * self.kind.dtype.bytes


def tables(graph: Graph) -> dict[str, TableRead]:
    """Return the tables of a graph by name: constants [rows, dim] whose rows are looked up, and no more."""
    found: dict[str, TableRead] = {}
    for node in graph.nodes:
        if not _looks_up(graph, node) or node.inputs[0] in found:
            continue
        users = [user for user, _ in graph.users(node.inputs[0])]
        if all(_looks_up(graph, user) for user in users):
            kinds = [graph.type_of(user.inputs[1]) for user in users]
            samples = max(t.shape[0] if t.rank else 1 for t in kinds)
            asked = sum(t.size for t in kinds)
            found[node.inputs[0]] = TableRead(graph.type_of(node.inputs[0]), samples, asked / samples)
    return found


def _looks_up(graph: Graph, node: Node) -> bool:
    if node.op != "gather" or node.inputs[0] not in graph.consts or node.inputs[1] in graph.consts:
        return False
    return graph.type_of(node.inputs[0]).rank == 2 and node.attrs["axis"] in (0, -2)


def evenly(graph: Graph, mesh: Mesh) -> dict[str, TablePlace]:
    """Return tables whole on ranks, those that are read most first, each where the least is read so far."""
    count = math.prod(mesh.counts[a] for a in mesh.lookup)
    load, places = [0.0] * count, {}
    for name, read in sorted(tables(graph).items(), key=lambda item: (-item[1].read_bytes, item[0])):
        rank = min(range(count), key=lambda r: (load[r], r))
        load[rank] += read.read_bytes
        places[name] = TablePlace(WHOLE_TABLE, (rank,))
    return places


def cut_tables(graph: Graph, places: Mapping[str, TablePlace]) -> tuple[Graph, dict[str, TablePlace]]:
    """Return a graph in which each part of columns that has an owner is a table of its own, and the places.

    Each part's rows are pooled by themselves; what is pooled is joined.
    """
    cut = {name: p for name, p in places.items() if p.kind == COLUMN and p.owners}
    placed = {name: p for name, p in places.items() if name not in cut}
    if not cut:
        return graph, placed
    for name, p in cut.items():
        placed |= {part_name(name, i): TablePlace(WHOLE_TABLE, (o,)) for i, o in enumerate(p.owners)}
    ends = {_pooled(graph, n)[-1].name: n for n in graph.nodes if n.op == "gather" and n.inputs[0] in cut}

    def rule(node: Node, match: Match) -> Rewrite | None:
        if node.name not in ends:
            return None
        first = ends[node.name]
        return _in_parts(match, _pooled(graph, first), len(cut[first.inputs[0]].owners))

    return graph.rewrite(rule).prune(), placed


def part_name(table: str, part: int) -> str:
    """Return the name of a part of a table's columns."""
    return f"{table}.columns{part}"


def _pooled(graph: Graph, node: Node) -> list[Node]:
    """Return a look-up and the nodes that pool what it gives, in order."""
    chain = [node]
    while not _is_output(graph, chain[-1]):
        users = graph.users(chain[-1].output)
        if len(users) != 1 or not pools(users[0][0], last=True):
            break
        chain.append(users[0][0])
    return chain


def _is_output(graph: Graph, node: Node) -> bool:
    return node.output in graph.outputs


def pools(node: Node, last: bool = False) -> bool:
    """Return whether a node reduces rows over dimensions behind the first, or casts them.

    With `last` it leaves the `last` dimension as it is.
    """
    if node.op not in POOLING:
        return False
    if node.op == "cast":
        return True
    rank = node.type.rank + (0 if node.attrs.get("keepdims") else len(node.attrs["axes"]))
    axes = {a % rank for a in node.attrs["axes"]}
    return bool(axes) and 0 not in axes and not (last and rank - 1 in axes)


def _in_parts(match: Match, chain: list[Node], count: int) -> Rewrite:
    """Return the look-ups of each part of a table's columns, pooled each, and joined."""
    b, (first, *rest) = NodeBuilder(match), chain
    table = match.const(first.inputs[0])
    assert table is not None
    b.origin, pooled = first.origin or first.name, []
    for number in range(count):
        part = b.put(part_name(first.inputs[0], number), _columns(table, first.inputs[0], number, count))
        value = b.add("gather", part, first.inputs[1], **first.attrs)
        for node in rest:
            value = b.add(node.op, value, **node.attrs)
        pooled.append(value)
    last = chain[-1]
    return b.rewrite({last.output: b.add("concat", *pooled, axis=last.type.rank - 1)})


def _columns(table: Const, name: str, number: int, count: int) -> Const:
    """Return a part of a table's columns, read when it is needed."""
    rows, dim = table.type.shape
    each = dim // count

    def load() -> np.ndarray:
        return np.ascontiguousarray(table.array(name)[:, number * each : (number + 1) * each])

    return Const(TensorType(table.type.dtype, (rows, each)), load if table.present else None)
