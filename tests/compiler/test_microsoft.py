"""Operators of onnxruntime's own domain, against its own kernels, over random configurations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.ops.attention import rows_held
from node_cases import Array, Case, Maker, Rng, byte, f32, hold, pick, positive

pytest.importorskip("onnxruntime")
SEEDS = range(6)


@dataclass(frozen=True)
class Grouped:
    """The sizes of one grouped-query attention: `used` rows of `room` are in the cache, by sequence."""

    batch: int
    groups: int
    heads: int
    size: int
    new: int
    past: int
    room: int
    used: Array

    @property
    def ends(self) -> Array:
        """Return how many rows each sequence has when the new ones are there."""
        return self.used + self.new if self.past else self.used


def _grouped(rng: Rng) -> Grouped:
    """Return random sizes: a prompt that is padded on the right, or one token after a cache."""
    batch, groups, per = (int(v) for v in rng.integers(1, 4, 3))
    prompt = bool(rng.integers(2))
    past, new = (0, int(rng.integers(1, 6))) if prompt else (int(rng.integers(3, 9)), 1)
    used = rng.integers(1, (new if prompt else past) + 1, batch)
    used[rng.integers(batch)] = new if prompt else past  # the longest has no padding
    room = past + (4 if not prompt and rng.integers(2) else 0)
    return Grouped(batch, groups, groups * per, pick(rng, 8, 16), new, past, room, used)


def group_query_attention(rng: Rng) -> Case:
    at, rotary = _grouped(rng), bool(rng.integers(2))
    case = Case(
        "GroupQueryAttention",
        3,
        num_heads=at.heads,
        kv_num_heads=at.groups,
        do_rotary=int(rotary),
        rotary_interleaved=int(rng.integers(2)),
        local_window_size=pick(rng, -1, 3),
        softcap=pick(rng, 0.0, 5.0),
        smooth_softmax=pick(rng, 0, 1),
        scale=pick(rng, 0.0, 0.3),
    )
    parts = [f32(rng, at.batch, at.new, n * at.size) for n in (at.heads, at.groups, at.groups)]
    for part in [np.concatenate(parts, axis=-1), None, None] if rng.integers(2) else parts:
        case.give(part)
    for _ in range(2):
        case.give(f32(rng, at.batch, at.groups, at.room, at.size) if at.past else None)
    case.give((at.ends - 1).astype(np.int32)).give(np.asarray(at.past + at.new, np.int32), True)
    for _ in range(2):
        case.give(f32(rng, 32, at.size // 2) if rotary else None)
    # onnxruntime counts on from the first position of the first sequence, whatever the others say
    places = np.broadcast_to(rng.integers(0, 20) + np.arange(at.new), (at.batch, at.new)).astype(np.int64)
    case.give(places if rotary and rng.integers(2) else None)
    bias = f32(rng, pick(rng, 1, at.batch), pick(rng, 1, at.heads), at.new, at.past + at.new)
    case.give(bias if at.room == at.past and rng.integers(2) else None)
    case.give(f32(rng, at.heads) if rng.integers(2) else None)
    case.ends = at.ends
    if not at.past:
        case.rows = np.arange(at.new) < at.ends[:, None]
    return case


def sliding_cache(rng: Rng) -> Case:
    window, added = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    room, total = window + int(rng.integers(0, 5)), added + int(rng.integers(0, 20))
    rotary = bool(rng.integers(2))
    case = Case(
        "GroupQueryAttention",
        3,
        num_heads=4,
        kv_num_heads=2,
        do_rotary=int(rotary),
        local_window_size=window,
        sliding_window_cache=1,
    )
    for heads in (4, 2, 2):
        case.give(f32(rng, 1, added, heads * 16))
    for _ in range(2):
        case.give(f32(rng, 1, 2, room, 16))
    case.give(np.asarray([total - 1], np.int32)).give(np.asarray(total, np.int32), True)
    for _ in range(2 if rotary else 0):
        case.give(f32(rng, 32, 8))
    held = rows_held(total, room, window)
    case.ends = np.asarray([held])
    return case


def mixture_of_experts(rng: Rng) -> Case:
    rows, experts, size, inner = int(rng.integers(1, 6)), int(rng.integers(2, 9)), 8, 6
    kind = pick(rng, "relu", "gelu", "silu", "identity", "swiglu")
    attrs: dict[str, Any] = {"activation_type": kind, "k": int(rng.integers(1, min(experts, 3) + 1))}
    if kind == "swiglu":
        attrs |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0}
        attrs |= {"swiglu_limit": 1.5} if rng.integers(2) else {}
    case = Case("MoE", 1, normalize_routing_weights=int(rng.integers(2)), **attrs)
    case.give(f32(rng, rows, size)).give(f32(rng, rows, experts))
    wide, shifted = inner * (2 if kind == "swiglu" else 1), bool(rng.integers(2))
    for low, high in ((size, wide), (inner, size)):
        case.give(f32(rng, experts, high, low)).give(f32(rng, experts, high) if shifted else None)
    return case


def packed_experts(rng: Rng) -> Case:
    rows, experts, size, inner = int(rng.integers(1, 6)), int(rng.integers(2, 9)), 32, 64
    bits = pick(rng, 4, 8)
    block = pick(rng, 0, 16, 32) if bits == 4 else 0  # of 8 bits by blocks onnxruntime rounds rows too
    kind = pick(rng, "relu", "silu", "swiglu")
    attrs: dict[str, Any] = {"activation_type": kind, "k": int(rng.integers(1, min(experts, 3) + 1))}
    attrs |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0} if kind == "swiglu" else {}
    attrs |= {"block_size": block} if block else {}
    case = Case("QMoE", 1, expert_weight_bits=bits, normalize_routing_weights=1, **attrs)
    case.give(f32(rng, rows, size)).give(f32(rng, rows, experts))
    wide, shifted = inner * (2 if kind == "swiglu" else 1), bool(rng.integers(2))
    for low, high in ((size, wide), (inner, size)):
        case.give(rng.integers(0, 256, (experts, high, low * bits // 8)).astype(np.uint8), True)
        scale = np.abs(f32(rng, experts, high, *((low // block,) if block else ()))) / (1 << bits)
        case.give(scale, True).give(f32(rng, experts, high) if shifted else None)
    return case


def causal_conv_with_state(rng: Rng) -> Case:
    channels, taps = int(rng.integers(1, 5)), int(rng.integers(2, 5))
    case = Case("CausalConvWithState", 2, activation=pick(rng, "none", "silu"))
    case.give(f32(rng, 2, channels, int(rng.integers(1, 6)))).give(f32(rng, channels, 1, taps))
    case.give(f32(rng, channels) if rng.integers(2) else None)
    return case.give(f32(rng, 2, channels, taps - 1) if rng.integers(2) else None)


def multi_head_attention(rng: Rng) -> Case:
    batch, heads, size = int(rng.integers(1, 3)), int(rng.integers(1, 4)), pick(rng, 4, 8)
    queries, past = int(rng.integers(1, 5)), pick(rng, 0, 3)
    keys = queries if past else int(rng.integers(1, 6))
    causal = bool(rng.integers(2)) and keys == queries
    case = Case(
        "MultiHeadAttention",
        3 if past else 1,
        num_heads=heads,
        unidirectional=int(causal),
        scale=pick(rng, 0.0, 0.2),
        mask_filter_value=pick(rng, -10000.0, -50.0),
    )
    for length in (queries, keys, keys):
        case.give(f32(rng, batch, length, heads * size))
    total = past + keys
    case.give(f32(rng, 3 * heads * size) if rng.integers(2) else None)
    mask = None if rng.integers(2) else (rng.random((batch, total)) < 0.7).astype(np.int32)
    case.give(mask)
    case.give(f32(rng, pick(rng, 1, batch), pick(rng, 1, heads), queries, total) if rng.integers(2) else None)
    for _ in range(2):
        case.give(f32(rng, batch, heads, past, size) if past else None)
    return case


def attention(rng: Rng) -> Case:
    batch, heads, size, width = int(rng.integers(1, 3)), int(rng.integers(1, 4)), pick(rng, 4, 8), 12
    length, past = int(rng.integers(1, 5)), pick(rng, 0, 3)
    case = Case("Attention", 2 if past else 1, num_heads=heads, unidirectional=int(rng.integers(2)))
    case.give(f32(rng, batch, length, width)).give(f32(rng, width, 3 * heads * size), True)
    case.give(f32(rng, 3 * heads * size), True)
    mask = (rng.random((batch, past + length)) < 0.7).astype(np.int32)
    case.give(mask if rng.integers(2) else None)
    case.give(f32(rng, 2, batch, heads, past, size) if past else None)
    case.give(f32(rng, batch, heads, length, past + length) if rng.integers(2) else None)
    return case


def q_attention(rng: Rng) -> Case:
    batch, heads, size, width, length = 2, int(rng.integers(1, 3)), 8, 16, int(rng.integers(1, 5))
    kind = pick(rng, np.uint8, np.int8)
    case = Case("QAttention", 1, num_heads=heads, unidirectional=int(rng.integers(2)))
    case.give(byte(rng, np.uint8, batch, length, width)).give(byte(rng, kind, width, 3 * heads * size), True)
    case.give(f32(rng, 3 * heads * size)).give(np.float32(0.01)).give(np.float32(0.02))
    mask = (rng.random((batch, length)) < 0.8).astype(np.int32)
    case.tolerance = 1e-4
    case.give(mask if rng.integers(2) else None).give(np.uint8(rng.integers(100, 140)))
    return case.give(np.asarray(rng.integers(0, 100), kind) if rng.integers(2) else None)


def rotary_embedding(rng: Rng) -> Case:
    batch, heads, size, length = int(rng.integers(1, 3)), int(rng.integers(1, 4)), 8, int(rng.integers(1, 5))
    partial, flat = bool(rng.integers(2)), bool(rng.integers(2))
    width = size // 2 if partial else size
    attrs = {"rotary_embedding_dim": width, "num_heads": heads} if partial else {}
    case = Case("RotaryEmbedding", interleaved=int(rng.integers(2)), **attrs)
    shape = (batch, length, heads * size) if flat else (batch, heads, length, size)
    first = np.asarray([rng.integers(0, 8)], np.int64)
    each = rng.integers(0, 16, (batch, length)).astype(np.int64)
    case.give(f32(rng, *shape)).give(pick(rng, first, each))
    return case.give(f32(rng, 16, width // 2)).give(f32(rng, 16, width // 2))


def skip_layer_normalization(rng: Rng) -> Case:
    simple, width = bool(rng.integers(2)), 16
    case = Case("SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization", 1, epsilon=1e-4)
    x = f32(rng, 2, 3, width)
    case.give(x).give(f32(rng, *x.shape)).give(f32(rng, width))
    if not simple:
        case.give(f32(rng, width) if rng.integers(2) else None)
    return case.give(f32(rng, width) if rng.integers(2) else None)


def simplified_layer_normalization(rng: Rng) -> Case:
    axis = pick(rng, -1, 1, 2)
    shape = (2, 3, 8)
    scale = shape[axis:] if axis > 0 else shape[-1:]
    case = Case("SimplifiedLayerNormalization", 1, "", axis=axis, epsilon=1e-4)
    return case.give(f32(rng, *shape)).give(f32(rng, *scale))


def embed_layer_normalization(rng: Rng) -> Case:
    case = Case("EmbedLayerNormalization", 2, epsilon=1e-4)
    ids = rng.integers(0, 9, (2, 5)).astype(np.int32)
    segments = rng.integers(0, 2, (2, 5)).astype(np.int32) if rng.integers(2) else None
    case.give(ids).give(segments).give(f32(rng, 9, 8)).give(f32(rng, 6, 8))
    case.give(f32(rng, 2, 8) if segments is not None else None)
    return case.give(f32(rng, 8)).give(f32(rng, 8))


def matmul_n_bits(rng: Rng) -> Case:
    k, n, block, bits = pick(rng, 32, 40, 64), int(rng.integers(1, 9)), pick(rng, 16, 32), pick(rng, 4, 8)
    blocks = -(-k // block)
    case = Case("MatMulNBits", 1, K=k, N=n, bits=bits, block_size=block)
    case.give(f32(rng, 2, 3, k)).give(byte(rng, np.uint8, n, blocks, block * bits // 8), True)
    case.give(positive(rng, n * blocks), True)
    zeros = byte(rng, np.uint8, n * -(-blocks * bits // 8))
    case.give(pick(rng, None, zeros), True)
    case.give(None)
    case.tolerance = 2e-4
    return case.give(f32(rng, n) if rng.integers(2) else None, True)


def gather_block_quantized(rng: Rng) -> Case:
    rows, width, block = 6, 64, pick(rng, 16, 32)
    case = Case("GatherBlockQuantized", 1, gather_axis=0, quantize_axis=1, block_size=block, bits=4)
    case.give(byte(rng, np.uint8, rows, width // 2), True).give(
        rng.integers(0, rows, (2, 3)).astype(np.int64)
    )
    case.give(positive(rng, rows, width // block), True)
    return case.give(pick(rng, None, byte(rng, np.uint8, rows, width // block // 2)), True)


def fused_matmul(rng: Rng) -> Case:
    flags = {name: int(rng.integers(2)) for name in ("transA", "transB", "transBatchA", "transBatchB")}
    case = Case("FusedMatMul", 1, alpha=pick(rng, 1.0, 0.5), **flags)
    for side in "AB":
        case.give(f32(rng, *_before(flags, side)))
    return case


def _before(flags: dict[str, int], side: str) -> list[int]:
    """Return the shape of an operand that the node's transposes turn into [2,3,4,5] or [2,3,5,6]."""
    shape = [2, 3, 4, 5] if side == "A" else [2, 3, 5, 6]
    if flags[f"trans{side}"]:
        shape = [*shape[:2], shape[3], shape[2]]
    if flags[f"transBatch{side}"]:  # the first axis moves before the last
        shape = [shape[2], *shape[:2], shape[3]]
    return shape


