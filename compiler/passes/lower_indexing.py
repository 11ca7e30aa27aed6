"""Indexing and ordering by what runs on all PEs: gathers of rows, slices, folds of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mtia_emu.kernels.rows.tape import TapeBuilder

from mtia_emu.types import BOOL, FP32, INT32, INT64

from ..build import NodeBuilder
from ..graph import Match, Node, Rewrite, Skip
from ..ops.base import integer
from .base import Rule, Rules, building, too_many
from .lower_sampling import lower_grid_sample

Array = np.ndarray[Any, Any]
BOUNDS = ("starts", "ends", "steps")  # of a slice, a value an axis
INT32_ELEMENTS = 1 << 31  # whose places int32 counts


@dataclass(frozen=True)
class LowerIndexing(Rules):
    """Spell indexing by element, one-hot rows, TopK and running sums in ops that run on all PEs.

    GatherND and GatherElements become a gather of rows by one index, which is worked out before; ScatterND
    whose constant indices name a box of its operand becomes slices around what is written, and other scatters
    change rows by one index; a slice that goes backwards is a gather, and so is sampling by a grid, of what
    is around each place; a one-hot is a comparison with places counted; the first elements of long rows are
    those of their pieces' first ones; a running sum or product adds what stands 1, 2, 4, ... places before.
    What has fewer than `least` elements
    for each time that this goes over them stays on a core, which takes less time than launches.
    """

    least: int = 1024
    piece: int = 8192  # elements of a row whose first ones are found at once

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._spell,)

    def _spell(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if node.op == "topk":
            return _first_elements(node, match, self.piece)
        rule = _RULES.get(node.op)
        if rule is None:
            return None
        kinds = [*(match.type_of(v) for v in node.inputs if v), *node.types]
        least = self.least * _rounds(node, match)
        size = sum(kind.size for kind in kinds)
        if size < least:
            return Skip(f"{size} elements are too few (`least` asks for {least})")
        return too_many(_counts_to(node, match)) or rule(node, match)


def _rounds(node: Node, match: Match) -> int:
    """Return how often a node's new spelling goes over its operand."""
    if node.op in ("cumsum", "cumprod"):
        return match.type_of(node.inputs[0]).shape[integer(node.attrs, "axis")].bit_length()
    return 1


def _counts_to(node: Node, match: Match) -> int:
    """Return the most places that a node's new spelling counts in a constant."""
    first, last = (match.type_of(v).shape for v in (node.inputs[0], node.inputs[-1]))
    if node.op == "one_hot":
        return integer(node.attrs, "depth")
    if node.op == "gather_nd":
        return max(first[: integer(node.attrs, "batch_dims", 0)], default=0)
    return max(last, default=0) if node.op == "gather_elements" else 0


def _gather_nd(node: Node, match: Match) -> Rewrite | Skip | None:
    """Gather rows of x by an index of several parts as by one: the sum of parts times their strides."""
    x, indices = node.inputs
    shape, places = match.type_of(x).shape, match.type_of(indices).shape
    batch, depth = integer(node.attrs, "batch_dims", 0), places[-1]
    lead, inner = shape[: batch + depth], shape[batch + depth :]
    if not math.prod(shape):
        return Skip("there are no elements to gather")
    b = building(node, match)
    counted = [_counted(b, n, places[:-1], axis) for axis, n in enumerate(lead[:batch])]
    flat = _flat(b, [*counted, *_parts(b, indices, places)], lead, batch)
    rows = b.add("reshape", x, shape=(math.prod(lead), *inner))
    return _become(node, b, b.add("gather", rows, flat, axis=0))


def _gather_elements(node: Node, match: Match) -> Rewrite | Skip | None:
    """Gather elements, or rows where the index is one for all of a row, by the place of each in x."""
    x, indices = node.inputs
    shape, axis = match.type_of(x).shape, integer(node.attrs, "axis")
    if not math.prod(shape):
        return Skip("there are no elements to gather")
    b = building(node, match)
    flat, kept = _element_places(b, match, indices, shape, axis)
    rows = b.add("reshape", x, shape=(math.prod(shape[:kept]), *shape[kept:]))
    return _become(node, b, b.add("gather", rows, flat, axis=0))


