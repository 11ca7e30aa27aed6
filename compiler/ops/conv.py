"""A convolution and the elementwise work on its result, done before the result is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import INT32, ImplicitGemmWork, TensorType, dtype

from ..graph import Attrs
from .backward import Back, gradient
from .base import (
    Array,
    Arrays,
    Count,
    Op,
    Types,
    array,
    broadcast,
    elementwise,
    integer,
    integers,
    need,
    number,
    register,
    same_dtype,
    wide,
)
from .layout import WHOLE, Layout, NodeSplit, Query, aligned, splits
from .map import unfolded

FLOATS = ("fp32", "fp16", "bf16")  # what it is computed in
BYTES = ("int8", "uint8")  # or, exactly, in int32
TAPS = 1 << 16  # places of a kernel
PLACES = 4096  # that are written out one by one
PLAIN = "1 -> x0 |"  # the tape that leaves the convolution as it is


@dataclass(frozen=True)
class ConvShape:
    """The sizes of a convolution, of any number of spatial axes: `size` of its operand, `out` of its result.

    `inner` and `outer` are the channels of one group, in and out; `before` and `after` the padding.
    """

    batch: int
    groups: int
    inner: int
    outer: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Return the places of the kernel."""
        return math.prod(self.kernel)

    @property
    def rows(self) -> int:
        """Return the elements of one channel of the result, of the whole batch."""
        return self.batch * math.prod(self.out)

    @property
    def depthwise(self) -> bool:
        """Return whether each channel goes into one of the result alone: no product of matrices is left."""
        return self.groups > 1 and self.inner == self.outer == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result, [batch, channels, *out]."""
        return (self.batch, self.groups * self.outer, *self.out)


def conv_shape(x: TensorType, weight: TensorType, attrs: Attrs) -> ConvShape:
    """Return the sizes of a node; raise `UserError` where operands and attributes do not fit."""
    rank, groups = x.rank - 2, integer(attrs, "group")
    strides, dilations = (integers(attrs, name) for name in ("strides", "dilations"))
    pads = integers(attrs, "pads")
    if rank < 1 or weight.rank != x.rank or groups < 1 or x.shape[1] != weight.shape[1] * groups:
        raise UserError(f"{x} by {weight} in {groups} groups (right: [n,c,..] by [o,c/groups,..])")
    if weight.shape[0] % groups:
        raise UserError(f"{weight.shape[0]} channels do not split into {groups} groups")
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise UserError(f"strides {strides}, dilations {dilations} or pads {pads} do not fit {x}")
    kernel = weight.shape[2:]
    if min(*strides, *dilations, *kernel) < 1 or min(pads) < 0 or math.prod(kernel) > TAPS:
        raise UserError(
            f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads} "
            f"(right: each from 1, pads from 0, at most {TAPS} places of the kernel)"
        )
    before, after = pads[:rank], pads[rank:]
    out = tuple(
        (n + b + a - (k - 1) * d - 1) // s + 1
        for n, b, a, k, d, s in zip(x.shape[2:], before, after, kernel, dilations, strides, strict=True)
    )
    if min(out) < 1:
        raise UserError(f"kernel {kernel} is larger than {x} with its padding")
    outer = weight.shape[0] // groups
    return ConvShape(
        x.shape[0],
        groups,
        weight.shape[1],
        outer,
        x.shape[2:],
        kernel,
        strides,
        dilations,
        before,
        after,
        out,
    )


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, weight, to = need(types[0]), need(types[1]), dtype(str(attrs["to"]))
    bytes_ = {x.dtype.name, weight.dtype.name} <= set(BYTES)
    if not bytes_ and same_dtype([x, weight]).name not in FLOATS:
        raise UserError(f"{x} by {weight}: right: {', '.join((*FLOATS, *BYTES))}")
    sizes, tape = conv_shape(x, weight, attrs), parse(str(attrs["tape"]))
    if bytes_ and (len(types) > 2 or tape.steps or to != INT32):
        raise UserError(f"of bytes it gives int32 and does no more: {to} by `{tape}`")
    if tape.inputs != len(types) - 1 or len(tape.results) != 1 or tape.row_wise:
        raise UserError(
            f"the tape takes {tape.inputs} operands; there are {len(types) - 1}: the convolution and others"
        )
    if broadcast([sizes.shape, *(need(t).shape for t in types[2:])]) != sizes.shape:
        raise UserError(f"an operand of the tape does not broadcast to {list(sizes.shape)}")
    return (TensorType(to, sizes.shape),)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, weight = array(arrays[0]), array(arrays[1])
    kind, by = (TensorType(dtype("fp32"), v.shape) for v in (x, weight))
    sizes = conv_shape(kind, by, attrs)
    to = dtype(str(attrs["to"]))
    if not to.is_float:  # doubles hold the sums exactly
        fill = number(attrs, "fill", 0.0)
        return (convolved(x.astype(np.float64), weight.astype(np.float64), sizes, fill).astype(to.numpy),)
    result = convolved(wide(x), wide(weight), sizes)
    (out,) = parse(str(attrs["tape"])).evaluate([result, *(array(v) for v in arrays[2:])], [to])
    return (np.broadcast_to(out, sizes.shape).copy(),)


def convolved(x: Array, weight: Array, s: ConvShape, fill: float = 0.0) -> Array:
    """Return the convolution of x[n,c,*size] by weight[o,c/groups,*kernel]: [n,o,*out], `fill` around x."""
    rank = len(s.size)
    x = np.pad(x, [(0, 0), (0, 0), *zip(s.before, s.after, strict=True)], constant_values=fill)
    span = tuple((k - 1) * d + 1 for k, d in zip(s.kernel, s.dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, span, axis=tuple(range(2, 2 + rank)))
    steps = (*(slice(None, None, t) for t in s.strides), *(slice(None, None, d) for d in s.dilations))
    seen = seen[(slice(None), slice(None), *steps)]
    seen = seen.reshape(s.batch, s.groups, s.inner, math.prod(s.out), s.taps)
    columns = seen.transpose(0, 1, 3, 2, 4).reshape(s.batch, s.groups, math.prod(s.out), s.inner * s.taps)
    matrix = weight.reshape(s.groups, s.outer, s.inner * s.taps).swapaxes(1, 2)
    return np.matmul(columns, matrix).swapaxes(2, 3).reshape(s.shape)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count a product whose left side is read once, as it lies.

    A depthwise one is arithmetic on elements; a multiply-add counts once, as it takes a lane once.
    """
    s, steps = conv_shape(need(types[0]), need(types[1]), attrs), len(parse(str(attrs["tape"])).steps)
    size = results[0].size
    if s.depthwise:
        return elementwise(size, (s.taps + steps) * size)
    sizes = {"batch": s.groups, "m": s.rows, "k": s.inner * s.taps, "n": s.outer}
    return Count(ImplicitGemmWork, sizes | {"left_bytes": need(types[0]).bytes}, steps * size)


