"""Sampling at places that only the data tell: run on the scalar core."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Attrs
from .backward import no_gradient
from .base import (
    Array,
    Arrays,
    Op,
    Types,
    array,
    integer,
    integers,
    need,
    number,
    register,
    vector,
    wide,
    word,
)
from .convolve import window
from .spelling import Call, Unsupported, onnx

PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75  # Keys' constant, by ONNX's GridSample


def _reflect(at: Array, low: float, high: float) -> Array:
    """Return places of any shape mirrored at both ends until they lie between them."""
    span = high - low
    if span <= 0:
        return np.zeros_like(at)
    cycle = np.mod(at - low, 2 * span)
    return low + np.where(cycle > span, 2 * span - cycle, cycle)


def pick(x: Array, at: list[Array], padding: str, corners: bool) -> Array:
    """Return x[c, *spatial] at whole places, a list per spatial axis; outside by the rule of padding."""
    inside, index = np.ones(at[0].shape, bool), []
    for size, places in zip(x.shape[1:], at, strict=True):
        if padding == "reflection":
            low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
            places = _reflect(places, low, high)
        inside &= (places >= 0) & (places <= size - 1) | (padding != "zeros")
        index.append(np.clip(np.nan_to_num(places), 0, size - 1).astype(np.int64))
    return np.where(inside, x[(slice(None), *index)], 0)


def _taps(at: Array, mode: str) -> list[tuple[Array, Array]]:
    """Return the neighbours of places along one axis, with their weights, each of the places' shape."""
    low = np.floor(at)
    part = at - low
    if mode == "linear":
        return [(low, 1 - part), (low + 1, part)]
    near = lambda d: (CUBIC + 2) * d**3 - (CUBIC + 3) * d**2 + 1  # noqa: E731
    far = lambda d: CUBIC * (d**3 - 5 * d**2 + 8 * d - 4)  # noqa: E731
    weights = [far(part + 1), near(part), near(1 - part), far(2 - part)]
    return [(low + i - 1, w) for i, w in enumerate(weights)]


def interpolate(x: Array, at: list[Array], mode: str, padding: str, corners: bool) -> Array:
    """Return x[c, *spatial] at fractional places: nearest (halves to even), linear or cubic."""
    if mode == "nearest":
        return pick(x, [np.rint(a) for a in at], padding, corners)
    total = np.zeros((x.shape[0], *at[0].shape), x.dtype)
    for corner in itertools.product(*(_taps(a, mode) for a in at)):
        weight = math.prod((w for _, w in corner), start=np.ones((), x.dtype))
        total = total + pick(x, [p for p, _ in corner], padding, corners) * weight
    return total


def _infer_grid(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, grid = need(types[0]), need(types[1])
    word(attrs, "mode", "linear", ("linear", "nearest", "cubic"))
    word(attrs, "padding", "zeros", PADDINGS)
    if x.rank < 3 or grid.rank != x.rank or grid.shape[-1] != x.rank - 2 or grid.shape[0] != x.shape[0]:
        raise UserError(f"a grid {grid} does not say where to sample {x}")
    return (TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1])),)


