"""Ops that move elements and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
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

from .layout import WHOLE, Answer, Axes, Layout, Query, aligned, by_rows, joint, local_shape, splits


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


@splits("reshape")
def _split_reshape(query: Query) -> Answer:
    """Split the dimensions that those of the operand become, where the parts of a rank stay together."""
    layout, kind = query.layouts[0], need(query.types[0])
    assert layout is not None
    want, dims = list(layout.dims), [WHOLE] * query.node.type.rank
    for before, after in _groups(kind.shape, query.node.type.shape):
        kept = _leading(query, before, want)
        placed = _spread(query, kept, after, dims)
        _keep_first(want, before, placed)
    result = Layout(tuple(dims), layout.sums)
    return Answer((Layout(tuple(want), layout.sums),), (result,), {"shape": query.local(result)})


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Return the dimensions of two shapes of one size that become each other, the fewest together."""
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        a, b, left, right = i, j, 1, 1
        while True:
            if left <= right and i < len(before):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                left, i = (left * before[i], i + 1) if i < len(before) else (left, i)
            if left == right or (i == len(before) and j == len(after)):
                break
        groups.append((range(a, i), range(b, j)))
    return groups


def _leading(query: Query, before: range, want: list[Axes]) -> list[str]:
    """Return the axes of some dimensions that split what they are together into parts that are whole."""
    shape, axes, whole = need(query.types[0]).shape, [], True
    for i in before:
        if not whole:
            break
        axes += want[i]
        whole = shape[i] == query.policy.count(want[i])
    return axes


def _spread(query: Query, axes: list[str], after: range, dims: list[Axes]) -> int:
    """Split dimensions of the result over axes, the first first; return how many of them found a place."""
    shape, done = query.node.type.shape, 0
    for j in after:
        taken = query.policy.dividing(tuple(axes[done:]), shape[j])
        dims[j] = taken
        done += len(taken)
        if shape[j] != query.policy.count(taken):
            break
    return done


def _keep_first(want: list[Axes], before: range, count: int) -> None:
    """Leave only the first so many axes of some dimensions of the operand."""
    for i in before:
        want[i] = want[i][:count]
        count -= len(want[i])


@splits("transpose")
def _split_transpose(query: Query) -> Answer:
    layout = query.layouts[0]
    assert layout is not None
    dims = tuple(layout.dims[p] for p in integers(query.node.attrs, "perm"))
    return Answer((layout,), (Layout(dims, layout.sums),))


@splits("expand")
def _split_expand(query: Query) -> Answer:
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
    return Answer((layout,), (result,), {"shape": query.local(result)})


@splits("slice")
def _split_slice(query: Query) -> Answer:
    """Split the dimensions of which all is taken."""
    layout, kind, attrs = query.layouts[0], need(query.types[0]), query.node.attrs
    assert layout is not None
    bounds = {name: list(integers(attrs, name)) for name in ("starts", "ends", "steps")}
    cut = [i for i, r in enumerate(_ranges(kind.shape, attrs)) if r != range(kind.shape[i])]
    want = layout.without(cut)
    for i, size in enumerate(local_shape(kind.shape, want, query.policy)):
        if i not in cut:
            bounds["ends"][i] = size
    return Answer((want,), (want,), {name: tuple(x) for name, x in bounds.items()})


@splits("concat", "append")
def _split_concat(query: Query) -> Answer:
    """Split all dimensions but the one along which operands are joined."""
    axis, shape = axis_of(query.node.attrs, query.node.type.rank), query.node.type.shape
    dims = joint(query, shape, [axis])
    wanted = tuple(None if t is None else aligned(t, dims, shape) for t in query.types)
    return Answer(wanted, (Layout(dims),))


@splits("pad")
def _split_pad(query: Query) -> Answer:
    pairs = _pad_pairs(query.node.type.rank, query.node.attrs)
    return by_rows(query, [i for i, pair in enumerate(pairs) if pair != (0, 0)])


@splits("tile")
def _split_tile(query: Query) -> Answer:
    repeats = integers(query.node.attrs, "repeats")
    return by_rows(query, [i for i, count in enumerate(repeats) if count != 1])
