"""Convolution as a tiled matrix product: slices of its operand, one a place of the kernel, are columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT32, TensorType

from .conv import FLOATS, PLACES, TAPS
from .matmul_map import epilogue
from .quantise import saturate
from .spelling import Call, Unsupported, bounded, onnx
from .transpose_convolve import Transposed, transposed_convolution

PHASES = 64  # convolutions that a transposed one is spelt as
LARGEST = 1 << 24  # elements of a table of indices


@dataclass(frozen=True)
class Window:
    """How a kernel slides over the spatial axes: sizes, steps and padding, a value per axis.

    `after` is what the last position needs; `declared` what the node states, less where it rounds up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]
    declared: tuple[int, ...]


def window(c: Call, kernel: Sequence[int]) -> Window:
    """Return the window of operand 0 that the node's attributes describe."""
    size = c.type(0).shape[2:]
    axes = range(len(size))
    strides = tuple(c.attr("strides", ())) or (1,) * len(size)
    dilations = tuple(c.attr("dilations", ())) or (1,) * len(size)
    if len(kernel) != len(size) or len(strides) != len(size) or len(dilations) != len(size):
        raise UserError(f"{c.op}: kernel {list(kernel)}, strides and dilations do not fit {c.type(0)}")
    if min(*strides, *dilations, *kernel) < 1 or math.prod(kernel) > TAPS:
        raise UserError(
            f"{c.op}: kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)} "
            f"(right: each from 1, at most {TAPS} places of the kernel)"
        )
    span = [(kernel[a] - 1) * dilations[a] + 1 for a in axes]
    before, after = _pads(c, size, span, strides)
    declared = tuple(after)
    room = [size[a] + before[a] + after[a] - span[a] for a in axes]
    if c.attr("ceil_mode", 0):
        out = [_ceil_out(room[a], strides[a], size[a] + before[a]) for a in axes]
        after = [max(after[a], (out[a] - 1) * strides[a] + span[a] - size[a] - before[a]) for a in axes]
    else:
        out = [r // strides[a] + 1 for a, r in enumerate(room)]
    if min(out) < 1:
        raise UserError(f"{c.op}: kernel {list(kernel)} is larger than {c.type(0)} with its padding")
    return Window(tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(out), declared)


def _ceil_out(room: int, stride: int, limit: int) -> int:
    """Return the positions of a window that may hang over the end, none starting in the padding there."""
    out = -(-room // stride) + 1
    return out - 1 if (out - 1) * stride >= limit else out


def _pads(
    c: Call, size: tuple[int, ...], span: list[int], strides: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    rank, mode = len(size), c.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = list(c.attr("pads", ())) or [0] * (2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise UserError(f"{c.op}: pads {pads} are not two sizes for each of {rank} axes")
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return [0] * rank, [0] * rank
    total = [max((-(-n // s) - 1) * s + w - n, 0) for n, s, w in zip(size, strides, span, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def places(c: Call, x: str, w: Window, fill: float) -> list[str]:
    """Return what each place of the kernel, in order, sees of x[n,c,..] at each position: [n,c,*out].

    Each is a slice; a kernel of more than `PLACES` is refused.
    """
    if math.prod(w.kernel) > PLACES:
        raise UserError(f"{c.op}: kernel {list(w.kernel)} (right: at most {PLACES} places of this operator)")
    lead = c.type(x).shape[:2]
    if any(w.before) or any(w.after):
        x = c.add("pad", x, pads=(0, 0, *w.before, 0, 0, *w.after), value=fill)
    seen = []
    for place in itertools.product(*(range(k) for k in w.kernel)):
        start = [p * d for p, d in zip(place, w.dilations, strict=True)]
        end = [s + (o - 1) * t + 1 for s, o, t in zip(start, w.out, w.strides, strict=True)]
        seen.append(c.add("slice", x, starts=(0, 0, *start), ends=(*lead, *end), steps=(1, 1, *w.strides)))
    return seen


@dataclass(frozen=True)
class Product:
    """A convolution as a matrix product: kernel [g,o/g,i*taps] by columns [n,g,i*taps,spots]."""

    kernel: str
    columns: str
    shape: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Return the output channels."""
        return self.shape[1]


def as_product(c: Call, x: str, weight: str, fill: float = 0.0) -> Product:
    """Return the product that convolves x by weight, with the node's strides, padding and groups."""
    kind, by, groups = c.type(x), c.type(weight), c.attr("group", 1)
    if kind.rank < 3 or by.rank != kind.rank or groups < 1 or kind.shape[1] != by.shape[1] * groups:
        raise UserError(f"{c.op} of {kind} by {by} in {groups} groups")
    if by.shape[0] % groups:
        raise UserError(f"{c.op}: {by.shape[0]} channels do not split into {groups} groups")
    w = window(c, by.shape[2:])
    n, outputs, inner, spots = kind.shape[0], by.shape[0], by.shape[1], math.prod(w.out)
    columns = [c.reshape(v, (n, groups, inner, 1, spots)) for v in places(c, x, w, fill)]
    taps = len(columns)
    matrix = c.reshape(c.add("concat", *columns, axis=3), (n, groups, inner * taps, spots))
    kernel = c.reshape(weight, (1, groups, outputs // groups, inner * taps))
    if groups == 1:
        matrix = c.reshape(matrix, (n, inner * taps, spots))
        kernel = c.reshape(kernel, (outputs, inner * taps))
    return Product(kernel, matrix, (n, outputs, *w.out))


def _by_channel(c: Call, value: str, kind: TensorType) -> str:
    """Return a value per channel of [n,o,..], or one for all, so that it broadcasts to that."""
    size = c.type(value).size
    if size == 1:
        return c.reshape(value, ())
    if size != kind.shape[1]:
        raise UserError(f"{c.op}: {c.type(value)} is not a value for each of {kind.shape[1]} channels")
    return c.reshape(value, (size, *(1 for _ in kind.shape[2:])))


def convolution(c: Call, x: str, weight: str, bias: str = "", fill: float = 0.0) -> str:
    """Return x convolved by weight as the node says, with a bias where there is one: [n,o,*out].

    Bytes give int32. Padding has the value `fill`.
    """
    w, kind = window(c, c.type(weight).shape[2:]), c.type(x).dtype
    channels = TensorType(kind, (1, c.type(weight).shape[0], *w.out))
    edge = [_by_channel(c, bias, channels)] if bias else []
    return c.add(
        "conv",
        x,
        weight,
        *edge,
        strides=w.strides,
        dilations=w.dilations,
        pads=(*w.before, *w.after),
        group=c.attr("group", 1),
        tape=str(epilogue((False, bool(bias)), "none")),
        to=(kind if kind.is_float else INT32).name,
        **({"fill": fill} if fill else {}),
    )


@onnx("Conv")
def _conv(c: Call) -> str:
    kind, by = c.type(0), c.type(1)
    if kind.dtype.name in FLOATS and by.rank == kind.rank > 2 and by.dtype == kind.dtype:
        return convolution(c, c[0], c[1], c.optional(2))
    product = as_product(c, c[0], c[1])
    result = c.reshape(c.add("matmul", product.kernel, product.columns), product.shape)
    return c.add("add", result, _by_channel(c, c[2], c.type(result))) if c.has(2) else result


def _integer(c: Call, x: str, weight: str, x_zero: str, w_zero: str) -> str:
    """Return the convolution of bytes in int32, zero points taken off: [n,o,*out]."""
    known = c.builder.known(x_zero) if x_zero else np.zeros(1)
    if known is None:
        return _around(c, x, weight, x_zero, w_zero)
    fill, kind, by = float(known.reshape(-1)[0]), c.type(x), c.type(weight)
    around = c.builder.known(w_zero) if w_zero else np.zeros(1)
    if around is None or around.any() or by.rank != kind.rank or kind.rank < 3:
        product = as_product(c, x, weight, fill)
        zeros = [_by_row(c, v, product) if v else "" for v in (w_zero, x_zero)]
        return c.reshape(c.compose("MatMulInteger", product.kernel, product.columns, *zeros), product.shape)
    total = convolution(c, x, weight, fill=fill)
    if not fill:
        return total
    sums = c.add("reduce_sum", c.cast(weight, "int32"), axes=tuple(range(1, by.rank)), keepdims=False)
    more = c.add("mul", _by_channel(c, sums, c.type(total)), c.scalar(fill, total))
    return c.add("sub", total, more)


def _around(c: Call, x: str, weight: str, x_zero: str, w_zero: str) -> str:
    """Return the convolution of bytes around a zero point that the data say, which padding has as well.

    By (x - a) * (w - b) = x * w - b x * 1 - a (1 * w - b 1 * 1), where * is a convolution padded with 0.
    """
    kind, by = c.type(x), c.type(weight)
    if by.rank != kind.rank or kind.rank < 3 or c.type(x_zero).size != 1:
        raise Unsupported("its zero point depends on the data", x_zero)
    bounded(math.prod(kind.shape[1:]))
    ones = c.constant(np.ones((1, *kind.shape[1:]), kind.dtype.numpy))
    taps, reached = convolution(c, x, weight), convolution(c, ones, weight)
    known = c.builder.known(w_zero) if w_zero else np.zeros(1)
    if known is None or known.any():
        flat = c.constant(np.ones(by.shape, by.dtype.numpy))
        around = _by_channel(c, c.cast(w_zero, "int32"), c.type(taps))
        taps, reached = (
            c.add("sub", sums, c.add("mul", around, convolution(c, operand, flat)))
            for sums, operand in ((taps, x), (reached, ones))
        )
    return c.add("sub", taps, c.add("mul", reached, c.reshape(c.cast(x_zero, "int32"), ())))


def _by_row(c: Call, value: str, product: Product) -> str:
    """Return a value per output channel, or of one, shaped as a column of the product."""
    groups, size = c.attr("group", 1), c.type(value).size
    if size == 1:
        return c.reshape(value, ())
    if size != product.outputs:
        raise UserError(f"{c.op}: {c.type(value)} is not a value for each of {product.outputs} channels")
    return c.reshape(value, (size, 1) if groups == 1 else (1, groups, size // groups, 1))


@onnx("ConvInteger")
def _conv_integer(c: Call) -> str:
    return _integer(c, c[0], c[1], c.optional(2), c.optional(3))


@onnx("QLinearConv")
def _qlinear_conv(c: Call) -> str:
    x, x_scale, x_zero, weight, w_scale, w_zero, y_scale, y_zero = (c[i] for i in range(8))
    total = _integer(c, x, weight, x_zero, w_zero)
    if c.has(8):
        total = c.add("add", total, _by_channel(c, c[8], c.type(total)))
    scales = [_by_channel(c, v, c.type(total)) for v in (x_scale, w_scale, y_scale)]
    scale = c.add("div", c.add("mul", scales[0], scales[1]), scales[2])
    level = c.add("round", c.add("mul", c.cast(total, "fp32"), scale))
    level = c.add("add", level, c.cast(c.reshape(y_zero, ()), "fp32"))
    return saturate(c, level, c.type(y_zero).dtype)


def overlap_add(c: Call, columns: str, w: Window, size: tuple[int, ...]) -> str:
    """Return [n,c,*size]: columns [n,c,taps*spots], each element added where its tap at its spot lies."""
    n, channels, count = c.type(columns).shape
    if max(count, math.prod(size)) > LARGEST:
        raise Unsupported(
            f"its kernel of {list(w.kernel)} at {list(w.out)} places, and its result of {list(size)}, are "
            f"too large (right: at most {LARGEST} elements a channel)"
        )
    taps = np.indices(w.kernel).reshape(len(size), -1, 1)
    spots = np.indices(w.out).reshape(len(size), 1, -1)
    flat, inside = np.zeros((), np.int64), np.ones((), bool)
    for a, length in enumerate(size):
        at = spots[a] * w.strides[a] + taps[a] * w.dilations[a] - w.before[a]
        flat, inside = flat * length + at, inside & (at >= 0) & (at < length)
    source, target = np.flatnonzero(inside), flat[inside]
    order = np.argsort(target, kind="stable")
    source, target = source[order], target[order]
    rank = np.arange(len(target)) - np.searchsorted(target, target)
    if (rank.max(initial=0) + 1) * math.prod(size) > LARGEST:
        raise Unsupported(f"it adds up more than {LARGEST} elements a channel")
    table = np.full((rank.max(initial=0) + 1, math.prod(size)), count)
    table[rank, target] = source
    padded = c.add("pad", columns, pads=(0, 0, 0, 0, 0, 1), value=0.0)  # what nothing is added to reads 0
    taken = c.add("gather", padded, c.constant(table.astype(np.int64)), axis=2)
    return c.reshape(c.add("reduce_sum", taken, axes=(2,), keepdims=False), (n, channels, *size))


@onnx("ConvTranspose")
def _conv_transpose(c: Call) -> str:
    x, weight, groups = c.type(0), c.type(1), c.attr("group", 1)
    if x.rank < 3 or weight.rank != x.rank or groups < 1 or x.shape[1] != weight.shape[0]:
        raise UserError(f"ConvTranspose of {x} by {weight} in {groups} groups")
    size, kernel, (n, channels) = x.shape[2:], weight.shape[2:], x.shape[:2]
    w, out = _transposed(c, size, kernel)
    if x.dtype.name in FLOATS and weight.dtype == x.dtype and math.prod(w.strides) <= PHASES:
        count = tuple(-(-n // s) for n, s in zip(out, w.strides, strict=True))
        sizes = Transposed(w.out, count, kernel, w.strides, w.dilations, w.before)
        return transposed_convolution(c, sizes, out)
    inner, each, taps, spots = channels // groups, weight.shape[1], math.prod(kernel), math.prod(size)
    columns = c.reshape(c[1], (1, groups, inner, each * taps))
    columns = c.add("transpose", columns, perm=(0, 1, 3, 2))
    columns = c.add("matmul", columns, c.reshape(c[0], (n, groups, inner, spots)))
    result = overlap_add(c, c.reshape(columns, (n, groups * each, taps * spots)), w, out)
    if not c.has(2):
        return result
    return c.add("add", result, c.reshape(c[2], (groups * each, *(1 for _ in size))))


def _transposed(c: Call, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
    """Return the window whose positions are the operand's, and the size of the result."""
    rank = len(size)
    lists = {name: tuple(c.attr(name, ())) for name in ("strides", "dilations", "output_padding", "pads")}
    strides, dilations = (lists[name] or (1,) * rank for name in ("strides", "dilations"))
    extra, pads = lists["output_padding"] or (0,) * rank, lists["pads"] or (0,) * (2 * rank)
    if not len(strides) == len(dilations) == len(extra) == len(pads) // 2 == rank:
        raise UserError(f"{c.op}: strides, dilations, output_padding or pads do not fit {c.type(0)}")
    full = [
        s * (n - 1) + o + (k - 1) * d + 1
        for s, n, o, k, d in zip(strides, size, extra, kernel, dilations, strict=True)
    ]
    mode, output_shape = c.attr("auto_pad", "NOTSET"), tuple(c.attr("output_shape", ()))
    if mode.startswith("SAME") and not output_shape:
        output_shape = tuple(n * s for n, s in zip(size, strides, strict=True))
    before, after = pads[:rank], pads[rank:]
    if output_shape:
        total = [max(f - o, 0) for f, o in zip(full, output_shape[-rank:], strict=True)]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
        out = output_shape[-rank:]
    else:
        out = tuple(f - b - a for f, b, a in zip(full, before, after, strict=True))
    return Window(kernel, strides, dilations, before, after, size, after), out


@onnx("Col2Im")
def _col2im(c: Call) -> str:
    size, block = c.integers(1, "image_shape"), c.integers(2, "block_shape")
    rank = len(size)
    strides, dilations = (tuple(c.attr(name, ())) or (1,) * rank for name in ("strides", "dilations"))
    pads = tuple(c.attr("pads", ())) or (0,) * (2 * rank)
    out = tuple(
        (size[a] + pads[a] + pads[a + rank] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1
        for a in range(rank)
    )
    n, rows, spots = c.type(0).shape
    taps = math.prod(block)
    if len(block) != rank or rows % taps or spots != math.prod(out):
        raise UserError(f"Col2Im of {c.type(0)} into {list(size)} by blocks of {list(block)}")
    w = Window(block, strides, dilations, pads[:rank], pads[rank:], out, pads[rank:])
    return overlap_add(c, c.reshape(c[0], (n, rows // taps, taps * spots)), w, size)


@onnx("com.microsoft::FusedConv")
def _fused_conv(c: Call) -> str:
    from .activations import activation

    result = _conv(c)
    if c.has(3):
        result = c.add("add", result, c[3])
    given = list(c.attr("activation_params", ()))
    name = c.attr("activation", "")
    if name == "Clip":
        low, high = c.scalar(given[0], result), c.scalar(given[1], result)
        return c.add("min", c.add("max", result, low), high)
    return activation(name, given[:1], given[1:])(c, result)
