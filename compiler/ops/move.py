"""Ops that move elements and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import (
    Array,
    Arrays,
    Count,
    Op,
    Types,
    array,
    axis_of,
    fits,
    integers,
    moved,
    need,
    number,
    register,
    same_dtype,
)
from .layout import WHOLE, Layout, NodeSplit, Query, aligned, by_rows, joint, local_shape, splits
from .layout_reshape import split_reshape


def _infer_reshape(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = need(types[0]), integers(attrs, "shape")
    if any(s < 0 for s in shape) or math.prod(shape) != x.size:
        raise UserError(f"{x} has {x.size} elements, shape {list(shape)} has {math.prod(shape)}")
    return (TensorType(x.dtype, shape),)


def _reshape(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (array(arrays[0]).reshape(integers(attrs, "shape")),)


def _free(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count(CopyWork, read_bytes=0, write_bytes=0)


def _infer_transpose(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, perm = need(types[0]), integers(attrs, "perm")
    if sorted(perm) != list(range(x.rank)):
        raise UserError(f"perm {list(perm)} is not an order of the {x.rank} axes of {x}")
    return (TensorType(x.dtype, tuple(x.shape[p] for p in perm)),)


def _transpose(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (np.transpose(array(arrays[0]), integers(attrs, "perm")),)


def _infer_expand(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = need(types[0]), integers(attrs, "shape")
    if not fits(x.shape, shape):
        raise UserError(f"{x} does not broadcast to shape {list(shape)}")
    return (TensorType(x.dtype, shape),)


def _expand(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (np.broadcast_to(array(arrays[0]), integers(attrs, "shape")),)


def _count_expand(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count(CopyWork)


def _ranges(shape: tuple[int, ...], attrs: Attrs) -> list[range]:
    """Return the positions that a slice takes from each axis; raise `UserError` when they leave it."""
    bounds = [integers(attrs, name) for name in ("starts", "ends", "steps")]
    if any(len(b) != len(shape) for b in bounds):
        raise UserError(f"starts, ends and steps need a value for each of {len(shape)} axes")
    taken = []
    for axis, (start, end, step) in enumerate(zip(*bounds, strict=True)):
        if step == 0:
            raise UserError(f"step of axis {axis} is 0")
        picks = range(start, end, step)
        if picks and not (0 <= picks[0] < shape[axis] and 0 <= picks[-1] < shape[axis]):
            raise UserError(f"slice {start}:{end}:{step} leaves axis {axis}, of size {shape[axis]}")
        taken.append(picks)
    return taken


def _infer_slice(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    return (TensorType(x.dtype, tuple(len(r) for r in _ranges(x.shape, attrs))),)


def _slice(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    picks = (
        slice(r.start, r.stop if r.stop >= 0 else None, r.step) if len(r) else slice(0, 0)
        for r in _ranges(x.shape, attrs)
    )
    return (x[tuple(picks)],)


def _infer_concat(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    kinds = [need(t) for t in types]
    axis = axis_of(attrs, kinds[0].rank)
    element = same_dtype(kinds)
    rest = kinds[0].shape[:axis] + kinds[0].shape[axis + 1 :]
    if any(t.rank != kinds[0].rank or t.shape[:axis] + t.shape[axis + 1 :] != rest for t in kinds):
        raise UserError(f"shapes differ off axis {axis}: {', '.join(map(str, kinds))}")
    shape = list(kinds[0].shape)
    shape[axis] = sum(t.shape[axis] for t in kinds)
    return (TensorType(element, tuple(shape)),)


def _concat(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    parts = [array(a) for a in arrays]
    return (np.concatenate(parts, axis=axis_of(attrs, parts[0].ndim)),)


def _count_append(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count what comes behind the first operand, read and written."""
    return moved(types, tuple(need(t) for t in types[1:]), attrs)


