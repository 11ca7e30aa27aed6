"""Recognising the loops that exporters write for an embedding bag.

Torch's legacy exporter scans: each iteration takes two offsets, slices the indices, gathers and reduces. Its
dynamo exporter gathers all rows first; its loop slices them, reduces, and inserts the result into a sequence,
with a branch for the empty bag; with a padding index an inner loop collects the other places. What is read
here is what each value means, so that other spellings, and what is carried in another order, are known too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtia_emu.errors import UserError

from ..build import NodeBuilder
from ..graph import freeze_attrs
from .bag_body import Body, NoBag, Place, need
from .bag_pools import BagResult, Pools
from .bag_rows import LAST, Cut
from .failures import Placed
from .scope import Scope, Tensors, Value, graph_attr, nested_nodes

if TYPE_CHECKING:
    from .importer import Importer

ENDLESS = 1 << 62  # a trip count that only a condition ends
LASTS = {"Less": 0, "Greater": 0, "LessOrEqual": 1, "GreaterOrEqual": 1}  # what a counter runs past its limit
OPPOSITE = {
    "Less": "GreaterOrEqual",
    "GreaterOrEqual": "Less",
    "Greater": "LessOrEqual",
    "LessOrEqual": "Greater",
}


def match(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value] | str:
    """Return the results of a Loop that pools embedding rows, as `embedding_bag`; else why it is none."""
    try:
        graph = graph_attr(node, "body")
        size = importer.once.of("size", graph, lambda: nested_nodes(graph))
        importer.once.spend(size // 16)  # it is looked at whole, also where it runs 0 times
        body = Body(importer, scope, graph, inputs)
        return _Bags(body).results()
    except NoBag as reason:
        return str(reason)
    except Placed:
        raise
    except UserError as error:
        return str(error)


class _Bags:
    """The results of a loop, each pooled for all bags at once."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.builder = body.importer.builder
        self.pools = Pools(body)
        self.bags = 0  # pooled results

    def results(self) -> list[Value]:
        """Return what is carried at last, and what was scanned; raise `NoBag` unless rows are pooled."""
        count = self._trips()
        scanned = [o.name for o in self.body.graph.output][1 + len(self.body.carried) :]
        need(scanned or self.body.carried, "it has no result")
        results: list[Value] = [self._carried(*each, count) for each in self.body.carried]
        results += [self._pooled(name, count) for name in scanned]
        need(self.bags, "it pools no rows")
        return results

    def _trips(self) -> int:
        """Return how often the loop runs: as often as it says, or as its condition lets it."""
        trips, going = (*self.body.inputs, "", "")[:2]
        limit = ENDLESS if not trips else _whole(self.builder, trips)
        begun = 1 if not going else _whole(self.builder, going)
        need(limit is not None and begun is not None, "its length is unknown")
        assert limit is not None
        count = min(limit, self._limit(self.body.graph.output[0].name)) if begun else 0
        need(0 <= count < ENDLESS, "nothing ends it")
        return count

    def _limit(self, name: str) -> int:
        """Return after how many iterations a condition fails; `ENDLESS` where it holds on."""
        if self.body.number(name) == 1 or self.body.source(name) == self.body.graph.input[1].name:
            return ENDLESS
        node = self.body.maker(name, "And", "Or", "Not", *LASTS)
        if node.op_type in ("And", "Or"):
            limits = [self._limit(n) for n in node.input]
            return min(limits) if node.op_type == "And" else max(limits)
        op = node.op_type
        if op == "Not":
            node = self.body.maker(node.input[0], *OPPOSITE)
            op = OPPOSITE[node.op_type]
        small, large = reversed(node.input) if op.startswith("Greater") else node.input
        index, number = self.body.index(small), self.body.number(large)
        need(index is not None, "its condition is not on its counter")
        need(number is not None and op in LASTS, "the number of bags is unknown")
        assert index is not None and number is not None
        return max(number + LASTS[op] - index, 0) + 1

    def _carried(self, name: str, after: str, first: Value, count: int) -> Value:
        """Return the last value of a counter, of what is handed on, or of a sequence of pooled rows."""
        if name in self.body.counters:
            kind = self.builder.type_of(str(first))
            last = np.full(kind.shape, self.body.counters[name] + count, kind.dtype.numpy)
            return self.builder.constant(last)
        kept = self.body.invariant(name)
        if kept is not None:
            return kept
        insert = self.body.maker(after, "SequenceInsert")
        need(
            isinstance(first, Tensors) and not first.items and not first.rows,
            "its sequence is not empty at first",
        )
        need(self.body.source(insert.input[0]) == name, "it does not append to its sequence")
        place = insert.input[2] if len(insert.input) > 2 else ""
        need(not place or self.body.index(place) == 0, "it does not append to its sequence")
        return Tensors((), self._pooled(insert.input[1], count))

    def _pooled(self, name: str, count: int) -> str:
        """Return the rows of all bags, one after the other along a new first axis."""
        pooled = self.pools.pooled(name)
        offsets = self._offsets(pooled.cut, count)
        self.bags += 1
        rows = self.builder.type_of(pooled.cut.value)
        value = _pool(self.builder, pooled, offsets)
        row = np.zeros((1, rows.shape[1]) if pooled.keepdims else rows.shape[1:], rows.dtype.numpy)
        shape = row.shape
        for node in pooled.tail:
            kind = self.builder.type_of(self._shaped(node, row))
            value = self.builder.add("cast", value, to=kind.dtype.name)
            row, shape = np.zeros(kind.shape, kind.dtype.numpy), kind.shape
        return self.builder.add("reshape", value, shape=(count, *shape))

    def _shaped(self, node: Any, row: np.ndarray) -> str:
        """Return the value that a node behind the reduction makes of a row [..,n]."""
        given = {n: self.body.invariant(n) for n in node.input[1:] if n}
        for name in [n for n, value in given.items() if value is None and node.op_type == "CastLike"]:
            given[name] = self.pools.rows.cut(name).value
        given[node.input[0]] = self.builder.constant(row)
        value = None if None in given.values() else self.body.evaluate([node], given, node.output[0])
        need(isinstance(value, str), f"{node.op_type} behind its reduction depends on the bag")
        return str(value)

    def _offsets(self, cut: Cut, count: int) -> str:
        """Return the offsets [count + 1] of bags that follow one another."""
        need(cut.end[0] != LAST, "every bag ends with the rows")
        start, end = self._base(cut.start), self._base(cut.end)
        if start[0] != end[0]:
            start, end = self._within(start, end[0], count), self._within(end, start[0], count)
        if start[0] != end[0]:
            return self._known_offsets(start, end, count)
        size = self.builder.type_of(end[0]).shape[0]
        need(end == (start[0], start[1] + 1), "its bags do not follow one another")
        need(start[1] >= 0 and end[1] + count <= size, f"{size} offsets are too few for {count} bags")
        return self.builder.add("slice", end[0], starts=(start[1],), ends=(end[1] + count,), steps=(1,))

    def _known_offsets(self, start: Place, end: Place, count: int) -> str:
        """Return the constant offsets of bags whose starts and ends are two constants."""
        starts, ends = (self.builder.known(value) for value, _ in (start, end))
        need(starts is not None and ends is not None, "its bags do not follow one another")
        assert starts is not None and ends is not None
        starts, ends = starts[start[1] : start[1] + count], ends[end[1] : end[1] + count]
        need(len(starts) == len(ends) == count, f"offsets are too few for {count} bags")
        need(count and np.array_equal(starts[1:], ends[:-1]), "its bags do not follow one another")
        return self.builder.constant(np.concatenate([starts[:1], ends]))

    def _base(self, place: Place) -> Place:
        """Return the same element in the list that this one was sliced from."""
        value, at = place
        while (node := self.builder.producer(value, "slice", "reshape", "copy")) is not None:
            if self.builder.type_of(node.inputs[0]).rank != 1:
                break
            if node.op == "slice":
                (first,), (step,) = node.attrs["starts"], node.attrs["steps"]
                if step != 1:
                    break
                at += int(first)
            value = node.inputs[0]
        return value, at

    def _within(self, place: Place, whole: str, count: int) -> Place:
        """Return the same elements in a list that this one was joined into; else the place as it is."""
        node, before = self.builder.producer(whole, "concat"), 0
        for value in node.inputs if node is not None else ():
            size = self.builder.type_of(value).shape[0]
            if value == place[0] and place[1] + count <= size:
                return whole, before + place[1]
            before += size
        return place