def _parts(b: NodeBuilder, indices: str, places: Sequence[int]) -> list[str]:
    """Return each part of indices [..,depth], without its last dimension."""
    out, sizes = [], [*places[:-1], 1]
    for part in range(places[-1]):
        starts, ends = [*([0] * (len(sizes) - 1)), part], [*sizes[:-1], part + 1]
        one = b.add("slice", indices, starts=starts, ends=ends, steps=[1] * len(sizes))
        out.append(b.add("reshape", one, shape=places[:-1]))
    return out


def _element_places(
    b: NodeBuilder, match: Match, indices: str, shape: tuple[int, ...], axis: int
) -> tuple[str, int]:
    """Return the place in x of what each index along an axis names, and of how many first dimensions."""
    inner, places = _behind(match, indices, shape, axis), match.type_of(indices).shape
    if inner:
        indices = match.producer(indices, "expand").inputs[0]  # type: ignore[union-attr]
    kept = len(shape) - inner
    first = b.add("reshape", indices, shape=match.type_of(indices).shape[:kept])
    index = b.add("expand", first, shape=places[:kept])
    parts = [index if a == axis else _counted(b, places[a], places[:kept], a) for a in range(kept)]
    return _flat(b, parts, shape[:kept], 0), kept


def _behind(match: Match, indices: str, shape: tuple[int, ...], axis: int) -> int:
    """Return how many last dimensions of x an index, expanded over them, takes whole."""
    node = match.producer(indices, "expand")
    if node is None:
        return 0
    own, full = match.type_of(node.inputs[0]).shape, node.type.shape
    count = 0
    while len(own) == len(full) and count < len(full) - 1 - axis:
        at = len(full) - 1 - count
        if own[at] != 1 or full[at] != shape[at]:
            break
        count += 1
    return count


def _counted(b: NodeBuilder, size: int, shape: Sequence[int], axis: int) -> str:
    """Return 0 .. size - 1 along an axis of a shape, of one element along the others."""
    return b.constant(
        np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))]), INT64.numpy
    )


def _flat(b: NodeBuilder, parts: Sequence[str], sizes: Sequence[int], counted: int) -> str:
    """Return the sum of indices times their strides; negative ones, behind the first `counted`, wrap."""
    kind = INT32 if math.prod(sizes) < INT32_ELEMENTS else INT64
    t = TapeBuilder(3 * len(parts))
    operands, terms = [], []
    for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        at, stride = 3 * i, math.prod(sizes[i + 1 :])
        operands += [part, b.constant(size, kind.numpy), b.constant(stride, kind.numpy)]
        place = t.call("copy", at, to=kind)
        if i >= counted:
            place = t.call(
                "where", t.call("less", place, 0.0), t.call("add", place, at + 1, to=kind), place, to=kind
            )
        terms.append(t.call("mul", place, at + 2, to=kind))
    total = terms[0]
    for term in terms[1:]:
        total = t.call("add", total, term, to=kind)
    return b.add("map", *operands, tape=str(t.done(total)), to=kind.name)


def _scatter_box(node: Node, match: Match) -> Rewrite | Skip | None:
    """Write a box of x, named by constant indices in order, as slices around what is written."""
    x, indices, updates = node.inputs
    const, shape = match.const(indices), match.type_of(x).shape
    known = const is not None and const.present and node.attrs.get("reduction", "none") == "none"
    box = _box(const.array(indices), shape) if known and const else None
    if box is None:
        return _scatter_nd(node, match)
    b = building(node, match)
    starts, sizes = box
    new = b.add("reshape", updates, shape=(*sizes, *shape[len(sizes) :]))
    return _become(node, b, _placed(b, x, new, starts, 0))


def _scatter_nd(node: Node, match: Match) -> Rewrite | Skip:
    """Change rows of x at an index of several parts as at one: the sum of parts times their strides."""
    x, indices, updates = node.inputs
    shape, places = match.type_of(x).shape, match.type_of(indices).shape
    depth = places[-1]
    if not depth or not math.prod(shape) or not math.prod(places):
        return Skip("there is nothing to change, or all of it")
    b = building(node, match)
    flat = _flat(b, _parts(b, indices, places), shape[:depth], 0)
    return _scattered(node, b, flat, shape[:depth], updates)