def _grid_sample(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, grid = wide(array(arrays[0])), wide(array(arrays[1]))
    corners, padding = bool(attrs.get("align_corners", False)), str(attrs.get("padding", "zeros"))
    size, rows = x.shape[2:], []
    for image, places in zip(x, grid, strict=True):
        at = []
        for axis, length in enumerate(size):
            where = places[..., len(size) - 1 - axis]  # x first, then y
            at.append((where + 1) / 2 * (length - 1) if corners else ((where + 1) * length - 1) / 2)
        rows.append(interpolate(image, at, str(attrs.get("mode", "linear")), padding, corners))
    return (np.stack(rows).astype(array(arrays[0]).dtype),)


def _infer_roi(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, rois, which = (need(t) for t in types)
    size = integers(attrs, "size")
    if x.rank != 4 or rois.shape[1:] != (4,) or which.shape != rois.shape[:1] or len(size) != 2:
        raise UserError(f"regions {rois} of images {which} do not fit {x}")
    return (TensorType(x.dtype, (rois.shape[0], x.shape[1], *size)),)


def _bins(start: float, end: float, count: int, ratio: int, exact: bool) -> Array:
    """Return the places [count, samples] at which a region's bins are sampled along one axis."""
    length = end - start if exact else max(end - start, 1.0)
    samples = ratio if ratio > 0 else max(math.ceil(length / count), 1)
    step = length / count
    return start + step * (np.arange(count)[:, None] + (np.arange(samples) + 0.5) / samples)


def _roi_align(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, rois, which = wide(array(arrays[0])), wide(array(arrays[1])), array(arrays[2])
    size, ratio, scale = integers(attrs, "size"), integer(attrs, "ratio", 0), number(attrs, "scale", 1.0)
    exact = bool(attrs.get("half_pixel", True))
    out = np.zeros((len(rois), x.shape[1], *size), x.dtype)
    for i, (region, image) in enumerate(zip(rois, which, strict=True)):
        if not 0 <= image < len(x):
            raise UserError(f"image {image} is not one of {len(x)}")
        x1, y1, x2, y2 = region * scale - (0.5 if exact else 0.0)
        ys, xs = _bins(y1, y2, size[0], ratio, exact), _bins(x1, x2, size[1], ratio, exact)
        at = np.broadcast_arrays(ys[:, None, :, None], xs[None, :, None, :])
        out[i] = _pooled(x[image], at, bool(attrs.get("largest", False)))
    return (out.astype(array(arrays[0]).dtype),)


def _pooled(image: Array, at: Sequence[Array], largest: bool) -> Array:
    """Return the mean (or largest share) of samples [h, w, sh, sw]; beyond an image's edge they are 0."""
    limits = image.shape[1:]
    inside = np.logical_and(*((a >= -1) & (a <= n) for a, n in zip(at, limits, strict=True)))
    held = [np.clip(a, 0, n - 1) for a, n in zip(at, limits, strict=True)]
    if not largest:
        values = interpolate(image, held, "linear", "border", True) * inside
        return values.mean(axis=(-1, -2))
    parts = []
    for corner in itertools.product(*(_taps(a, "linear") for a in held)):
        weight = math.prod((w for _, w in corner), start=np.ones(()))
        parts.append(pick(image, [p for p, _ in corner], "border", True) * weight * inside)
    return np.max(parts, axis=0).max(axis=(-1, -2))


def _infer_deform(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, offset = need(types[0]), need(types[1])
    kernel, groups = integers(attrs, "kernel"), integer(attrs, "groups")
    taps, out = math.prod(kernel), offset.shape[2:]
    fits = offset.rank == 4 and offset.shape[:2] == (x.shape[0], 2 * groups * taps)
    mask = types[2] if len(types) > 2 else None
    if mask is not None:
        fits &= mask.shape == (x.shape[0], groups * taps, *out)
    if x.rank != 4 or groups < 1 or x.shape[1] % groups or not fits:
        raise UserError(f"offsets {offset} (mask {mask}) of a kernel {list(kernel)} do not fit {x}")
    return (TensorType(x.dtype, (*x.shape[:2], taps, *out)),)


def _deform(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, offset = wide(array(arrays[0])), wide(array(arrays[1]))
    kernel, groups = integers(attrs, "kernel"), integer(attrs, "groups")
    n, out = x.shape[0], offset.shape[2:]
    moves = offset.reshape(n, groups, math.prod(kernel), 2, *out)
    grid = [np.indices(out)[a] * integers(attrs, "strides")[a] - integers(attrs, "before")[a] for a in (0, 1)]
    taps = [
        np.indices(kernel)[a].reshape(-1, 1, 1) * integers(attrs, "dilations")[a] + grid[a] for a in (0, 1)
    ]
    columns = np.zeros((n, groups, x.shape[1] // groups, len(taps[0]), *out), x.dtype)
    for i, g in np.ndindex(n, groups):
        image = x[i].reshape(groups, -1, *x.shape[2:])[g]
        at = [taps[a] + moves[i, g, :, a] for a in (0, 1)]
        columns[i, g] = interpolate(image, at, "linear", "zeros", True)
    if len(arrays) > 2:
        columns *= wide(array(arrays[2])).reshape(n, groups, 1, -1, *out)
    return (columns.reshape(n, x.shape[1], -1, *out).astype(array(arrays[0]).dtype),)


for _op in (
    Op(
        "deform_columns",
        "what each place of a kernel sees of x when moved by offsets, times mask?",
        (2, 3),
        _infer_deform,
        _deform,
        vector(8),
        ("before", "dilations", "groups", "kernel", "strides"),
    ),
    Op(
        "grid_sample",
        "x[n,c,..] at places of a grid [n,..,d], from -1 to 1",
        (2, 2),
        _infer_grid,
        _grid_sample,
        vector(8),
        (),
        ("align_corners", "mode", "padding"),
    ),
    Op(
        "roi_align",
        "mean (or largest) of samples in regions of x: x, regions, image of each",
        (3, 3),
        _infer_roi,
        _roi_align,
        vector(8),
        ("size",),
        ("half_pixel", "largest", "ratio", "scale"),
    ),
):
    register(_op)


@onnx("GridSample")
def _spell_grid(c: Call) -> str:
    mode = c.attr("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if mode == "cubic" and c.type(0).rank != 4:
        raise Unsupported("it is cubic in more than two dimensions")
    return c.add(
        "grid_sample",
        c[0],
        c[1] if c.type(1).dtype == c.type(0).dtype else c.cast(c[1], c.type(0).dtype.name),
        mode=mode,
        padding=c.attr("padding_mode", "zeros"),
        align_corners=bool(c.attr("align_corners", 0)),
    )


@onnx("RoiAlign")
def _spell_roi(c: Call) -> str:
    way = c.attr("coordinate_transformation_mode", "half_pixel" if c.opset >= 16 else "output_half_pixel")
    return c.add(
        "roi_align",
        c[0],
        c[1],
        c[2],
        size=(c.attr("output_height", 1), c.attr("output_width", 1)),
        ratio=c.attr("sampling_ratio", 0),
        scale=c.attr("spatial_scale", 1.0),
        largest=c.attr("mode", "avg") == "max",
        half_pixel=way == "half_pixel",
    )


@onnx("DeformConv")
def _spell_deform(c: Call) -> str:
    """Return the product of the kernel and the columns that the moved places see."""
    weight, groups = c.type(1), c.attr("group", 1)
    w = window(c, c.attr("kernel_shape", weight.shape[2:]))
    if c.type(2).shape[2:] != w.out or c.type(0).shape[1] != groups * weight.shape[1]:
        raise UserError(f"{c.op}: {c.type(1)} and offsets {c.type(2)} do not fit {c.type(0)}")
    moved = [c[2]] + ([c[4]] if c.has(4) else [])
    attrs = {"kernel": w.kernel, "strides": w.strides, "dilations": w.dilations, "before": w.before}
    columns = c.add("deform_columns", c[0], *moved, groups=c.attr("offset_group", 1), **attrs)
    n, outputs, inner = c.type(0).shape[0], weight.shape[0], weight.shape[1] * math.prod(w.kernel)
    matrix = c.reshape(columns, (n, groups, inner, math.prod(w.out)))
    kernel = c.reshape(c[1], (1, groups, outputs // groups, inner))
    bias = c.reshape(c[3], (1, groups, outputs // groups, 1)) if c.has(3) else ""
    return c.reshape(c.add("matmul", kernel, matrix, bias), (n, outputs, *w.out))


no_gradient("no rule is written for places between elements", "deform_columns", "grid_sample", "roi_align")