def _whole(builder: NodeBuilder, value: Value) -> int | None:
    """Return a known number of one element."""
    data = builder.known(value) if isinstance(value, str) else None
    return None if data is None or data.size != 1 else int(data.reshape(-1)[0])


def _pool(builder: NodeBuilder, pooled: BagResult, offsets: str) -> str:
    """Return the pooled rows: the gather (and its weights) that made them becomes the bag's own."""
    rows, mode = pooled.cut.value, pooled.mode
    kind = builder.type_of(rows)
    need(kind.dtype.is_float, "its rows are not floats")
    if pooled.cut.keep:
        return builder.add("cast", _pool_marked(builder, pooled, offsets), to=kind.dtype.name)
    table, indices, weights = _looked_up(builder, rows)
    if weights and mode != "sum":
        table, indices, weights = rows, _places(builder, rows), ()
    attrs = {"mode": mode}
    if mode == "max" and not pooled.zero:
        attrs["empty"] = "lowest"  # ReduceMax of nothing is -inf
    operands = (table, indices, offsets, *weights)
    (result,) = builder.make("embedding_bag", operands, freeze_attrs(attrs), "bag")
    return builder.add("cast", result, to=kind.dtype.name)


def _pool_marked(builder: NodeBuilder, pooled: BagResult, offsets: str) -> str:
    """Return what the rows that are marked pool to."""
    rows, keep, mode = pooled.cut.value, pooled.cut.keep, pooled.mode
    table, indices, weights = _looked_up(builder, rows)
    element, size = builder.type_of(table).dtype, builder.type_of(rows).shape[0]
    column, places = builder.add("reshape", keep, shape=(size, 1)), _places(builder, rows)
    none = builder.constant(np.zeros((), element.numpy))
    marks = builder.add("cast", column, to=element.name)
    count = builder.add("embedding_bag", marks, places, offsets, mode="sum")
    if mode == "max":
        lowest = builder.constant(np.asarray(-np.inf, builder.type_of(rows).dtype.numpy))
        left = builder.add("where", column, rows, lowest)
        top = builder.add("embedding_bag", left, places, offsets, mode=mode, empty="lowest")
        some = builder.add("greater", count, none)
        zero = builder.constant(np.zeros((), builder.type_of(rows).dtype.numpy))
        return builder.add("where", some, top, zero) if pooled.zero else top
    factor = builder.add("cast", keep, to=element.name)
    if weights:
        factor = builder.add("where", keep, *weights, none)
    total = builder.add("embedding_bag", table, indices, offsets, factor, mode="sum")
    if mode == "sum":
        return total
    one = builder.constant(np.ones((), element.numpy))  # the mean of nothing is 0, as of any bag
    return builder.add("div", total, builder.add("max", count, one))