register(
    Op(
        "conv",
        "x[n,c,..] padded by `fill`, convolved by w[o,c/group,..]; then a tape on it and further operands",
        (2, 64),
        _infer,
        _reference,
        _count,
        ("strides", "dilations", "pads", "group", "tape", "to"),
        ("fill",),
    )
)


@splits("conv")
def _split(query: Query) -> NodeSplit:
    """Split the batch, and channels as computed operands come: inner ones in both owe a sum.

    So the gradient of weights owes one over the batch, whose samples stand where channels do.
    """
    shape, attrs = query.node.type.shape, query.node.attrs
    left, right = query.layouts[:2]
    assert left is not None and right is not None
    whole, batch = (WHOLE,) * (len(shape) - 2), left.dims[0]
    joins = integer(attrs, "group") == 1 and not query.free[1]
    outer = right.dims[0] if joins and not set(right.dims[0]) & set(batch) else WHOLE
    inner = left.dims[1] or right.dims[1] if joins and not parse(str(attrs["tape"])).steps else WHOLE
    inner = WHOLE if set(inner) & {*batch, *outer} else inner
    dims = (batch, outer, *whole)
    rest = tuple(None if t is None else aligned(t, dims, shape) for t in query.types[2:])
    wanted = (Layout((batch, inner, *whole)), Layout((outer, inner, *whole)), *rest)
    return NodeSplit(wanted, (Layout(dims, tuple(sorted(inner))),))