def fused_gemm(rng: Rng) -> Case:
    name = pick(rng, "Relu", "LeakyRelu", "Tanh", "Sigmoid")
    attrs = {"activation_alpha": 0.2} if name == "LeakyRelu" else {}
    case = Case("FusedGemm", 1, activation=name, alpha=0.5, transB=1, **attrs)
    return case.give(f32(rng, 3, 4)).give(f32(rng, 5, 4)).give(f32(rng, 5))


def fused_conv(rng: Rng) -> Case:
    name = pick(rng, "Relu", "LeakyRelu", "Clip", "Sigmoid")
    params = {"LeakyRelu": [0.2], "Clip": [-0.5, 0.5]}.get(name, [])
    attrs = {"activation_params": params} if params else {}
    case = Case("FusedConv", 1, activation=name, pads=[1, 1, 1, 1], **attrs)
    return case.give(f32(rng, 1, 3, 5, 6)).give(f32(rng, 4, 3, 3, 3)).give(f32(rng, 4))


def gelus(rng: Rng) -> Case:
    op = pick(rng, "Gelu", "FastGelu", "BiasGelu", "QuickGelu")
    case = Case(op, 1, **({"alpha": 1.5} if op == "QuickGelu" else {})).give(f32(rng, 2, 3, 8))
    case.tolerance = 1e-4
    return case.give(f32(rng, 8)) if op == "BiasGelu" or (op == "FastGelu" and rng.integers(2)) else case


