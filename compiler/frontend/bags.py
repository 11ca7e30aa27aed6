"""Recognising the loops that exporters write for an embedding bag.

Two spellings are known. The legacy exporter's loop scans: each iteration takes two offsets, slices the
indices, gathers and reduces. The dynamo exporter gathers all rows first; its loop slices them by two offsets,
reduces, and inserts the result into a sequence, with a branch for the empty bag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import freeze_attrs
from .files import tensor_const
from .scope import Scope, Tensors, Value, graph_attr, subgraphs

if TYPE_CHECKING:
    from .importer import Importer

MODES = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}
SAME = ("Identity", "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Flatten")


class NoBag(Exception):
    """Why a loop is not an embedding bag."""


def _need(condition: object, why: str) -> None:
    if not condition:
        raise NoBag(why)


@dataclass
class Body:
    """A loop's body: who makes each name in it, its branches included."""

    importer: Importer
    scope: Scope
    graph: Any

    def __post_init__(self) -> None:
        self.makers = {name: node for node in self.walk(self.graph) for name in node.output if name}
        self.tensors = {t.name: t for g in self.graphs(self.graph) for t in g.initializer}

    def graphs(self, graph: Any) -> Iterator[Any]:
        """Yield a graph and those nested in it."""
        yield graph
        for node in graph.node:
            for inner in subgraphs(node):
                yield from self.graphs(inner)

    def walk(self, graph: Any) -> Iterator[Any]:
        """Yield the nodes of a graph and of those nested in it."""
        for inner in self.graphs(graph):
            yield from inner.node

    def source(self, name: str) -> str:
        """Return the name behind reshapes and casts."""
        while (maker := self.makers.get(name)) is not None and maker.op_type in SAME:
            name = maker.input[0]
        return name

    def maker(self, name: str, *ops: str) -> Any:
        """Return the node behind a name, reshapes and casts aside; raise `NoBag` when it is none of `ops`."""
        node = self.makers.get(self.source(name))
        _need(node is not None and node.op_type in ops, f"%{name} is not made by {' or '.join(ops)}")
        return node

    def outer(self, name: str) -> str:
        """Return our value for a name captured from around the loop."""
        _need(name not in self.makers and name not in self.tensors, f"%{name} is made inside the loop")
        value = self.scope.find(name)
        _need(isinstance(value, str), f"%{name} is not a tensor from outside the loop")
        return str(value)

    def known(self, name: str) -> np.ndarray | None:
        """Return the value of a constant in the body or around it."""
        name = self.source(name)
        maker = self.makers.get(name)
        if name in self.tensors:
            return tensor_const(self.tensors[name], self.importer.path.parent, False).array(name)
        if maker is not None:
            if maker.op_type == "Constant":
                value = self.importer.attributes(maker, self.scope)
                return np.asarray(next(iter(value.values()))) if value else None
            return None
        outer = self.scope.find(name)
        return self.importer.builder.known(outer) if isinstance(outer, str) else None

    def is_(self, name: str, value: object) -> bool:
        """Return whether a name is a constant of that one value."""
        data = self.known(name)
        return data is not None and data.size == 1 and bool(data.reshape(-1)[0] == value)

    def attr(self, node: Any, name: str, default: Any) -> Any:
        """Return an attribute of a node in the body."""
        return self.importer.attributes(node, self.scope).get(name, default)

    def reduces_rows(self, node: Any) -> bool:
        """Return whether a reduction is over axis 0 alone."""
        axes = self.attr(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1]:
            data = self.known(node.input[1])
            axes = None if data is None else tuple(data.reshape(-1).tolist())
        return axes in ((0,), (-2,))


def match(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value] | str:
    """Return the results of a Loop that pools embedding rows, as `embedding_bag`; else why it is none."""
    body = Body(importer, scope, graph_attr(node, "body"))
    carried = len(inputs) - 2
    try:
        if carried == 0:
            return [_legacy(body, inputs)]
        return _dynamo(body, inputs, carried)
    except NoBag as reason:
        return str(reason)