def _scatter_elements(node: Node, match: Match) -> Rewrite | Skip:
    """Change elements, or rows where the index is one for all of a row, at the place of each in x."""
    x, indices, updates = node.inputs
    shape, axis = match.type_of(x).shape, integer(node.attrs, "axis")
    if not math.prod(match.type_of(indices).shape):
        return Skip("there is nothing to change")
    b = building(node, match)
    flat, kept = _element_places(b, match, indices, shape, axis)
    return _scattered(node, b, flat, shape[:kept], updates)


def _scattered(node: Node, b: NodeBuilder, flat: str, lead: Sequence[int], updates: str) -> Rewrite:
    """Return rows of a node's operand, those of its first dimensions `lead`, changed at places `flat`."""
    rows, (x, *_) = math.prod(lead), node.inputs
    size = math.prod(b.type_of(x).shape[len(lead) :])
    count = b.type_of(flat).size
    changed = b.add(
        "scatter_rows",
        b.add("reshape", x, shape=(rows, size)),
        b.add("reshape", flat, shape=(count,)),
        b.add("reshape", updates, shape=(count, size)),
        reduction=node.attrs.get("reduction", "none"),
    )
    return _become(node, b, changed)


def _box(indices: Array, shape: tuple[int, ...]) -> tuple[list[int], list[int]] | None:
    """Return where the box that indices[..,depth] name row by row starts, and its sizes; or None."""
    depth = indices.shape[-1]
    if not depth or not indices.size:
        return None
    flat = indices.reshape(-1, depth)
    flat = np.where(flat < 0, flat + np.array(shape[:depth]), flat)
    starts = flat.min(axis=0)
    sizes = flat.max(axis=0) - starts + 1
    if math.prod(map(int, sizes)) != len(flat):
        return None
    grid = np.indices(sizes).reshape(depth, -1).T + starts
    return (starts.tolist(), sizes.tolist()) if (grid == flat).all() else None


def _placed(b: NodeBuilder, x: str, new: str, starts: Sequence[int], axis: int) -> str:
    """Return x with `new` at `starts`; dimensions before `axis` are equal already."""
    shape, size = b.type_of(x).shape, b.type_of(new).shape
    while axis < len(starts) and size[axis] == shape[axis]:
        axis += 1
    if axis == len(starts):
        return new
    first, last = starts[axis], starts[axis] + size[axis]
    parts = [_cut(b, x, axis, 0, first), _placed(b, _cut(b, x, axis, first, last), new, starts, axis + 1)]
    parts.append(_cut(b, x, axis, last, shape[axis]))
    return b.add("concat", *(p for p in parts if b.type_of(p).shape[axis]), axis=axis)


def _cut(b: NodeBuilder, x: str, axis: int, start: int, end: int) -> str:
    shape = b.type_of(x).shape
    starts = [start if a == axis else 0 for a in range(len(shape))]
    ends = [end if a == axis else n for a, n in enumerate(shape)]
    return b.add("slice", x, starts=starts, ends=ends, steps=[1] * len(shape))


def _backwards(node: Node, match: Match) -> Rewrite | None:
    """Take what a slice with negative steps takes, an axis after the other, in that order."""
    bounds = list(zip(*(node.attrs[name] for name in BOUNDS), strict=True))
    turned = [axis for axis, (_, _, step) in enumerate(bounds) if step < 0]
    if not turned:
        return None
    b, shape = building(node, match), match.type_of(node.inputs[0]).shape
    ahead = [(0, shape[axis], 1) if axis in turned else kept for axis, kept in enumerate(bounds)]
    value = b.add("slice", node.inputs[0], **dict(zip(BOUNDS, zip(*ahead, strict=True), strict=True)))
    for axis in turned:
        value = b.add("gather", value, b.constant(np.arange(*bounds[axis]), INT64.numpy), axis=axis)
    return _become(node, b, value)


