"""ONNX spellings of the rare ops: indexing, ordering, running sums."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.errors import UserError

from .onnx_types import DTYPE_OF_ONNX
from .spelling import Call, Unsupported, bounded, counted, onnx


@onnx("GatherElements")
def _gather_elements(c: Call) -> str:
    return c.add("gather_elements", c[0], c[1], axis=c.axis(0))


@onnx("GatherND")
def _gather_nd(c: Call) -> str:
    return c.add("gather_nd", c[0], c[1], batch_dims=c.attr("batch_dims", 0))


@onnx("ScatterElements", "Scatter")
def _scatter_elements(c: Call) -> str:
    return c.add("scatter_elements", c[0], c[1], c[2], axis=c.axis(0), reduction=c.attr("reduction", "none"))


@onnx("ScatterND")
def _scatter_nd(c: Call) -> str:
    return c.add("scatter_nd", c[0], c[1], c[2], reduction=c.attr("reduction", "none"))


@onnx("OneHot")
def _one_hot(c: Call) -> str:
    depth = int(c.known(1, "depth").reshape(-1)[0])
    indices = c[0] if c.type(0).dtype.name in ("int32", "int64") else c.cast(c[0], "int64")
    axis = c.axis(-1, c.type(0).rank + 1)
    return c.add("one_hot", indices, c[2], axis=axis, depth=depth)


@onnx("TopK")
def _topk(c: Call) -> tuple[str, ...]:
    k = c.attr("k", 0) if "k" in c.attrs else int(c.known(1, "k").reshape(-1)[0])
    return c.builder.adds("topk", c[0], hint=c.hint, axis=c.axis(-1), k=k, largest=bool(c.attr("largest", 1)))


@onnx("ArgMax", "ArgMin")
def _arg(c: Call) -> str:
    axis, x, last = c.axis(0), c[0], c.attr("select_last_index", 0)
    size = c.type(x).shape[axis]
    if last:
        x = backwards(c, x, axis)
    if not size:
        raise UserError(f"{c.op} of {c.type(x)} along axis {axis}: there is no element to point to")
    low = c.op == "ArgMin"  # NaN is what both find, as NumPy does and as maximum and minimum say
    index = c.builder.adds("topk", x, hint=c.hint, axis=axis, k=1, largest=not low, nan_least=low)[1]
    if last:
        index = c.add("sub", c.scalar(size - 1, index), index)
    if c.attr("keepdims", 1):
        return index
    return c.reshape(index, [s for i, s in enumerate(c.type(0).shape) if i != axis])


def backwards(c: Call, x: str, axis: int) -> str:
    """Return a value with one axis reversed."""
    shape = c.type(x).shape
    here = [i == axis for i in range(len(shape))]
    starts = [s - 1 if h else 0 for s, h in zip(shape, here, strict=True)]
    ends = [-1 if h else s for s, h in zip(shape, here, strict=True)]
    return c.add("slice", x, starts=starts, ends=ends, steps=[-1 if h else 1 for h in here])


@onnx("Hardmax")
def _hardmax(c: Call) -> str:
    kind, axis = c.type(0), c.axis(-1 if c.opset >= 13 else 1)
    x, rank = c[0], kind.rank
    if not kind.size:
        return x
    if c.opset < 13 and axis + 1 < rank:
        x, axis, rank = c.reshape(x, (math.prod(kind.shape[:axis]), math.prod(kind.shape[axis:]))), 1, 2
    size = c.type(x).shape[axis]
    first = c.builder.adds("topk", x, hint=c.hint, axis=axis, k=1, largest=True)[1]
    places = counted(size).reshape([-1 if i == axis else 1 for i in range(rank)])
    return c.reshape(c.cast(c.add("equal", first, c.constant(places)), kind.dtype.name), kind.shape)


@onnx("CumSum", "CumProd")
def _cumulative(c: Call) -> str:
    axis = c.wrap(int(c.known(1, "axis").reshape(-1)[0]), c.type(0).rank)
    flags = {name: bool(c.attr(name, 0)) for name in ("exclusive", "reverse")}
    return c.add(c.op.lower(), c[0], axis=axis, **flags)


@onnx("BitCast")
def _bitcast(c: Call) -> str:
    kind = DTYPE_OF_ONNX.get(c.attr("to", 0))
    if kind is None:
        raise Unsupported(f"it casts to ONNX type {c.attr('to', 0)}, which we do not have")
    return c.add("bitcast", c[0], to=kind.name)


@onnx("Det")
def _det(c: Call) -> str:
    return c.add("det", c[0])


def along(c: Call, places: str, axis: int, shape: tuple[int, ...]) -> str:
    """Return places [batch, length], batch being axis 0, as indices along an axis of a shape."""
    batch, length = c.type(places).shape
    full = c.reshape(places, [batch if i == 0 else length if i == axis else 1 for i in range(len(shape))])
    return c.add("expand", full, shape=[length if i == axis else s for i, s in enumerate(shape)])


@onnx("TensorScatter")
def _tensor_scatter(c: Call) -> str:
    """Return a cache with new rows put in at each sequence's own position."""
    shape, new = c.type(0).shape, c.type(1).shape
    axis = c.axis(-2)
    if axis == 0 or [s for i, s in enumerate(new) if i != axis] != [
        s for i, s in enumerate(shape) if i != axis
    ]:
        raise UserError(f"{c.op}: {c.type(1)} does not fit {c.type(0)} along axis {axis}")
    steps = c.constant(counted(new[axis]).reshape(1, -1))
    bounded(shape[0])
    start = (
        c.reshape(c.cast(c[2], "int64"), (shape[0], 1))
        if c.has(2)
        else c.constant(np.zeros((shape[0], 1), np.int64))
    )
    places = c.add("add", start, steps)
    if c.attr("mode", "linear") == "circular":
        places = c.add("mod", places, c.scalar(shape[axis], places))
    return c.add("scatter_elements", c[0], along(c, places, axis, new), c[1], axis=axis)