def _legacy(body: Body, inputs: tuple[Value, ...]) -> str:
    graph, builder = body.graph, body.importer.builder
    _need(len(graph.output) == 2 and len(graph.input) == 2, "it does not scan exactly one result")
    _need(body.is_(graph.output[0].name, True), "its condition changes")
    reduction = body.maker(graph.output[1].name, *MODES)
    _need(body.reduces_rows(reduction), "it does not reduce over rows")
    rows, weights = _legacy_rows(body, reduction.input[0])
    _need(body.attr(rows, "axis", 0) == 0, "it does not gather rows")
    taken = body.maker(rows.input[1], "Slice")
    starts, ends = _bounds(body, taken, graph.input[0].name)
    indices, table = body.outer(body.source(taken.input[0])), body.outer(rows.input[0])
    operands = [table, indices, _offsets(body, starts, ends, inputs[0])]
    if weights is not None:
        _need(
            _bounds(body, weights, graph.input[0].name) == (starts, ends), "weights are cut at other offsets"
        )
        operands.append(body.outer(body.source(weights.input[0])))
    _need(builder.type_of(indices).rank == 1, "its indices are not a list")
    mode = MODES[reduction.op_type]
    attrs = {"mode": mode} | ({"empty": "lowest"} if mode == "max" else {})  # ReduceMax of nothing is -inf
    (result,) = builder.make("embedding_bag", tuple(operands), freeze_attrs(attrs), "bag")
    return builder.add("reshape", result, shape=_kept(body, reduction, builder.type_of(result).shape))


def _kept(body: Body, reduction: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, shape[1]) if body.attr(reduction, "keepdims", 1) else shape


def _legacy_rows(body: Body, name: str) -> tuple[Any, Any | None]:
    """Return the Gather of the rows and, when they are weighted, the Slice of the weights."""
    node = body.maker(name, "Gather", "Mul")
    if node.op_type == "Gather":
        return node, None
    sides = [body.maker(v, "Gather", "Slice") for v in node.input]
    if sides[0].op_type == "Slice":
        sides.reverse()
    _need([s.op_type for s in sides] == ["Gather", "Slice"], "its rows are not multiplied by weights")
    return sides[0], sides[1]


def _bounds(body: Body, taken: Any, step: str) -> tuple[str, str]:
    """Return the outer values from which a slice's start and end are read at the loop's step."""
    _need(len(taken.input) < 4 or not taken.input[3] or body.is_(taken.input[3], 0), "it slices another axis")
    found = []
    for name in taken.input[1:3]:
        pick = body.maker(name, "Gather")
        _need(body.source(pick.input[1]) == step, "its offsets are not read in turn")
        found.append(body.outer(body.source(pick.input[0])))
    _need(len(found) == 2, "its slice has no end")
    return found[0], found[1]


def _offsets(body: Body, starts: str, ends: str, trips: Value) -> str:
    """Return the cumulative offsets of which `starts` are all but the last and `ends` all but the first."""
    builder = body.importer.builder
    count = builder.type_of(ends).size
    known = builder.known(trips) if isinstance(trips, str) else None
    _need(
        known is not None and known.size == 1 and int(known.reshape(-1)[0]) == count, "its length is unknown"
    )
    _need(builder.type_of(starts).size in (count, count + 1), "its offsets do not fit its length")
    whole = starts
    if builder.type_of(starts).size == count:  # ends continue the starts by one
        last = builder.add("slice", ends, starts=(count - 1,), ends=(count,), steps=(1,))
        whole = builder.add("concat", starts, last, axis=0)
    shifted = builder.add("slice", whole, starts=(1,), ends=(count + 1,), steps=(1,))
    left, right = builder.known(shifted), builder.known(ends)
    same = shifted == ends or (left is not None and right is not None and np.array_equal(left, right))
    _need(same, "its bags do not follow one another")
    return whole


def _dynamo(body: Body, inputs: tuple[Value, ...], carried: int) -> Sequence[Value]:
    graph, builder = body.graph, body.importer.builder
    _need(carried == 2 and len(graph.output) == 3, "it does not carry a counter and a sequence")
    insert = body.maker(graph.output[2].name, "SequenceInsert")
    step = graph.input[2].name
    _need(isinstance(inputs[3], Tensors) and not inputs[3].items, "its sequence is not empty at first")
    _need(
        insert.input[0] == graph.input[3].name and len(insert.input) == 2,
        "it does not append to its sequence",
    )
    _need(isinstance(inputs[2], str) and _equal(builder.known(inputs[2]), 0), "it does not count from 0")
    _need(_is_plus(body, graph.output[1].name, step, 1), "it does not count by 1")
    count = _limit(body, graph.output[0].name, graph.output[1].name)
    branch = body.maker(insert.input[1], "If")
    offsets = _checked_offsets(body, branch, step, count)
    mode, rows = _branch(body, branch)
    result = _pool(body, rows, offsets, mode)
    end = builder.constant(np.asarray(count, np.int64))
    return [end, Tensors((), result)]