@gradient("conv")
def _back(b: Back) -> tuple[str, ...]:
    """Go back through the tape, then through the convolution: two more convolutions."""
    tape = parse(str(b.node.attrs["tape"]))
    if tape.steps:
        plain = dict(b.node.attrs) | {"tape": PLAIN, "to": b.type(0).dtype.name}
        value = unfolded(b, [b.add("conv", b[0], b[1], **plain), *b.node.inputs[2:]])
        return b.through(b.add("expand", value, shape=b.node.type.shape))
    sizes, g = conv_shape(b.type(0), b.type(1), b.node.attrs), b.cast(b.grad, b.type(0))
    return _of_operand(b, g, sizes) if b.wants(0) else "", _of_weight(b, g, sizes) if b.wants(1) else ""


def _of_operand(b: Back, g: str, s: ConvShape) -> str:
    """Return the gradient of x: g convolved the other way, each place by the taps that saw it."""
    from .spelling import Call
    from .transpose_convolve import Transposed, transposed_convolution

    count = tuple(-(-n // t) for n, t in zip(s.size, s.strides, strict=True))
    sizes = Transposed(s.out, count, s.kernel, s.strides, s.dilations, s.before)
    call = Call(b.builder, "Conv", 0, (g, b[1]), 1, {"group": s.groups}, f"{b.node.name}.grad")
    return transposed_convolution(call, sizes, s.size)


def _of_weight(b: Back, g: str, s: ConvShape) -> str:
    """Return the gradient of the weight: for each tap, the sum of g times what that tap saw."""
    if math.prod(s.out) > PLACES >= math.prod(s.kernel):
        return _by_tap(b, g, s)
    swap = (1, 0, *range(2, 2 + len(s.size)))
    x = b.reshape(b[0], (s.batch, s.groups, s.inner, *s.size))
    x = b.add("transpose", x, perm=(2, 1, 0, *range(3, 3 + len(s.size))))
    x = b.reshape(x, (s.inner, s.groups * s.batch, *s.size))
    result = b.add(
        "conv",
        x,
        b.add("transpose", g, perm=swap),
        strides=s.dilations,
        dilations=s.strides,
        pads=(*s.before, *s.after),
        group=s.groups,
        tape=PLAIN,
        to=b.type(1).dtype.name,
    )
    shape = b.type(result).shape  # more where the last places of x are seen by no window
    ends = (*shape[:2], *s.kernel)
    result = b.add("slice", result, starts=(0,) * len(shape), ends=ends, steps=(1,) * len(shape))
    return b.add("transpose", result, perm=swap)


def _by_tap(b: Back, g: str, s: ConvShape) -> str:
    """Return the gradient of the weight as a product a tap: what it saw is a slice of x."""
    places, rank = s.batch * math.prod(s.out), len(s.size)
    x = b.add("pad", b[0], pads=(0, 0, *s.before, 0, 0, *s.after))
    g = b.reshape(g, (s.batch, s.groups, s.outer, math.prod(s.out)))
    g = b.reshape(b.add("transpose", g, perm=(1, 2, 0, 3)), (s.groups, s.outer, places))
    taps = []
    for at in np.ndindex(*s.kernel):
        starts = tuple(k * d for k, d in zip(at, s.dilations, strict=True))
        ends = tuple(a + (n - 1) * t + 1 for a, n, t in zip(starts, s.out, s.strides, strict=True))
        lead = b.type(x).shape[:2]
        seen = b.add("slice", x, starts=(0, 0, *starts), ends=(*lead, *ends), steps=(1, 1, *s.strides))
        seen = b.reshape(seen, (s.batch, s.groups, s.inner, math.prod(s.out)))
        seen = b.reshape(b.add("transpose", seen, perm=(1, 0, 3, 2)), (s.groups, places, s.inner))
        taps.append(b.reshape(b.add("matmul", g, seen), (s.groups * s.outer, s.inner, 1)))
    return b.reshape(b.add("concat", *taps, axis=2), (s.groups * s.outer, s.inner, *s.kernel[:rank]))