def _places(builder: NodeBuilder, rows: str) -> str:
    return builder.constant(np.arange(builder.type_of(rows).shape[0], dtype=np.int64))


def _looked_up(builder: NodeBuilder, rows: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the table, indices and weights that rows were made of; else the rows, each by its own place."""
    alone: tuple[str, str, tuple[str, ...]] = rows, _places(builder, rows), ()
    value, weights = rows, alone[2]
    cast = builder.producer(value, "cast")
    if cast is not None and builder.type_of(cast.inputs[0]).dtype.bits <= builder.type_of(rows).dtype.bits:
        value = cast.inputs[0]
    product = builder.producer(value, "mul")
    if product is not None:
        value, column = sorted(product.inputs, key=lambda v: builder.producer(v, "gather") is None)
        size = builder.type_of(value).shape[0]
        if builder.type_of(column).shape != (size, 1):
            return alone
        weights = (builder.add("reshape", column, shape=(size,)),)
    gather = builder.producer(value, "gather")
    if gather is None or gather.attrs["axis"] != 0:
        return alone
    table, indices = gather.inputs
    kinds = builder.type_of(table), builder.type_of(indices)
    fit = kinds[0].rank == 2 and kinds[1].rank == 1 and kinds[0].dtype.is_float
    return (table, indices, weights) if fit else alone