def _columns(rng: Rng, kind: Any, k: int, n: int) -> tuple[Array, Array, Array]:
    """Return a weight in bytes with scales and zero points, one for all or one a column."""
    many = bool(rng.integers(2))
    zero = byte(rng, kind, n) if many else np.asarray(rng.integers(0, 100), kind)
    return byte(rng, kind, k, n), positive(rng, n) if many else np.float32(0.03), zero


def dynamic_quantize_matmul(rng: Rng) -> Case:
    weight, scale, zero = _columns(rng, pick(rng, np.uint8, np.int8), 12, 5)
    case = (
        Case("DynamicQuantizeMatMul")
        .give(f32(rng, 2, 3, 12))
        .give(weight, True)
        .give(np.asarray(scale), True)
    )
    return case.give(zero if rng.integers(2) else None, True).give(
        f32(rng, 5) if rng.integers(2) else None, True
    )


def matmul_integer_to_float(rng: Rng) -> Case:
    weight, scale, zero = _columns(rng, np.uint8, 12, 5)
    case = Case("MatMulIntegerToFloat").give(byte(rng, np.uint8, 3, 12)).give(weight)
    case.give(np.float32(0.02)).give(np.asarray(scale)).give(np.uint8(120))
    return case.give(zero if rng.integers(2) else None).give(f32(rng, 5) if rng.integers(2) else None)