def _one_hot(node: Node, match: Match) -> Rewrite | Skip | None:
    indices, values = node.inputs
    depth, axis, shape = integer(node.attrs, "depth"), integer(node.attrs, "axis"), node.type.shape
    b = building(node, match)
    index = b.add("reshape", indices, shape=[1 if a == axis else n for a, n in enumerate(shape)])
    kind = b.type_of(index).dtype.numpy
    wrapped = b.add(
        "where",
        b.add("less", index, b.constant(0, kind)),
        b.add("add", index, b.constant(depth, kind)),
        index,
    )
    places = b.constant(np.arange(depth).reshape([-1 if a == axis else 1 for a in range(len(shape))]), kind)
    off, on = (b.add("reshape", _cut(b, values, 0, i, i + 1), shape=()) for i in range(2))
    return _become(node, b, b.add("where", b.add("equal", wrapped, places), on, off))


def _first_elements(node: Node, match: Match, piece: int) -> Rewrite | Skip:
    """Take the first elements of each piece of long rows, then those of all pieces."""
    (x,), k = node.inputs, integer(node.attrs, "k")
    axis, shape = integer(node.attrs, "axis"), match.type_of(x).shape
    size = shape[axis]
    if size < 2 * piece or not 0 < 2 * k * -(-size // piece) <= size:
        return Skip(f"{k} of rows of {size} are taken at once")
    b = building(node, match)
    order = [*(i for i in range(len(shape)) if i != axis), axis]
    lead, attrs = [shape[i] for i in order[:-1]], {**node.attrs, "axis": len(shape) - 1}
    rows = b.add("transpose", x, perm=order)
    whole = size // piece * piece
    pieces = b.add("reshape", _cut(b, rows, len(lead), 0, whole), shape=(*lead, whole // piece, piece))
    values, places = b.adds("topk", pieces, **{**attrs, "axis": len(shape)})
    first = b.constant(np.arange(0, whole, piece).reshape(-1, 1), INT64.numpy)
    kept = [
        [
            b.add("reshape", v, shape=(*lead, whole // piece * k))
            for v in (values, b.add("add", places, first))
        ]
    ]
    if size > whole:
        values, places = b.adds(
            "topk", _cut(b, rows, len(lead), whole, size), **{**attrs, "k": min(k, size - whole)}
        )
        kept.append([values, b.add("add", places, b.constant(whole, INT64.numpy))])
    values, places = (b.add("concat", *parts, axis=len(lead)) for parts in zip(*kept, strict=True))
    best, at = b.adds("topk", values, **attrs)
    back = np.argsort(order).tolist()
    found = (best, b.add("gather_elements", places, at, axis=len(lead)))
    results = [b.add("transpose", value, perm=back) for value in found]
    return b.rewrite(dict(zip(node.outputs, results, strict=True)))


def _running(node: Node, match: Match) -> Rewrite | Skip | None:
    """Add to each element the sum 1, 2, 4, ... places before it: sums double in length."""
    (x,), axis = node.inputs, integer(node.attrs, "axis")
    size, kind = node.type.shape[axis], node.type.dtype
    combine, none = ("add", 0) if node.op == "cumsum" else ("mul", 1)
    if kind == BOOL:
        return Skip("truth values are not added")
    b = building(node, match)
    wide = FP32 if kind.is_float and kind.bits < FP32.bits else kind
    total, back, step = b.add("cast", x, to=wide.name), bool(node.attrs.get("reverse", False)), 1
    while step < size:
        first, last = _cut(b, total, axis, 0, step), _cut(b, total, axis, size - step, size)
        low, high = _cut(b, total, axis, 0, size - step), _cut(b, total, axis, step, size)
        sums = b.add(combine, low, high)
        total = b.add("concat", *((sums, last) if back else (first, sums)), axis=axis)
        step *= 2
    if node.attrs.get("exclusive", False):
        shape = [1 if a == axis else n for a, n in enumerate(node.type.shape)]
        ends = b.add("expand", b.constant(none, wide.numpy), shape=shape)
        kept = _cut(b, total, axis, int(back), size - 1 + back)
        total = b.add("concat", *((kept, ends) if back else (ends, kept)), axis=axis)
    return _become(node, b, b.add("cast", total, to=kind.name))


def _become(node: Node, b: NodeBuilder, value: str) -> Rewrite:
    return b.rewrite({node.output: b.add("reshape", value, shape=node.type.shape)})


_RULES = {
    "cumprod": _running,
    "cumsum": _running,
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "grid_sample": lower_grid_sample,
    "one_hot": _one_hot,
    "scatter_elements": _scatter_elements,
    "scatter_nd": _scatter_box,
    "slice": _backwards,
}
