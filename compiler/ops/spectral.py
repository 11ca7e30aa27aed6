"""Fourier transforms of static length, as products with a matrix of cosines and sines."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError

from .convolve import LARGEST
from .onnx_types import DTYPE_OF_ONNX
from .shapes import take
from .spelling import Call, Unsupported, bounded, onnx


def _matrix(length: int, points: int, inverse: bool, kind: np.dtype) -> np.ndarray:
    """Return [2*length, 2*points]: rows are the real, then the imaginary parts of the operand."""
    angle = 2 * np.pi * np.outer(np.arange(length), np.arange(points)) / length
    cos, sin = np.cos(angle), np.sin(angle)
    if inverse:
        cos, sin = cos / length, -sin / length
    return np.block([[cos, -sin], [sin, cos]]).astype(kind)


def _half_inverse(length: int, points: int, kind: np.dtype) -> np.ndarray:
    """Return [2*points, length]: the real signal whose first spectrum points are the operand's."""
    angle = 2 * np.pi * np.outer(np.arange(points), np.arange(length)) / length
    twice = np.where((np.arange(points) == 0) | (2 * np.arange(points) == length), 1.0, 2.0)[:, None]
    return np.concatenate([twice * np.cos(angle), -twice * np.sin(angle)]).astype(kind) / length


def transform(c: Call, x: str, length: int, *, inverse: bool = False, onesided: bool = False) -> str:
    """Return the transform over the axis before the last of x[.., n, 1 or 2], cut or padded to `length`.

    A one-sided one gives the first half of the spectrum; its inverse takes that and gives a real signal.
    """
    shape = c.type(x).shape
    if shape[-1] not in (1, 2) or length < 1:
        raise UserError(f"{c.op} of {c.type(x)} to length {length}: the last axis must be 1 or 2")
    half, kind = length // 2 + 1, c.type(x).dtype.numpy
    given, points = (half if onesided and inverse else length), (half if onesided and not inverse else length)
    if 4 * length * points > LARGEST:
        raise Unsupported(f"its matrix would have more than {LARGEST} elements")
    axis = len(shape) - 2
    rows = _split(c, _resized(c, x, axis, given))
    rows = c.reshape(rows, (*shape[:axis], shape[-1] * given))
    real = onesided and inverse
    matrix = _half_inverse(length, given, kind) if real else _matrix(length, points, inverse, kind)
    result = c.add("matmul", rows, c.constant(matrix[: shape[-1] * given]))
    return _split(c, c.reshape(result, (*shape[:axis], 1 if real else 2, points)))


def _resized(c: Call, x: str, axis: int, length: int) -> str:
    """Return x cut, or padded with zeros, to a length along one axis."""
    size, rank = c.type(x).shape[axis], c.type(x).rank
    pads = [0] * rank + [max(length - size, 0) if i == axis else 0 for i in range(rank)]
    return c.add("pad", take(c, x, axis, 0, min(length, size)), pads=pads, value=0.0)


def _split(c: Call, x: str) -> str:
    """Return x with its last two axes exchanged."""
    rank = c.type(x).rank
    return c.add("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


@onnx("DFT")
def _dft(c: Call) -> str:
    rank = c.type(0).rank
    if c.opset >= 20:
        axis = c.wrap(int(c.known(2, "axis").reshape(())) if c.has(2) else -2, rank)
    else:
        axis = c.axis(1)
    if axis == rank - 1:
        raise UserError(f"{c.op}: axis {axis} holds the parts of complex numbers")
    flags = {name: bool(c.attr(name, 0)) for name in ("inverse", "onesided")}
    size = c.type(0).shape[axis]
    natural = 2 * (size - 1) if all(flags.values()) else size
    length = int(c.known(1, "dft_length").reshape(())) if c.has(1) else natural
    perm = [i for i in range(rank) if i not in (axis, rank - 1)] + [axis, rank - 1]
    moved = c.add("transpose", c[0], perm=perm)
    back = [perm.index(i) for i in range(rank)]
    return c.add("transpose", transform(c, moved, length, **flags), perm=back)


@onnx("STFT")
def _stft(c: Call) -> str:
    batch, size, parts = c.type(0).shape if c.type(0).rank == 3 else (*c.type(0).shape, 1)
    step = int(c.known(1, "frame_step").reshape(()))
    window = c.type(2).shape[0] if c.has(2) else 0
    length = int(c.known(3, "frame_length").reshape(())) if c.has(3) else window
    if step < 1 or not 1 <= length <= size:
        raise UserError(f"STFT of {c.type(0)} by frames of {length}, {step} apart")
    frames = (size - length) // step + 1
    bounded(frames * length)
    index = np.arange(frames)[:, None] * step + np.arange(length)
    x = c.add("gather", c.reshape(c[0], (batch, size, parts)), c.constant(index.astype(np.int64)), axis=1)
    if window:
        x = c.add("mul", x, c.reshape(c[2], (window, 1)))
    return transform(c, x, length, onesided=bool(c.attr("onesided", 1)))


@onnx("MelWeightMatrix")
def _mel(c: Call) -> str:
    """Return triangles between bins that are evenly spaced in mel; formulas of ONNX's MelWeightMatrix."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")
    bins, length, rate, low, high = (c.known(i, name).reshape(())[()] for i, name in enumerate(names))
    spectrum = int(length) // 2 + 1
    if spectrum * int(bins) > LARGEST:
        raise Unsupported(f"it has more than {LARGEST} elements")
    edges = 2595 * np.log10(1 + np.array([low, high]) / 700)
    mel = edges[0] + np.arange(int(bins) + 2) * (edges[1] - edges[0]) / (int(bins) + 2)
    at = ((int(length) + 1) * (700 * (10 ** (mel / 2595) - 1)) // rate).astype(np.int64)
    out = np.zeros((spectrum, int(bins)))
    for i in range(int(bins)):
        left, centre, right = at[i : i + 3]
        out[left:centre, i] = (np.arange(left, centre) - left) / max(centre - left, 1)
        out[centre:right, i] = (right - np.arange(centre, right)) / max(right - centre, 1)
        out[centre, i] = 1.0
    kind = DTYPE_OF_ONNX.get(c.attr("output_datatype", 1))
    if kind is None:
        raise Unsupported("its output_datatype is none of ours")
    return c.constant(out.astype(kind.numpy))


@onnx("HannWindow", "HammingWindow", "BlackmanWindow")
def _window(c: Call) -> str:
    size = int(c.known(0, "size").reshape(()))
    kind = DTYPE_OF_ONNX.get(c.attr("output_datatype", 1))
    if kind is None or not 0 <= size <= LARGEST:
        raise Unsupported(f"it is of {size} elements, or of a type that we do not have")
    terms = {
        "HannWindow": (0.5, 0.5),
        "HammingWindow": (25 / 46, 21 / 46),
        "BlackmanWindow": (0.42, 0.5, 0.08),
    }
    angle = 2 * np.pi * np.arange(size) / (size if c.attr("periodic", 1) else max(size - 1, 1))
    wave = sum((-1) ** i * a * np.cos(i * angle) for i, a in enumerate(terms[c.op]))
    return c.constant(np.asarray(wave).astype(kind.numpy))
