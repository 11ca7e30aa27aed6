"""Resizing: along each axis, gathered neighbours times constant weights, or a product with their matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError

from .spelling import Call, Unsupported, bounded, onnx

TAPS = 8  # neighbours of a point; more of them are a matrix product
REPEATS = 8  # copies side by side that an element is repeated by; more are looked up
MODES = ("nearest", "linear", "cubic")


@dataclass(frozen=True)
class ResizeAxis:
    """How one axis is resized: from `size` to `out` points, `scale` apart, seen through `start` to `end`."""

    size: int
    out: int
    scale: float
    start: float
    end: float


def _coordinates(mode: str, a: ResizeAxis) -> np.ndarray:
    """Return where in the operand each point of the result lies; formulas of ONNX's Resize."""
    x = np.arange(a.out, dtype=np.float64)
    half = (x + 0.5) / a.scale - 0.5
    width = a.scale * a.size
    if mode == "half_pixel":
        return half
    if mode == "pytorch_half_pixel":
        return half if width != 1 else np.zeros_like(x)
    if mode == "half_pixel_symmetric":
        return a.size / 2 * (1 - a.out / width) + half
    if mode == "asymmetric":
        return x / a.scale
    if mode == "align_corners":
        return x * (a.size - 1) / (width - 1) if width != 1 else np.zeros_like(x)
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / a.scale
    if mode != "tf_crop_and_resize":
        raise Unsupported(f"its coordinate_transformation_mode is {mode}")
    span = (a.end - a.start) * (a.size - 1)
    steps = x * span / (width - 1) if width != 1 else np.full_like(x, span / 2)
    return a.start * (a.size - 1) + steps


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Return Keys' convolution kernel at distances x of any shape."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _weights(c: Call, mode: str, at: np.ndarray, a: ResizeAxis) -> tuple[np.ndarray, np.ndarray]:
    """Return the neighbours [out, taps] of each point, maybe outside the operand, and their weights."""
    base = np.ceil(at) - 1  # a point on a pixel is the right end of its interval
    ratio = (at - base)[:, None]
    scale = min(a.scale, 1.0) if c.attr("antialias", 0) else 1.0
    reach = 2 if mode == "cubic" else 1
    first = math.floor(-reach / scale) + 1
    bounded(a.out * (2 - 2 * first))
    steps = np.arange(first, 2 - first)[None, :]
    if mode == "nearest":
        right = {
            "round_prefer_floor": ratio > 0.5,
            "round_prefer_ceil": ratio >= 0.5,
            "floor": ratio >= 1.0,
            "ceil": ratio > 0.0,
        }.get(c.attr("nearest_mode", "round_prefer_floor"))
        if right is None:
            raise UserError(f"{c.op}: nearest_mode is {c.attr('nearest_mode', '')!r}")
        return base[:, None] + right, np.ones_like(ratio)
    args = (steps - ratio) * scale
    weights = np.clip(1 - np.abs(args), 0, 1)
    if mode == "cubic":
        weights = _cubic(args, c.attr("cubic_coeff_a", -0.75))
    neighbours = base[:, None] + steps
    if c.attr("exclude_outside", 0):
        weights = np.where((neighbours >= 0) & (neighbours < a.size), weights, 0.0)
    if c.attr("exclude_outside", 0) or scale < 1.0:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return neighbours, weights


def _resize_axis(c: Call, x: str, axis: int, mode: str, at: np.ndarray, a: ResizeAxis) -> str:
    neighbours, weights = _weights(c, mode, at, a)
    taken = np.clip(neighbours, 0, a.size - 1).astype(np.int64)
    kind = c.type(x)
    if mode == "nearest":
        return _nearest(c, x, axis, taken[:, 0])
    if taken.shape[1] > TAPS:
        return _by_matrix(c, x, axis, taken, weights, a)
    total = ""
    for tap in range(taken.shape[1]):
        shape = [a.out if i == axis else 1 for i in range(kind.rank)]
        weight = c.constant(weights[:, tap].reshape(shape).astype(kind.dtype.numpy))
        part = c.add("mul", c.add("gather", x, c.constant(taken[:, tap]), axis=axis), weight)
        total = c.add("add", total, part) if total else part
    return total