def q_gemm(rng: Rng) -> Case:
    case = Case("QGemm", 1, alpha=pick(rng, 1.0, 0.5), transB=int(rng.integers(2)))
    shape = (5, 8) if case.attrs["transB"] else (8, 5)
    case.give(byte(rng, np.uint8, 3, 8)).give(np.float32(0.02)).give(np.uint8(130))
    case.give(byte(rng, np.uint8, *shape), True).give(np.float32(0.03), True).give(np.uint8(120), True)
    case.give(rng.integers(-99, 99, 5).astype(np.int32) if rng.integers(2) else None, True)
    case.steps = 1
    return case.give(np.float32(0.5), True).give(np.uint8(100), True) if rng.integers(2) else case


def q_linear_binary(rng: Rng) -> Case:
    kind = pick(rng, np.uint8, np.int8)
    case = Case(pick(rng, "QLinearAdd", "QLinearMul"))
    for shape in ((2, 3, 4), (3, 1)):
        case.give(byte(rng, kind, *shape)).give(np.float32(0.04)).give(np.asarray(rng.integers(0, 9), kind))
    case.steps = 1
    return case.give(np.float32(0.08)).give(np.asarray(3, kind))


def q_linear_unary(rng: Rng) -> Case:
    op = pick(rng, "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearGlobalAveragePool")
    attrs = {"QLinearLeakyRelu": {"alpha": 0.3}, "QLinearSoftmax": {"axis": -1, "opset": 13}}.get(op, {})
    kind = np.uint8
    case = Case(op, 1, **attrs).give(byte(rng, kind, 2, 3, 4, 4))
    case.steps = 1
    case.give(np.float32(0.04), True).give(np.asarray(120, kind), True)
    return case.give(np.float32(0.01), True).give(np.asarray(3, kind), True)


