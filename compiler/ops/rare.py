"""Rare ops, run on the scalar core: element-wise indexing, ordering, running sums."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.units.selection import first_places
from mtia_emu.machine.units.simd import SCATTERS, scatter
from mtia_emu.types import INT64, CopyWork, TensorType, dtype

from ..graph import Attrs
from .backward import no_gradient
from .base import (
    Array,
    Arrays,
    Count,
    Op,
    Types,
    array,
    axis_of,
    elementwise,
    index_dtype,
    integer,
    moved,
    need,
    register,
    same_dtype,
    vector,
    wide,
    word,
)
from .embedding_bag import rows_of


def _infer_gather_elements(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices = need(types[0]), need(types[1])
    index_dtype(indices)
    axis = axis_of(attrs, x.rank)
    if indices.rank != x.rank or any(
        i > s for a, (i, s) in enumerate(zip(indices.shape, x.shape, strict=True)) if a != axis
    ):
        raise UserError(f"indices {indices} do not fit {x} off axis {axis}")
    return (TensorType(x.dtype, indices.shape),)


def _places(indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    """Return the full index of each element of `indices`: for each axis an array of their shape."""
    grid = list(np.ogrid[tuple(slice(0, s) for s in indices.shape)])
    grid[axis] = rows_of(indices, size)
    return tuple(np.broadcast_arrays(*grid))


def _gather_elements(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices = array(arrays[0]), array(arrays[1])
    axis = axis_of(attrs, x.ndim)
    return (x[_places(indices, axis, x.shape[axis])],)


def _infer_gather_nd(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices = need(types[0]), need(types[1])
    index_dtype(indices)
    batch = integer(attrs, "batch_dims", 0)
    if not 0 <= batch < min(x.rank, indices.rank) or x.shape[:batch] != indices.shape[:batch]:
        raise UserError(f"{x} and {indices} do not share {batch} batch dimensions")
    depth = indices.shape[-1]
    if not 1 <= depth <= x.rank - batch:
        raise UserError(f"the last axis of the indices, {indices}, must be 1 to {x.rank - batch} for {x}")
    return (TensorType(x.dtype, indices.shape[:-1] + x.shape[batch + depth :]),)


def _tuple_index(indices: Array, sizes: tuple[int, ...]) -> tuple[Array, ...]:
    return tuple(rows_of(indices[..., d], size) for d, size in enumerate(sizes))


def _gather_nd(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices = array(arrays[0]), array(arrays[1])
    batch = integer(attrs, "batch_dims", 0)
    depth = indices.shape[-1]
    index = _tuple_index(indices, x.shape[batch : batch + depth])
    lead = [
        np.arange(x.shape[b]).reshape([-1 if d == b else 1 for d in range(indices.ndim - 1)])
        for b in range(batch)
    ]
    return (x[(*lead, *index)],)


def _infer_scatter_elements(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices, updates = (need(t) for t in types)
    index_dtype(indices)
    axis_of(attrs, x.rank)
    same_dtype([x, updates], "data and updates")
    word(attrs, "reduction", "none", tuple(SCATTERS))
    if updates.shape != indices.shape or indices.rank != x.rank:
        raise UserError(f"updates {updates} and indices {indices} must be of one shape, of the rank of {x}")
    return (x,)


def _scatter_elements(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices, updates = (array(a) for a in arrays)
    axis = axis_of(attrs, x.ndim)
    reduction = word(attrs, "reduction", "none", tuple(SCATTERS))
    return (scatter(reduction, x, _places(indices, axis, x.shape[axis]), updates),)


def _infer_scatter_nd(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices, updates = (need(t) for t in types)
    index_dtype(indices)
    same_dtype([x, updates], "data and updates")
    word(attrs, "reduction", "none", tuple(SCATTERS))
    if indices.rank < 1 or indices.shape[-1] > x.rank:
        raise UserError(f"the last axis of the indices, {indices}, must be at most {x.rank} for {x}")
    right = indices.shape[:-1] + x.shape[indices.shape[-1] :]
    if updates.shape != right:
        raise UserError(f"updates {updates} must be of shape {list(right)}")
    return (x,)


def _scatter_nd(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices, updates = (array(a) for a in arrays)
    index = _tuple_index(indices, x.shape[: indices.shape[-1]])
    return (scatter(word(attrs, "reduction", "none", tuple(SCATTERS)), x, index, updates),)


def _infer_one_hot(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    indices, values = need(types[0]), need(types[1])
    depth = integer(attrs, "depth")
    if values.shape != (2,) or depth < 1:
        raise UserError(f"needs values [off, on] and a positive depth, got {values} and {depth}")
    axis = axis_of(attrs, indices.rank + 1)
    return (TensorType(values.dtype, (*indices.shape[:axis], depth, *indices.shape[axis:])),)


def _one_hot(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    indices, values = array(arrays[0]), array(arrays[1])
    depth, axis = integer(attrs, "depth"), axis_of(attrs, indices.ndim + 1)
    wrapped = np.where(indices < 0, indices + depth, indices)
    hit = np.expand_dims(wrapped, axis) == np.arange(depth).reshape(
        [-1 if d == axis else 1 for d in range(indices.ndim + 1)]
    )
    return (np.where(hit, values[1], values[0]).astype(values.dtype),)


def _infer_topk(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, k = need(types[0]), integer(attrs, "k")
    axis = axis_of(attrs, x.rank)
    if not 0 <= k <= x.shape[axis]:
        raise UserError(f"k {k} is not between 0 and the size of axis {axis} of {x}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType(INT64, shape)


def _topk(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, k = array(arrays[0]), integer(attrs, "k")
    axis = axis_of(attrs, x.ndim)
    largest, low = bool(attrs.get("largest", True)), bool(attrs.get("nan_least", False))
    index = np.moveaxis(first_places(np.moveaxis(x, axis, -1), k, largest, low), -1, axis)
    return np.take_along_axis(x, index, axis=axis), index


def _infer_cumsum(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    axis_of(attrs, need(types[0]).rank)
    return (need(types[0]),)


def _cumsum(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (_running(np.add, array(arrays[0]), attrs),)


def _cumprod(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (_running(np.multiply, array(arrays[0]), attrs),)


def _running(combine: np.ufunc, x: Array, attrs: Attrs) -> Array:
    """Return x, in the same shape: each element all before it combined, and itself unless `exclusive`."""
    axis, turned = axis_of(attrs, x.ndim), bool(attrs.get("reverse", False))
    full = wide(np.flip(x, axis) if turned else x)
    if attrs.get("exclusive", False) and x.shape[axis]:
        none = np.full_like(np.take(full, [0], axis), combine.identity)
        full = np.concatenate([none, np.delete(full, -1, axis)], axis)
    total = combine.accumulate(full, axis=axis, dtype=full.dtype)
    return np.asarray(np.flip(total, axis) if turned else total).astype(x.dtype)


def _infer_bitcast(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, to = need(types[0]), dtype(str(attrs["to"]))
    if x.dtype.bits != to.bits:
        raise UserError(f"the bits of {x} are not those of {to}: {x.dtype.bits} and {to.bits}")
    return (TensorType(to, x.shape),)


def _bitcast(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = np.ascontiguousarray(array(arrays[0]))
    return (x.view(dtype(str(attrs["to"])).numpy).reshape(array(arrays[0]).shape),)


def _infer_det(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    if x.rank < 2 or x.shape[-1] != x.shape[-2] or not x.dtype.is_float:
        raise UserError(f"needs square matrices of floats, not {x}")
    return (TensorType(x.dtype, x.shape[:-2]),)


def _det(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    return (np.asarray(np.linalg.det(wide(x))).astype(x.dtype),)


def _count_det(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    size = need(types[0]).shape[-1]
    return elementwise(need(types[0]).size, 2 * need(types[0]).size * size // 3)


def _infer_range(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    element = same_dtype(types)
    if any(need(t).shape for t in types) or integer(attrs, "size") < 0:
        raise UserError("start and delta must be scalars, and size 0 or more")
    return (TensorType(element, (integer(attrs, "size"),)),)


def _range(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    start, delta = array(arrays[0]), array(arrays[1])
    return ((start + np.arange(integer(attrs, "size")) * delta).astype(start.dtype),)


def _infer_nonzero(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, size = need(types[0]), integer(attrs, "size")
    if not 0 <= size <= x.size:
        raise UserError(f"size {size} is not between 0 and the {x.size} elements of {x}")
    return (TensorType(INT64, (max(x.rank, 1), size)),)


def _nonzero(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    places = np.stack(np.nonzero(np.atleast_1d(array(arrays[0])))).astype(np.int64)
    if places.shape[1] != integer(attrs, "size"):
        raise UserError(
            f"{places.shape[1]} elements are not zero, but the graph was made for {attrs['size']}"
        )
    return (places,)


def _infer_ragged_split(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    values, sizes = need(types[0]), need(types[1])
    index_dtype(sizes)
    if values.rank != 1 or sizes.rank != 1:
        raise UserError(f"needs values [l] and sizes [n], got {values} and {sizes}")
    return (values,) * sizes.shape[0]


def _ragged_split(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    values, sizes = array(arrays[0]), array(arrays[1])
    if (sizes < 0).any() or sizes.sum() > len(values):
        raise UserError(f"sizes {sizes.tolist()} do not split {len(values)} values")
    ends = np.cumsum(sizes)
    results = []
    for size, end in zip(sizes, ends, strict=True):
        part = np.zeros_like(values)
        part[:size] = values[end - size : end]
        results.append(part)
    return tuple(results)


def _count_scatter(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count(CopyWork)


for _op in (
    Op(
        "gather_elements",
        "x at `indices` along `axis`",
        (2, 2),
        _infer_gather_elements,
        _gather_elements,
        moved,
        ("axis",),
    ),
    Op(
        "gather_nd",
        "x at index tuples",
        (2, 2),
        _infer_gather_nd,
        _gather_nd,
        moved,
        (),
        ("batch_dims",),
        looks_up=True,
    ),
    Op(
        "scatter_elements",
        "x with updates put at `indices` along `axis`",
        (3, 3),
        _infer_scatter_elements,
        _scatter_elements,
        _count_scatter,
        ("axis",),
        ("reduction",),
    ),
    Op(
        "scatter_nd",
        "x with updates at index tuples",
        (3, 3),
        _infer_scatter_nd,
        _scatter_nd,
        _count_scatter,
        (),
        ("reduction",),
    ),
    Op(
        "one_hot",
        "values[1] where the class is, values[0] elsewhere",
        (2, 2),
        _infer_one_hot,
        _one_hot,
        moved,
        ("axis", "depth"),
    ),
    Op(
        "topk",
        "the k largest (or smallest), in order, and where they were; NaN is the largest, or `nan_least`",
        (1, 1),
        _infer_topk,
        _topk,
        vector(1),
        ("axis", "k"),
        ("largest", "nan_least"),
    ),
    Op(
        "cumsum",
        "running sum along `axis`",
        (1, 1),
        _infer_cumsum,
        _cumsum,
        vector(1),
        ("axis",),
        ("exclusive", "reverse"),
    ),
    Op(
        "cumprod",
        "running product along `axis`",
        (1, 1),
        _infer_cumsum,
        _cumprod,
        vector(1),
        ("axis",),
        ("exclusive", "reverse"),
    ),
    Op("bitcast", "the same bits read as another type", (1, 1), _infer_bitcast, _bitcast, moved, ("to",)),
    Op("det", "determinants of square matrices", (1, 1), _infer_det, _det, _count_det),
    Op("range", "`size` values from start by delta", (2, 2), _infer_range, _range, moved, ("size",)),
    Op(
        "nonzero",
        "places of the elements that are not zero",
        (1, 1),
        _infer_nonzero,
        _nonzero,
        moved,
        ("size",),
    ),
    Op(
        "ragged_split",
        "values cut into runs of `sizes`, each zero-padded",
        (2, 2),
        _infer_ragged_split,
        _ragged_split,
        _count_scatter,
    ),
):
    register(_op)

no_gradient("it is of whole numbers, or of truth values", "bitcast", "nonzero", "ragged_split")
no_gradient("it takes the inverse of a matrix, for which there is no op", "det")
no_gradient("it divides by elements that may be 0", "cumprod")
