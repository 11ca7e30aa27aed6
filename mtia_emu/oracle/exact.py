"""Products of integers in exact arithmetic, by operator: what holds on every processor.

onnxruntime's kernels for bytes are not such a reference: on x86 without VNNI they add pairs of products in 16
bits, which saturates. Sums here are of integers below 2**53 in double precision, so no sum is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attrs = Mapping[str, Any]
Own = Callable[[Sequence[Any], Attrs], Sequence[Any]]
MS = "com.microsoft::"


def operand(arrays: Sequence[Any], index: int) -> Array | None:
    """Return an operand of any shape, None where it is omitted."""
    return arrays[index] if index < len(arrays) else None


def centred(x: Array, zero: Array | None) -> Array:
    """Return integers of any shape less their zero point, which broadcasts, in double precision."""
    return x.astype(np.float64) - (0 if zero is None else zero.astype(np.float64))


def product(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    """Return a b of integers; a zero point is a scalar or one a row of a, or one a column of b."""
    if a_zero is not None and a_zero.ndim == 1 and a_zero.size > 1:
        a_zero = a_zero[:, None]
    return np.matmul(centred(a, a_zero), centred(b, b_zero))


def columns(x: Array, kernel: Sequence[int], attrs: Attrs) -> Array:
    """Return the windows of an image [n,c,*size] as [n,c,*spots,*kernel]; what is padded is 0."""
    rank = len(kernel)
    strides, dilations = (list(attrs.get(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = _pads(x.shape[2:], kernel, strides, dilations, attrs)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(2, 2 + rank)))
    steps: tuple[Any, ...] = tuple(slice(None, None, step) for step in (*strides, *dilations))
    return windows[(..., *steps)]


def _pads(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], attrs: Attrs
) -> list[int]:
    """Return the padding before each axis, then that behind each."""
    auto = attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return list(attrs.get("pads") or [0] * 2 * len(kernel))
    if auto == "VALID":
        return [0] * 2 * len(kernel)
    all_ = [
        max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        for length, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in all_], [n - n // 2 for n in all_]
    return less + more if auto == "SAME_UPPER" else more + less


def convolution(x: Array, w: Array, x_zero: Array | None, w_zero: Array | None, attrs: Attrs) -> Array:
    """Return the convolution [n,m,*spots] of integers; a weight's zero point may be one for each m."""
    if w_zero is not None:
        w_zero = w_zero.reshape(-1, *(1,) * (w.ndim - 1))
    groups, rank = attrs.get("group", 1), w.ndim - 2
    parts = zip(np.split(centred(x, x_zero), groups, 1), np.split(centred(w, w_zero), groups), strict=True)
    taps = [1, *range(2 + rank, 2 + 2 * rank)]  # of the windows: channels, and the kernel's axes
    products = [np.tensordot(columns(i, w.shape[2:], attrs), k, (taps, range(1, k.ndim))) for i, k in parts]
    return np.moveaxis(np.concatenate(products, axis=-1), -1, 1)


