"""ONNX ops that move elements or speak of shapes, in terms of `move` and constants."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.errors import UserError

from .onnx_types import DTYPE_OF_ONNX
from .spelling import Call, Unsupported, bounded, onnx


@onnx("Shape")
def _shape(c: Call) -> str:
    shape = c.type(0).shape
    end = c.attr("end", len(shape))
    return c.constant(np.asarray(shape[c.attr("start", 0) : end], np.int64))


@onnx("Size")
def _size(c: Call) -> str:
    return c.constant(np.asarray(c.type(0).size, np.int64))


@onnx("Reshape")
def _reshape(c: Call) -> str:
    kind = c.type(0)
    shape = list(c.list_of("shape", 1) or ())
    if not c.attr("allowzero", 0):
        if any(s == 0 and i >= kind.rank for i, s in enumerate(shape)):
            raise UserError(f"Reshape of {kind} to {shape}: a 0 stands past the operand's last axis")
        shape = [kind.shape[i] if s == 0 else s for i, s in enumerate(shape)]
    if shape.count(-1) > 1 or any(s < -1 for s in shape):
        raise UserError(f"Reshape of {kind} to {shape}: only one size may be -1")
    if -1 in shape:
        rest = math.prod(s for s in shape if s != -1)
        if rest == 0 or kind.size % rest:
            raise UserError(f"Reshape of {kind} to {shape}: {kind.size} elements do not divide by {rest}")
        shape[shape.index(-1)] = kind.size // rest
    return c.reshape(c[0], shape)


@onnx("Flatten")
def _flatten(c: Call) -> str:
    shape = c.type(0).shape
    axis = c.attr("axis", 1)
    axis = axis if axis == len(shape) else c.wrap(axis, len(shape)) if shape else 0
    return c.reshape(c[0], (math.prod(shape[:axis]), math.prod(shape[axis:])))


@onnx("Squeeze")
def _squeeze(c: Call) -> str:
    shape = c.type(0).shape
    axes = c.list_of("axes", 1)
    drop = (
        {c.wrap(a, len(shape)) for a in axes}
        if axes is not None
        else {i for i, s in enumerate(shape) if s == 1}
    )
    if any(shape[a] != 1 for a in drop):
        raise UserError(f"Squeeze of {c.type(0)} over axes {sorted(drop)}: they are not of size 1")
    return c.reshape(c[0], [s for i, s in enumerate(shape) if i not in drop])


@onnx("Unsqueeze")
def _unsqueeze(c: Call) -> str:
    axes = c.list_of("axes", 1) or ()
    rank = c.type(0).rank + len(axes)
    new = {c.wrap(a, rank) for a in axes}
    if len(new) != len(axes):
        raise UserError(f"Unsqueeze over axes {list(axes)}: one is given twice")
    sizes = iter(c.type(0).shape)
    return c.reshape(c[0], [1 if i in new else next(sizes) for i in range(rank)])


@onnx("Transpose")
def _transpose(c: Call) -> str:
    rank = c.type(0).rank
    return c.add("transpose", c[0], perm=c.attrs.get("perm", tuple(reversed(range(rank)))))


@onnx("Expand")
def _expand(c: Call) -> str:
    from .base import broadcast

    return c.add("expand", c[0], shape=broadcast([c.type(0).shape, c.integers(1, "shape")]))


@onnx("Tile")
def _tile(c: Call) -> str:
    return c.add("tile", c[0], repeats=c.integers(1, "repeats"))


@onnx("Concat")
def _concat(c: Call) -> str:
    parts = [v for v in c.inputs if v]
    axis = c.axis(0)
    full = [v for v in parts if c.type(v).shape[axis : axis + 1] != (0,)] or parts[:1]
    return c.add("concat", *full, axis=axis)


def take(c: Call, x: str, axis: int, start: int, end: int) -> str:
    """Return x[start:end] along one axis."""
    shape = c.type(x).shape
    starts = [start if i == axis else 0 for i in range(len(shape))]
    ends = [end if i == axis else s for i, s in enumerate(shape)]
    return c.add("slice", x, starts=starts, ends=ends, steps=(1,) * len(shape))


@onnx("Slice")
def _slice(c: Call) -> str:
    shape = c.type(0).shape
    starts, ends = c.list_of("starts", 1), c.list_of("ends", 2)
    if starts is None or ends is None:
        raise UserError("Slice has no starts or no ends")
    axes = c.list_of("axes", 3) or tuple(range(len(starts)))
    steps = (c.integers(4, "steps") if c.has(4) else None) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise UserError(
            f"Slice {starts}:{ends}:{steps} over axes {axes}: lists of unequal length, or a step of 0"
        )
    bounds = [(0, s, 1) for s in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = c.wrap(axis, len(shape))
        bounds[axis] = _clamp(start, end, step, shape[axis])
    first, last, by = zip(*bounds, strict=True) if bounds else ((), (), ())
    return c.add("slice", c[0], starts=first, ends=last, steps=by)


def _clamp(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """Return a slice by ONNX's rules within 0..size; an end of -1 is before the first element."""
    first, last, by = slice(start, end, step).indices(size)
    count = len(range(first, last, by))
    return (first, last, by) if count else (0, 0, 1)


