"""Standard operators with many options, against onnxruntime, over random configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.ops import reference
from node_cases import Case, Maker, Rng, byte, f32, hold, pick

pytest.importorskip("onnxruntime")
SEEDS = range(6)


def standard(op: str, results: int = 1, **attrs: Any) -> Case:
    """Return a case of the standard operator set."""
    return Case(op, results, "", **attrs)


def sizes(rng: Rng, low: int, high: int, count: int) -> list[int]:
    return [int(v) for v in rng.integers(low, high, count)]


def resize(rng: Rng) -> Case:
    mode = pick(rng, "nearest", "linear", "cubic")
    way = pick(rng, "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": way}
    if mode == "nearest":
        attrs["nearest_mode"] = pick(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if mode == "cubic":
        attrs |= {"exclude_outside": int(rng.integers(2)), "cubic_coeff_a": pick(rng, -0.5, -0.75)}
    x = f32(rng, 1, 2, *sizes(rng, 3, 7, 2))
    case = standard("Resize", 1, **attrs).give(x).give(None)
    if rng.integers(2):  # whole factors: in others onnxruntime takes sizes rounded, ONNX's formula does not
        scales = np.array([1, 1, *pick(rng, (2, 2), (2, 3), (3, 2))], np.float32)
        return case.give(scales, True)
    return case.give(None).give(np.array([1, 2, *sizes(rng, 2, 10, 2)], np.int64), True)


def resize_antialias(rng: Rng) -> Case:
    mode = pick(rng, "linear", "cubic")
    case = standard("Resize", 1, mode=mode, antialias=1, exclude_outside=int(rng.integers(2)))
    size = np.array([1, 2, *sizes(rng, 2, 6, 2)], np.int64)
    return case.give(f32(rng, 1, 2, 9, 11)).give(None).give(None).give(size, True)


def upsample(rng: Rng) -> Case:
    case = standard("Upsample", 1, mode=pick(rng, "nearest", "linear"))
    case.opset = 9
    return case.give(f32(rng, 1, 2, 3, 4)).give(
        np.array([1, 1, *pick(rng, (2, 3), (2, 2))], np.float32), True
    )


def _window(rng: Rng, rank: int) -> dict[str, Any]:
    attrs: dict[str, Any] = {"kernel_shape": sizes(rng, 1, 4, rank), "strides": sizes(rng, 1, 3, rank)}
    if rng.integers(2):
        attrs["auto_pad"] = pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID")
    else:
        attrs["pads"] = [int(rng.integers(0, k)) for k in attrs["kernel_shape"] * 2]
        attrs["dilations"] = sizes(rng, 1, 3, rank)
    return attrs


def max_pool(rng: Rng) -> Case:
    rank = pick(rng, 1, 2, 3)
    attrs = _window(rng, rank) | {"ceil_mode": int(rng.integers(2))}
    return standard("MaxPool", pick(rng, 1, 2), **attrs).give(f32(rng, 2, 2, *sizes(rng, 6, 9, rank)))


def average_pool(rng: Rng) -> Case:
    rank = pick(rng, 1, 2, 3)
    attrs = _window(rng, rank) | {"count_include_pad": int(rng.integers(2))}
    return standard("AveragePool", 1, **attrs).give(f32(rng, 2, 2, *sizes(rng, 6, 9, rank)))


def lp_pool(rng: Rng) -> Case:
    attrs = _window(rng, 2) | {"p": pick(rng, 1, 2, 3)}
    return standard("LpPool", 1, **attrs).give(f32(rng, 2, 2, 7, 8))


def conv(rng: Rng) -> Case:
    rank, groups = pick(rng, 1, 2), pick(rng, 1, 2)
    attrs = _window(rng, rank) | {"group": groups}
    case = standard("Conv", 1, **attrs).give(f32(rng, 2, 2 * groups, *sizes(rng, 6, 9, rank)))
    case.give(f32(rng, 3 * groups, 2, *attrs["kernel_shape"]))
    return case.give(f32(rng, 3 * groups) if rng.integers(2) else None)


def conv_transpose(rng: Rng) -> Case:
    rank, groups = pick(rng, 1, 2), pick(rng, 1, 2)
    kernel, strides = sizes(rng, 1, 4, rank), sizes(rng, 1, 4, rank)
    attrs: dict[str, Any] = {"strides": strides, "dilations": sizes(rng, 1, 3, rank), "group": groups}
    attrs["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
    attrs["output_padding"] = [int(rng.integers(0, s)) for s in strides]
    case = standard("ConvTranspose", 1, **attrs).give(f32(rng, 2, 2 * groups, *sizes(rng, 4, 7, rank)))
    case.give(f32(rng, 2 * groups, 3, *kernel))
    return case.give(f32(rng, 3 * groups) if rng.integers(2) else None)


def conv_integer(rng: Rng) -> Case:
    known, zero = bool(rng.integers(2)), pick(rng, 0, 99)  # DynamicQuantizeLinear gives one that is not known
    case = standard("ConvInteger", 1, pads=[1, 1, 1, 1], strides=sizes(rng, 1, 3, 2))
    case.give(byte(rng, np.uint8, 1, 2, 6, 7)).give(byte(rng, np.uint8, 3, 2, 3, 3))
    return case.give(np.uint8(120), known).give(np.uint8(zero), True)


def q_linear_conv(rng: Rng) -> Case:
    many, groups, rank = bool(rng.integers(2)), pick(rng, 1, 1, 2, 4), pick(rng, 1, 2, 3)
    attrs = _window(rng, rank) | {"group": groups}
    signed, zero = pick(rng, np.uint8, np.int8), pick(rng, 0, 9)
    case = standard("QLinearConv", 1, **attrs).give(byte(rng, signed, 2, 2 * groups, *sizes(rng, 6, 9, rank)))
    case.give(np.float32(0.03), True).give(byte(rng, signed), True)
    case.give(byte(rng, np.int8, 3 * groups, 2, *attrs["kernel_shape"]), True)
    scales = rng.uniform(0.01, 0.03, 3 * groups if many else ()).astype(np.float32)
    case.give(scales, True).give(np.full(scales.shape, zero, np.int8), True)
    case.give(np.float32(0.4), True).give(byte(rng, signed), True)
    case.steps = 1
    bias = rng.integers(-500, 500, 3 * groups).astype(np.int32)
    return case.give(bias if rng.integers(2) else None, True)


def grid_sample(rng: Rng) -> Case:
    mode = pick(rng, "linear", "nearest", "cubic")
    attrs = {
        "padding_mode": pick(rng, "zeros", "border", "reflection"),
        "align_corners": int(rng.integers(2)),
    }
    case = standard("GridSample", 1, mode=mode, **attrs).give(f32(rng, 2, 3, 5, 6))
    return case.give((rng.uniform(-1.3, 1.3, (2, 4, 3, 2))).astype(np.float32))


def roi_align(rng: Rng) -> Case:
    mode = pick(rng, "avg", "max")
    attrs = {"sampling_ratio": pick(rng, 1, 2), "spatial_scale": pick(rng, 1.0, 0.5), "mode": mode}
    way = pick(rng, "half_pixel", "output_half_pixel")
    case = standard(
        "RoiAlign", 1, output_height=2, output_width=3, coordinate_transformation_mode=way, **attrs
    )
    corners = rng.uniform(0, 5, (4, 2)).astype(np.float32)
    regions = np.concatenate([corners, corners + rng.uniform(1, 6, (4, 2)).astype(np.float32)], axis=1)
    return case.give(f32(rng, 2, 2, 9, 10)).give(regions).give(rng.integers(0, 2, 4).astype(np.int64))


def _recurrent(rng: Rng, op: str, gates: int, states: int, **extra: Any) -> Case:
    way = pick(rng, "forward", "reverse", "bidirectional")
    ways, hidden, width, batch, length = (2 if way == "bidirectional" else 1), 3, 4, 2, 5
    if rng.integers(2):
        extra["clip"] = 0.5
    case = standard(op, 1 + states, hidden_size=hidden, direction=way, **extra)
    case.give(f32(rng, length, batch, width)).give(f32(rng, ways, gates * hidden, width))
    case.give(f32(rng, ways, gates * hidden, hidden)).give(
        f32(rng, ways, 2 * gates * hidden) if rng.integers(2) else None
    )
    case.give(rng.integers(0, length + 1, batch).astype(np.int32) if rng.integers(2) else None)
    for _ in range(states):
        case.give(f32(rng, ways, batch, hidden) if rng.integers(2) else None)
    if op == "LSTM":
        case.give(f32(rng, ways, 3 * hidden) if rng.integers(2) else None)
    return case


def lstm(rng: Rng) -> Case:
    return _recurrent(rng, "LSTM", 4, 2, input_forget=int(rng.integers(2)))


def gru(rng: Rng) -> Case:
    return _recurrent(rng, "GRU", 3, 1, linear_before_reset=int(rng.integers(2)))


def rnn(rng: Rng) -> Case:
    return _recurrent(rng, "RNN", 1, 1)


def dft(rng: Rng) -> Case:
    parts, onesided = pick(rng, 1, 2), 0
    if parts == 1:
        onesided = int(rng.integers(2))
    case = standard("DFT", 1, inverse=0 if onesided else int(rng.integers(2)), onesided=onesided)
    case.give(f32(rng, 2, 6, 5, parts))
    case.give(np.asarray(pick(rng, 4, 5, 8), np.int64) if rng.integers(2) else None, True)
    case.tolerance = 1e-4
    return case.give(np.asarray(pick(rng, 1, 2, -2), np.int64), True)


def stft(rng: Rng) -> Case:
    case = standard("STFT", 1, onesided=int(rng.integers(2))).give(f32(rng, 2, 20, 1))
    case.tolerance = 1e-4
    return case.give(np.asarray(3, np.int64), True).give(f32(rng, 8)).give(np.asarray(8, np.int64), True)


def lrn(rng: Rng) -> Case:
    return standard("LRN", 1, size=pick(rng, 1, 3, 5), alpha=0.3, beta=0.6, bias=2.0).give(
        f32(rng, 2, 6, 3, 4)
    )


def reverse_sequence(rng: Rng) -> Case:
    time = int(rng.integers(2))
    case = standard("ReverseSequence", 1, time_axis=time, batch_axis=1 - time).give(f32(rng, 4, 4, 3))
    return case.give(rng.integers(1, 5, 4).astype(np.int64))


def bit_shift(rng: Rng) -> Case:
    case = standard("BitShift", 1, direction=pick(rng, "LEFT", "RIGHT")).give(byte(rng, np.uint8, 3, 4))
    return case.give(rng.integers(0, 8, 4).astype(np.uint8))


def dequantize_blocks(rng: Rng) -> Case:
    axis = pick(rng, 0, 1)
    shape = [8, 8]
    shape[axis] //= 4
    case = standard("DequantizeLinear", 1, axis=axis, block_size=4).give(byte(rng, np.int8, 8, 8))
    case.give(rng.uniform(0.1, 1, shape).astype(np.float32))
    return case.give(byte(rng, np.int8, *shape) if rng.integers(2) else None)


def quantize_blocks(rng: Rng) -> Case:
    case = standard("QuantizeLinear", 1, axis=1, block_size=4).give(f32(rng, 3, 8))
    case.steps = 1
    return case.give(rng.uniform(0.01, 0.1, (3, 2)).astype(np.float32)).give(byte(rng, np.uint8, 3, 2))


def max_unpool(rng: Rng) -> Case:
    picks = rng.integers(0, 2, (1, 1, 2, 2, 2))
    rows, columns = (np.arange(2) * 2)[:, None] + picks[..., 0], np.arange(2) * 2 + picks[..., 1]
    case = standard("MaxUnpool", 1, kernel_shape=[2, 2], strides=[2, 2]).give(f32(rng, 1, 1, 2, 2))
    return case.give((rows * 4 + columns).astype(np.int64))


def col2im(rng: Rng) -> Case:
    case = standard("Col2Im", 1, pads=[1, 0, 0, 1], strides=[1, 2]).give(f32(rng, 2, 3 * 4, 5 * 3))
    return case.give(np.array([5, 5], np.int64), True).give(np.array([2, 2], np.int64), True)


def einsum(rng: Rng) -> Case:
    equation, shapes = pick(
        rng,
        ("...ii->...i", [(2, 3, 3)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("bi,bj,bk->bijk", [(2, 3), (2, 4), (2, 5)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
        ("b...,b...->b", [(2, 3, 4), (2, 3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("bhk,bdk->bdh", [(2, 3, 4), (2, 5, 4)]),
        ("iij,j->i", [(3, 3, 4), (4,)]),
        ("i,j->ij", [(3,), (4,)]),
    )
    case = standard("Einsum", 1, equation=equation)
    for shape in shapes:
        case.give(f32(rng, *shape))
    return case


MAKERS: list[Maker] = [
    average_pool,
    bit_shift,
    col2im,
    conv,
    conv_integer,
    conv_transpose,
    dequantize_blocks,
    dft,
    einsum,
    grid_sample,
    gru,
    lp_pool,
    lrn,
    lstm,
    max_pool,
    max_unpool,
    q_linear_conv,
    quantize_blocks,
    resize,
    resize_antialias,
    reverse_sequence,
    rnn,
    roi_align,
    stft,
    upsample,
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_computes_what_onnxruntime_does(make: Maker, seed: int, tmp_path: Path) -> None:
    hold(make, seed, tmp_path / "m.onnx")


def test_a_cubic_grid_sees_beyond_the_border() -> None:
    """Places outside are not moved to the border before neighbours are weighed: each neighbour is."""
    x = np.arange(4.0, dtype=np.float32).reshape(1, 1, 1, 4)
    x = np.broadcast_to(x, (1, 1, 4, 4)).copy()
    grid = np.array([[[[1.2, 0.0]]]], np.float32)
    (out,) = reference(
        "grid_sample", [x, grid], {"mode": "cubic", "padding": "border", "align_corners": True}
    )
    weight = -0.75 * (
        1.3**3 - 5 * 1.3**2 + 8 * 1.3 - 4
    )  # Keys' kernel at 1.3, of the neighbour whose value is 2
    assert out.item() == pytest.approx(3.0 - weight)