def quantised(x: Array, scale: Any, zero: Array | None, kind: Any) -> Array:
    """Return x / scale, rounded to even, plus the zero point, saturated; the two broadcast to x."""
    level = np.rint(x / np.asarray(scale, np.float64)) + (0 if zero is None else zero.astype(np.float64))
    return np.clip(level, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def int32(total: Array) -> Array:
    """Return sums of any shape as int32, which wraps around."""
    return total.astype(np.int64).astype(np.int32)


def matmul_integer(arrays: Sequence[Any], _: Attrs) -> list[Array]:
    return [int32(product(arrays[0], arrays[1], operand(arrays, 2), operand(arrays, 3)))]


def conv_integer(arrays: Sequence[Any], attrs: Attrs) -> list[Array]:
    return [int32(convolution(arrays[0], arrays[1], operand(arrays, 2), operand(arrays, 3), attrs))]


def qlinear_matmul(arrays: Sequence[Any], _: Attrs) -> list[Array]:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = arrays
    if a_scale.ndim == 1 and a_scale.size > 1:
        a_scale = a_scale[:, None]
    total = product(a, b, a_zero, b_zero) * a_scale.astype(np.float64) * b_scale.astype(np.float64)
    return [quantised(total, scale, zero, zero.dtype)]


def qlinear_conv(arrays: Sequence[Any], attrs: Attrs) -> list[Array]:
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero = arrays[:8]
    by_channel = (-1, *(1,) * (w.ndim - 2))
    total = convolution(x, w, x_zero, w_zero, attrs)
    if (bias := operand(arrays, 8)) is not None:
        total += bias.reshape(by_channel)
    total *= x_scale.astype(np.float64) * w_scale.astype(np.float64).reshape(by_channel)
    return [quantised(total, scale, zero, zero.dtype)]


def matmul_integer_to_float(arrays: Sequence[Any], _: Attrs) -> list[Array]:
    a, b, a_scale, b_scale = arrays[:4]
    total = product(a, b, operand(arrays, 4), operand(arrays, 5)) * np.multiply(a_scale, b_scale, dtype=float)
    bias = operand(arrays, 6)
    return [(total if bias is None else total + bias).astype(a_scale.dtype)]


def dynamic_quantize_matmul(arrays: Sequence[Any], attrs: Attrs) -> list[Array]:
    a, b, b_scale = arrays[:3]
    low, high = np.float32(a.min(initial=0)), np.float32(a.max(initial=0))
    scale = np.float32(high - low) / np.float32(255) if high > low else np.float32(1)
    zero = np.rint(np.clip(-low / scale, 0, 255)).astype(np.uint8)
    level = np.clip(np.rint(a / scale) + np.float32(zero), 0, 255).astype(np.uint8)
    further = [zero, operand(arrays, 3), operand(arrays, 4)]
    return matmul_integer_to_float([level, b, np.asarray(scale), b_scale, *further], attrs)


def q_gemm(arrays: Sequence[Any], attrs: Attrs) -> list[Array]:
    a, a_scale, a_zero, b, b_scale, b_zero = arrays[:6]
    a, b = (x.T if attrs.get(flag) else x for x, flag in ((a, "transA"), (b, "transB")))
    total = product(a, b, a_zero, b_zero)
    if (bias := operand(arrays, 6)) is not None:
        total = total + bias
    total = total * np.multiply(a_scale, b_scale, dtype=float) * attrs.get("alpha", 1.0)
    if (scale := operand(arrays, 7)) is None:
        return [total.astype(np.float32)]
    zero = operand(arrays, 8)
    return [quantised(total, scale, zero, a.dtype if zero is None else zero.dtype)]


def q_attention(arrays: Sequence[Any], attrs: Attrs) -> list[Array]:
    """Return attention whose heads [b,n,t,h] a product of bytes projects, and its keys and values."""
    x, weight, bias, x_scale, w_scale = arrays[:5]
    mask, past = operand(arrays, 5), operand(arrays, 8)
    total = product(x, weight, operand(arrays, 6), operand(arrays, 7))
    projected = total * np.multiply(x_scale, w_scale, dtype=float) + bias
    heads = projected.reshape(*x.shape[:2], 3, attrs["num_heads"], -1).transpose(2, 0, 3, 1, 4)
    query, present = heads[0], heads[1:] if past is None else np.concatenate([past, heads[1:]], axis=3)
    scale = attrs.get("scale") or query.shape[-1] ** -0.5
    score = query @ present[0].swapaxes(-1, -2) * scale + _hidden(mask, x.shape[:2], present.shape[3], attrs)
    if attrs.get("unidirectional"):
        queries, keys = score.shape[-2:]
        score[..., ~np.tri(queries, keys, keys - queries, dtype=bool)] = -np.inf
    share = np.exp(score - score.max(axis=-1, keepdims=True))
    result = share / share.sum(axis=-1, keepdims=True) @ present[1]
    joined = result.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    return [joined.astype(bias.dtype), present.astype(bias.dtype)]


def _hidden(mask: Array | None, size: tuple[int, int], keys: int, attrs: Attrs) -> Any:
    """Return what is added to scores [b,n,s,t]: nothing, or `mask_filter_value` where a key is masked."""
    if mask is None:
        return 0.0
    batch, _ = size
    if mask.ndim == 1:  # where the keys of each sequence end, then where they begin
        ends = mask.reshape(-1, batch, 1)
        at = np.arange(keys)
        mask = (at < ends[0]) & (at >= (ends[1] if len(ends) > 1 else 0))
    shape = (batch, 1, -1, keys) if mask.ndim < 4 else mask.shape
    return np.where(mask.reshape(shape) != 0, 0.0, attrs.get("mask_filter_value", -10000.0))


EXACT: dict[str, Own] = {
    "MatMulInteger": matmul_integer,
    "ConvInteger": conv_integer,
    "QLinearMatMul": qlinear_matmul,
    "QLinearConv": qlinear_conv,
    f"{MS}MatMulIntegerToFloat": matmul_integer_to_float,
    f"{MS}DynamicQuantizeMatMul": dynamic_quantize_matmul,
    f"{MS}QGemm": q_gemm,
    f"{MS}QAttention": q_attention,
}