def q_linear_concat(rng: Rng) -> Case:
    case = Case("QLinearConcat", 1, axis=1).give(np.float32(0.05), True).give(np.uint8(128), True)
    for size in (2, 3):
        case.give(byte(rng, np.uint8, 2, size, 4)).give(positive(rng, 1)[0], True).give(np.uint8(100), True)
    case.steps = 1
    return case


def trilu(rng: Rng) -> Case:
    return Case("Trilu", 1, upper=int(rng.integers(2))).give(f32(rng, 2, 4, 5))


MAKERS: list[Maker] = [
    trilu,
    group_query_attention,
    sliding_cache,
    mixture_of_experts,
    packed_experts,
    causal_conv_with_state,
    multi_head_attention,
    attention,
    q_attention,
    rotary_embedding,
    skip_layer_normalization,
    simplified_layer_normalization,
    embed_layer_normalization,
    matmul_n_bits,
    gather_block_quantized,
    fused_matmul,
    fused_gemm,
    fused_conv,
    gelus,
    dynamic_quantize_matmul,
    matmul_integer_to_float,
    q_gemm,
    q_linear_binary,
    q_linear_unary,
    q_linear_concat,
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_computes_what_onnxruntime_does(make: Maker, seed: int, tmp_path: Path) -> None:
    hold(make, seed, tmp_path / "m.onnx")