def _pad_pairs(rank: int, attrs: Attrs) -> list[tuple[int, int]]:
    pads = integers(attrs, "pads")
    if len(pads) != 2 * rank or any(p < 0 for p in pads):
        raise UserError(f"pads {list(pads)} are not {rank} sizes before and {rank} after, all 0 or more")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _infer_pad(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    number(attrs, "value", 0)
    pairs = _pad_pairs(x.rank, attrs)
    return (TensorType(x.dtype, tuple(s + a + b for s, (a, b) in zip(x.shape, pairs, strict=True))),)


def _pad(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    pairs = _pad_pairs(x.ndim, attrs)
    value = np.asarray(number(attrs, "value", 0)).astype(x.dtype)
    out = np.full([s + a + b for s, (a, b) in zip(x.shape, pairs, strict=True)], value, x.dtype)
    out[tuple(slice(a, a + s) for s, (a, _) in zip(x.shape, pairs, strict=True))] = x
    return (out,)


def _infer_tile(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, repeats = need(types[0]), integers(attrs, "repeats")
    if len(repeats) != x.rank or any(r < 0 for r in repeats):
        raise UserError(f"repeats {list(repeats)} are not a count for each of the {x.rank} axes of {x}")
    return (TensorType(x.dtype, tuple(s * r for s, r in zip(x.shape, repeats, strict=True))),)


def _tile(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (np.tile(array(arrays[0]), integers(attrs, "repeats")),)


MANY = 1 << 20  # operands of a concat, at most

for _op in (
    Op("reshape", "the same elements in another shape", (1, 1), _infer_reshape, _reshape, _free, ("shape",)),
    Op("transpose", "axes in the order `perm`", (1, 1), _infer_transpose, _transpose, moved, ("perm",)),
    Op("expand", "broadcast to `shape`", (1, 1), _infer_expand, _expand, _count_expand, ("shape",)),
    Op(
        "slice",
        "x[starts:ends:steps], a value per axis",
        (1, 1),
        _infer_slice,
        _slice,
        moved,
        ("starts", "ends", "steps"),
    ),
    Op(
        "concat",
        "operands one after the other along `axis`",
        (1, MANY),
        _infer_concat,
        _concat,
        moved,
        ("axis",),
    ),
    Op(
        "append",
        "concat, whose first operand lies where the result begins if that is its next value",
        (2, MANY),
        _infer_concat,
        _concat,
        _count_append,
        ("axis",),
    ),
    Op(
        "pad",
        "x with `value` before and after: `pads`",
        (1, 1),
        _infer_pad,
        _pad,
        _count_expand,
        ("pads",),
        ("value",),
    ),
    Op(
        "tile",
        "x repeated `repeats` times along each axis",
        (1, 1),
        _infer_tile,
        _tile,
        _count_expand,
        ("repeats",),
    ),
):
    register(_op)


splits("reshape")(split_reshape)


@splits("transpose")
def _split_transpose(query: Query) -> NodeSplit:
    layout = query.layouts[0]
    assert layout is not None
    dims = tuple(layout.dims[p] for p in integers(query.node.attrs, "perm"))
    return NodeSplit((layout,), (Layout(dims, layout.sums),))


@splits("expand")
def _split_expand(query: Query) -> NodeSplit:
    """Split as the operand is; what is repeated beside a split dimension over the rest of that axis.

    Key heads that are fewer than ranks come to lie so where their query heads do.
    """
    layout, kind, shape = query.layouts[0], need(query.types[0]), query.node.type.shape
    assert layout is not None
    lead = len(shape) - kind.rank
    dims = [WHOLE] * lead + [
        axes if size == full else WHOLE
        for axes, size, full in zip(layout.dims, kind.shape, shape[lead:], strict=True)
    ]
    model, policy = query.policy.model, query.policy
    rest = tuple(axis for axis in model if axis not in layout.used)
    for i in range(1, len(shape)):
        repeated = i < lead or kind.shape[i - lead] != shape[i]
        before = shape[i - 1] == policy.count(dims[i - 1]) and set(dims[i - 1]) & set(model)
        if repeated and before and not layout.sums:
            dims[i] = policy.dividing(rest, shape[i])
            break
    result = Layout(tuple(dims), layout.sums)
    return NodeSplit((layout,), (result,), {"shape": query.local(result)})


@splits("slice")
def _split_slice(query: Query) -> NodeSplit:
    """Split the dimensions of which all is taken."""
    layout, kind, attrs = query.layouts[0], need(query.types[0]), query.node.attrs
    assert layout is not None
    bounds = {name: list(integers(attrs, name)) for name in ("starts", "ends", "steps")}
    cut = [i for i, r in enumerate(_ranges(kind.shape, attrs)) if r != range(kind.shape[i])]
    want = layout.without(cut)
    for i, size in enumerate(local_shape(kind.shape, want, query.policy)):
        if i not in cut:
            bounds["starts"][i], bounds["ends"][i], bounds["steps"][i] = 0, size, 1
    return NodeSplit((want,), (want,), {name: tuple(x) for name, x in bounds.items()})


@splits("concat", "append")
def _split_concat(query: Query) -> NodeSplit:
    """Split all dimensions but the one along which operands are joined."""
    axis, shape = axis_of(query.node.attrs, query.node.type.rank), query.node.type.shape
    dims = joint(query, shape, [axis])
    wanted = tuple(None if t is None else aligned(t, dims, shape) for t in query.types)
    return NodeSplit(wanted, (Layout(dims),))


@splits("pad")
def _split_pad(query: Query) -> NodeSplit:
    pairs = _pad_pairs(query.node.type.rank, query.node.attrs)
    return by_rows(query, [i for i, pair in enumerate(pairs) if pair != (0, 0)])


@splits("tile")
def _split_tile(query: Query) -> NodeSplit:
    repeats = integers(query.node.attrs, "repeats")
    return by_rows(query, [i for i, count in enumerate(repeats) if count != 1])


@gradient("reshape")
def _back_reshape(b: Back) -> tuple[str]:
    return (b.reshape(b.grad, b.type(0).shape),)


@gradient("transpose")
def _back_transpose(b: Back) -> tuple[str]:
    perm = integers(b.node.attrs, "perm")
    return (b.add("transpose", b.grad, perm=tuple(perm.index(i) for i in range(len(perm)))),)


@gradient("expand")
def _back_expand(b: Back) -> tuple[str]:
    return (b.grad,)


@gradient("slice")
def _back_slice(b: Back) -> tuple[str]:
    """Put the gradient where it was taken from, zeros elsewhere."""
    shape, g = b.type(0).shape, b.grad
    if not b.type(g).size:
        return (b.zeros(b.type(0)),)
    taken = _ranges(shape, b.node.attrs)
    if any(r.step < 0 for r in taken):
        g = part(b, g, [r[::-1] if r.step < 0 else r for r in (range(n) for n in b.type(g).shape)], taken)
    before, after = [], []
    for axis, (size, r) in enumerate(zip(shape, taken, strict=True)):
        low, step = min(r[0], r[-1]), abs(r.step)
        g = _apart(b, g, axis, step) if step > 1 and len(r) > 1 else g
        before.append(low)
        after.append(size - low - b.type(g).shape[axis])
    return (b.add("pad", g, pads=(*before, *after)),)


def part(b: Back, value: str, along: Sequence[range], steps: Sequence[range]) -> str:
    """Return a value with the axes turned whose steps go backwards."""
    turned = [s.step < 0 for s in steps]
    sizes = [len(r) for r in along]
    return b.add(
        "slice",
        value,
        starts=tuple(n - 1 if t else 0 for n, t in zip(sizes, turned, strict=True)),
        ends=tuple(-1 if t else n for n, t in zip(sizes, turned, strict=True)),
        steps=tuple(-1 if t else 1 for t in turned),
    )


def _apart(b: Back, value: str, axis: int, step: int) -> str:
    """Return a value with `step` - 1 zeros between neighbours along an axis."""
    shape = b.type(value).shape
    lead, size, rest = shape[:axis], shape[axis], shape[axis + 1 :]
    wide = b.reshape(value, (*lead, size, 1, *rest))
    none = (0,) * (len(lead) + 1)
    wide = b.add("pad", wide, pads=(*none, 0, *(0,) * len(rest), *none, step - 1, *(0,) * len(rest)))
    wide = b.reshape(wide, (*lead, size * step, *rest))
    return b.add(
        "slice",
        wide,
        starts=(0,) * len(shape),
        ends=(*lead, (size - 1) * step + 1, *rest),
        steps=(1,) * len(shape),
    )


def cut(b: Back, value: str, axis: int, start: int, end: int) -> str:
    """Return places `start` to `end` of an axis."""
    shape = b.type(value).shape
    starts, ends = [0] * len(shape), list(shape)
    starts[axis], ends[axis] = start, end
    return b.add("slice", value, starts=tuple(starts), ends=tuple(ends), steps=(1,) * len(shape))


@gradient("concat", "append")
def _back_concat(b: Back) -> tuple[str, ...]:
    axis = axis_of(b.node.attrs, b.type(0).rank)
    ends = list(accumulate(b.type(i).shape[axis] for i in range(b.count)))
    bounds = list(pairwise([0, *ends]))
    return tuple(cut(b, b.grad, axis, *bounds[i]) if b.wants(i) else "" for i in range(b.count))


@gradient("pad")
def _back_pad(b: Back) -> tuple[str]:
    shape = b.type(0).shape
    before = integers(b.node.attrs, "pads")[: len(shape)]
    ends = tuple(a + s for a, s in zip(before, shape, strict=True))
    return (b.add("slice", b.grad, starts=before, ends=ends, steps=(1,) * len(shape)),)


@gradient("tile")
def _back_tile(b: Back) -> tuple[str]:
    shape, repeats = b.type(0).shape, integers(b.node.attrs, "repeats")
    if not b.type(b.grad).size:
        return (b.zeros(b.type(0)),)
    both = b.reshape(b.grad, [n for pair in zip(repeats, shape, strict=True) for n in pair])
    return (b.add("reduce_sum", both, axes=tuple(range(0, 2 * len(shape), 2)), keepdims=False),)