@onnx("ReverseSequence")
def _reverse_sequence(c: Call) -> str:
    time, batch = c.attr("time_axis", 0), c.attr("batch_axis", 1)
    if {time, batch} != {0, 1} or c.type(1).shape != (c.type(0).shape[batch],):
        raise UserError(f"{c.op}: lengths {c.type(1)}, axes {time} and {batch} do not fit {c.type(0)}")
    return reversed_to(c, c[0], c[1], time)


def reversed_to(c: Call, x: str, lengths: str, time: int) -> str:
    """Return x with the first `lengths` [batch] of its time axis, 0 or 1, reversed; batch is the other."""
    shape = c.type(x).shape
    steps = c.constant(counted(shape[time]).reshape(1, -1))
    length = c.reshape(c.cast(lengths, "int64"), (shape[1 - time], 1))
    back = c.add("sub", c.add("sub", length, c.scalar(1, length)), steps)
    places = c.add("where", c.add("less", steps, length), back, steps)
    if time == 0:
        places = c.add("transpose", places, perm=(1, 0))
    full = c.reshape(places, (*shape[:2], *(1 for _ in shape[2:])))
    return c.add("gather_elements", x, c.add("expand", full, shape=shape), axis=time)


@onnx("ai.onnx.ml::ArrayFeatureExtractor")
def _features(c: Call) -> str:
    shape, count = c.type(0).shape, c.type(1).size
    taken = c.add("gather", c[0], c.reshape(c[1], (count,)), axis=len(shape) - 1)
    return c.reshape(taken, (1, count)) if len(shape) == 1 else taken


@onnx("ai.onnx.ml::Binarizer")
def _binarizer(c: Call) -> str:
    above = c.add("greater", c[0], c.scalar(c.attr("threshold", 0.0), c[0]))
    return c.cast(above, c.type(0).dtype.name)


@onnx("NonZero")
def _nonzero(c: Call) -> str:
    data = np.atleast_1d(c.known(0, "operand"))
    return c.constant(np.stack(np.nonzero(data)).astype(np.int64))


@onnx("Compress")
def _compress(c: Call) -> str:
    picks = np.flatnonzero(c.known(1, "condition")).astype(np.int64)
    x = c[0]
    if "axis" not in c.attrs:
        x = c.reshape(x, (c.type(x).size,))
    return c.add("gather", x, c.constant(picks), axis=c.axis(0) if "axis" in c.attrs else 0)


@onnx("Einsum")
def _einsum(c: Call) -> str:
    from .einsum import einsum

    return einsum(c, c.attr("equation", ""), [c[i] for i in range(len(c.inputs))])