@onnx("Split")
def _split(c: Call) -> tuple[str, ...]:
    axis = c.axis(0)
    kind = c.type(0)
    size = kind.shape[axis]
    if c.has(1) and c.builder.known(c[1]) is None:
        return _ragged(c)
    sizes = c.list_of("split", 1)
    if sizes is None:
        count = c.attr("num_outputs", 0) or c.outputs
        each = -(-size // max(count, 1))
        sizes = tuple(max(0, min(each, size - i * each)) for i in range(count))
    if sum(sizes) != size or any(s < 0 for s in sizes):
        raise UserError(f"Split of {kind} along axis {axis} into {list(sizes)}: the sizes do not add up")
    ends = np.cumsum(sizes).tolist()
    return tuple(take(c, c[0], axis, end - s, end) for s, end in zip(sizes, ends, strict=True))


def _ragged(c: Call) -> tuple[str, ...]:
    if c.type(0).rank != 1 or c.type(1).shape != (c.outputs,):
        raise Unsupported(f"its sizes, %{c[1]}, depend on the data", c[1])
    return c.builder.adds("ragged_split", c[0], c[1], hint=c.hint)


@onnx("Pad")
def _pad(c: Call) -> str:
    kind = c.type(0)
    pads = c.list_of("pads", 1)
    if pads is None and "paddings" in c.attrs:
        pads = tuple(c.attr("paddings", ()))
    axes = [c.wrap(a, kind.rank) for a in c.integers(3, "axes")] if c.has(3) else list(range(kind.rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise UserError(f"Pad of {kind} by {pads}: not a size before and after each of {len(axes)} axes")
    before, after = [0] * kind.rank, [0] * kind.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    x = _cut(c, before, after)
    before, after = ([max(p, 0) for p in sides] for sides in (before, after))
    mode = c.attr("mode", "constant")
    if mode != "constant":
        return _pad_by_gather(c, x, mode, before, after)
    value = c.builder.known(c[2]) if c.has(2) else np.asarray(c.attr("value", 0.0))
    if value is None or value.size != 1 or not _is_number(value):
        return _pad_by_concat(c, x, before, after)
    return c.add("pad", x, pads=[*before, *after], value=value.reshape(-1)[0].item())


def _cut(c: Call, before: list[int], after: list[int]) -> str:
    """Return the operand less what negative pads take away, which is first."""
    x, kind = c[0], c.type(0)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        start, end = max(-low, 0), kind.shape[axis] - max(-high, 0)
        if start > end:
            raise UserError(f"Pad of {kind} by {low} and {high} along axis {axis}: that takes more than all")
        if low < 0 or high < 0:
            x = take(c, x, axis, start, end)
    return x


def _is_number(value: np.ndarray) -> bool:
    """Return whether a command's number, which is fp64, can hold the first element of a value."""
    first = value.reshape(-1)[0].item()
    return not isinstance(first, int) or int(float(first)) == first


def _pad_by_concat(c: Call, x: str, before: list[int], after: list[int]) -> str:
    """Return x with a tensor of one element repeated around it."""
    if c.type(2).size != 1:
        raise UserError(f"Pad: its value must be one element, not {c.type(2)}")
    value = c.reshape(c[2], ())
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        shape = c.type(x).shape
        sides = [
            c.add("expand", value, shape=(*shape[:axis], size, *shape[axis + 1 :])) for size in (low, high)
        ]
        full = [v for v in (sides[0], x, sides[1]) if c.type(v).shape[axis]]
        x = c.add("concat", *full, axis=axis) if low or high else x
    return x


def _pad_by_gather(c: Call, x: str, mode: str, before: list[int], after: list[int]) -> str:
    if mode not in ("edge", "reflect", "wrap"):
        raise Unsupported(f"its mode is {mode} (right: constant, edge, reflect or wrap)")
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        size = c.type(x).shape[axis]
        bounded(size + low + high)
        if (low or high) and not size:
            raise UserError(f"Pad of {c.type(0)} in mode {mode}: axis {axis} has no element to take")
        if low or high:
            index = np.pad(np.arange(size, dtype=np.int64), (low, high), mode=mode)  # type: ignore[call-overload]
            x = c.add("gather", x, c.constant(index), axis=axis)
    return x


@onnx("ConstantOfShape")
def _constant_of_shape(c: Call) -> str:
    value = np.asarray(c.attrs.get("value", np.zeros(1, np.float32))).reshape(-1)
    if len(value) != 1:
        raise UserError(f"ConstantOfShape: value has {len(value)} elements, not 1")
    return c.add("expand", c.constant(value[0]), shape=c.integers(0, "shape"))


@onnx("Range")
def _range(c: Call) -> str:
    start, limit, delta = (
        c.known(i, what).reshape(())[()] for i, what in enumerate(("start", "limit", "delta"))
    )
    if not delta:
        raise UserError("Range: delta is 0")
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    bounded(count)
    return c.constant((start + np.arange(count) * delta).astype(start.dtype))


@onnx("EyeLike")
def _eye_like(c: Call) -> str:
    kind = c.type(0)
    element = DTYPE_OF_ONNX.get(c.attr("dtype", 0), kind.dtype)
    bounded(kind.size)
    if kind.rank != 2:
        raise UserError(f"EyeLike of {kind}: not a matrix")
    return c.constant(np.eye(kind.shape[0], kind.shape[1], k=c.attr("k", 0)).astype(element.numpy))


@onnx("Trilu", "com.microsoft::Trilu")
def _trilu(c: Call) -> str:
    kind = c.type(0)
    if kind.rank < 2:
        raise UserError(f"Trilu of {kind}: not a matrix")
    rows, columns = kind.shape[-2:]
    bounded(rows * columns)
    k = int(c.known(1, "k").reshape(())) if c.has(1) else 0
    keep = np.tri(rows, columns, k if not c.attr("upper", 1) else k - 1, dtype=np.bool_)
    return c.add("where", c.constant(~keep if c.attr("upper", 1) else keep), c[0], c.scalar(0, c[0]))


@onnx("DepthToSpace", "SpaceToDepth")
def _depth_to_space(c: Call) -> str:
    n, depth, h, w = c.type(0).shape
    b = c.attr("blocksize", 1)
    if c.op == "SpaceToDepth":
        order = (0, 3, 5, 1, 2, 4) if c.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        cut = c.add("transpose", c.reshape(c[0], (n, depth, h // b, b, w // b, b)), perm=order)
        return c.reshape(cut, (n, depth * b * b, h // b, w // b))
    if c.attr("mode", "DCR") == "DCR":
        cut = c.add("transpose", c.reshape(c[0], (n, b, b, depth // b // b, h, w)), perm=(0, 3, 4, 1, 5, 2))
    else:
        cut = c.add("transpose", c.reshape(c[0], (n, depth // b // b, b, b, h, w)), perm=(0, 1, 4, 2, 5, 3))
    return c.reshape(cut, (n, depth // b // b, h * b, w * b))