def _nearest(c: Call, x: str, axis: int, taken: np.ndarray) -> str:
    """Return the elements taken[out] along an axis: copies side by side where each is taken equally often."""
    shape = list(c.type(x).shape)
    times = len(taken) // max(shape[axis], 1)
    if not 1 < times <= REPEATS or not np.array_equal(taken, np.repeat(np.arange(shape[axis]), times)):
        return c.add("gather", x, c.constant(taken), axis=axis)
    one = c.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    repeated = c.add("concat", *[one] * times, axis=axis + 1)
    return c.reshape(repeated, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))


def _by_matrix(c: Call, x: str, axis: int, taken: np.ndarray, weights: np.ndarray, a: ResizeAxis) -> str:
    kind = c.type(x)
    bounded(a.size * a.out)
    matrix = np.zeros((a.size, a.out))
    np.add.at(matrix, (taken, np.arange(a.out)[:, None]), weights)
    last = kind.rank - 1
    perm = [i for i in range(kind.rank) if i != axis] + [axis]
    moved = c.add("transpose", x, perm=perm)
    result = c.add("matmul", moved, c.constant(matrix.astype(kind.dtype.numpy)))
    return c.add("transpose", result, perm=[*range(axis), last, *range(axis, last)])


def _sizes(c: Call, shape: tuple[int, ...], axes: list[int]) -> tuple[list[int], list[float]]:
    """Return the sizes of the result and the scales, along each of the axes."""
    inner = [shape[a] for a in axes]
    first = 1 if c.opset < 11 or c.op == "Upsample" else 2
    if c.has(3) and c.type(3).size:
        sizes = list(c.integers(3, "sizes"))
        _lengths(c, sizes, axes)
        ratios = [o / i for o, i in zip(sizes, inner, strict=True)]
        policy = c.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            return [int(ratio * i + 0.5) for i in inner], [ratio] * len(axes)
        return sizes, ratios
    given = c.attrs.get("scales")
    scales = [float(s) for s in (given if given is not None else c.known(first, "scales").reshape(-1))]
    _lengths(c, scales, axes)
    return [math.floor(i * s) for i, s in zip(inner, scales, strict=True)], scales


def _lengths(c: Call, values: list[int] | list[float], axes: list[int]) -> None:
    if len(values) != len(axes) or any(v <= 0 for v in values):
        raise UserError(f"{c.op} of {c.type(0)}: {values} are not a positive number for each of axes {axes}")


@onnx("Resize", "Upsample")
def _resize(c: Call) -> str:
    shape, mode = c.type(0).shape, c.attr("mode", "nearest")
    if mode not in MODES:
        raise Unsupported(f"its mode is {mode}")
    axes = [c.wrap(a, len(shape)) for a in c.attr("axes", ())] or list(range(len(shape)))
    old = c.opset < 11 or c.op == "Upsample"
    way = "asymmetric" if old else c.attr("coordinate_transformation_mode", "half_pixel")
    if old:
        c.attrs = {**c.attrs, "nearest_mode": "floor"}
    crops = way == "tf_crop_and_resize"
    roi = c.known(1, "roi").reshape(-1) if crops else np.zeros(0)
    if crops and len(roi) != 2 * len(axes):
        raise UserError(f"{c.op}: roi has {len(roi)} numbers, not two for each of {len(axes)} axes")
    kind = c.type(0).dtype
    x = c[0] if mode == "nearest" or kind.is_float else c.cast(c[0], "fp32")
    outside: list[tuple[int, np.ndarray]] = []
    sizes, scales = _sizes(c, shape, axes)
    for i, axis in enumerate(axes):
        start, end = (float(roi[i]), float(roi[i + len(axes)])) if crops else (0.0, 1.0)
        a = ResizeAxis(shape[axis], sizes[i], scales[i], start, end)
        bounded(max(a.size, a.out))
        at = _coordinates(way, a)
        if crops:
            outside.append((axis, (at < 0) | (at > a.size - 1)))
        if a.out != a.size or not np.array_equal(at, np.arange(a.size)):
            x = _resize_axis(c, x, axis, mode, at, a)
    for axis, out in (pair for pair in outside if pair[1].any()):
        mask = c.constant(out.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
        x = c.add("where", mask, c.scalar(c.attr("extrapolation_value", 0.0), x), x)
    return c.cast(x, kind.name)