def _equal(data: np.ndarray | None, value: int) -> bool:
    return data is not None and data.size == 1 and int(data.reshape(-1)[0]) == value


def _is_plus(body: Body, name: str, base: str, amount: int) -> bool:
    """Return whether a name is `base` plus a constant amount."""
    node = body.makers.get(body.source(name))
    if node is None or node.op_type != "Add":
        return False
    left, right = node.input
    return any(body.source(a) == base and body.is_(b, amount) for a, b in ((left, right), (right, left)))


def _limit(body: Body, condition: str, counter: str) -> int:
    """Return the known number of bags that the condition compares the counter with."""
    less = body.maker(condition, "Less")
    _need(body.source(less.input[0]) == body.source(counter), "its condition is not on its counter")
    limit = body.known(less.input[1])
    _need(limit is not None and limit.size == 1, "the number of bags is unknown")
    return int(np.asarray(limit).reshape(-1)[0])


def _checked_offsets(body: Body, branch: Any, step: str, count: int) -> str:
    """Return the offsets from which the branch's condition takes the bag's start and end."""
    same = body.maker(branch.input[0], "Equal")
    start, end = (body.maker(v, "Slice") for v in same.input)
    _need(
        body.source(start.input[1]) == step and _is_plus(body, start.input[2], step, 1),
        "starts are not read in turn",
    )
    _need(
        _is_plus(body, end.input[1], step, 1) and _is_plus(body, end.input[2], step, 2),
        "ends are not read in turn",
    )
    _need(start.input[0] == end.input[0], "starts and ends come from two lists")
    offsets = body.outer(body.source(start.input[0]))
    builder = body.importer.builder
    _need(
        builder.type_of(offsets).shape == (count + 1,),
        f"offsets {builder.type_of(offsets)} are not {count + 1}",
    )
    return offsets


def _branch(body: Body, branch: Any) -> tuple[str, str]:
    """Return the mode and our value of the gathered rows, from the branch for bags that are not empty."""
    empty = body.known(graph_attr(branch, "then_branch").output[0].name)
    _need(empty is None or not empty.any(), "an empty bag is not 0")
    nodes = list(body.walk(graph_attr(branch, "else_branch")))
    kinds = {n.op_type for n in nodes if n.op_type in MODES}
    mode = next((MODES[op] for op in ("ReduceMean", "ReduceMax", "ReduceSum") if op in kinds), None)
    allowed = {"ReduceMean", "ReduceSum"} if mode == "mean" else kinds
    _need(mode is not None and kinds <= allowed and len(allowed) <= 2, "its rows are not reduced in one way")
    _need(all(body.reduces_rows(n) for n in nodes if n.op_type in MODES), "it does not reduce over rows")
    _need(
        not any(n.op_type in ("Loop", "Scan", "Gather") for n in nodes),
        "its bags skip some rows (padding_idx)",
    )
    slices = {n.input[0] for n in nodes if n.op_type == "Slice"}
    _need(len(slices) == 1, "its rows come from more than one value")
    return str(mode), body.outer(body.source(slices.pop()))


def _pool(body: Body, rows: str, offsets: str, mode: str) -> str:
    """Return the pooled rows: the gather (and its weights) that made `rows` becomes the bag's own."""
    builder = body.importer.builder
    kind = builder.type_of(rows).dtype.name
    narrow = builder.producer(rows, "cast")
    rows = narrow.inputs[0] if narrow is not None else rows
    weights: list[str] = []
    product = builder.producer(rows, "mul")
    if product is not None:
        sides = sorted(product.inputs, key=lambda v: builder.producer(v, "gather") is None)
        rows, size = sides[0], builder.type_of(sides[0]).shape[0]
        _need(builder.type_of(sides[1]).shape == (size, 1), "its rows are not multiplied by a weight each")
        weights = [builder.add("reshape", sides[1], shape=(size,))]
    gather = builder.producer(rows, "gather")
    _need(gather is not None and gather.attrs["axis"] == 0, "its rows are not gathered from a table")
    assert gather is not None
    table, indices = gather.inputs
    _need(
        builder.type_of(indices).rank == 1 and builder.type_of(table).rank == 2, "its table is not a matrix"
    )
    _need(not weights or mode == "sum", f"it weights rows and takes their {mode}")
    return builder.add(
        "cast", builder.add("embedding_bag", table, indices, offsets, *weights, mode=mode), to=kind
    )
