"""A mixture of experts in one node of onnxruntime, as products with the experts that rows are routed to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Const
from .nbits import unpack
from .spelling import Call, Unsupported, onnx

ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu", "identity": "", "swiglu": "swiglu"}
OPERANDS = 8  # x, routing, and of up to three products weights and shift


@dataclass(frozen=True)
class _Routing:
    """The experts of each row: `chosen` int64[n, k] and their `shares` [n, k]."""

    chosen: str
    shares: str
    rows: int
    each: int


def _routing(c: Call) -> _Routing:
    """Return the k experts with the largest scores of each row; shares are those of a softmax."""
    rows, experts = c.type(1).shape
    each = c.attr("k", 1)
    if not 0 < each <= experts:
        raise UserError(f"{c.op}: k = {each} of {experts} experts")
    if c.attr("use_sparse_mixer", 0):
        raise Unsupported("it routes by a sparse mixer")
    scores, chosen = c.builder.adds("topk", c[1], hint=c.hint, axis=1, k=each, largest=True)
    if c.attr("normalize_routing_weights", 0):
        return _Routing(chosen, c.add("softmax", scores, axis=1), rows, each)
    shares = c.builder.adds(
        "topk", c.add("softmax", c[1], axis=1), hint=c.hint, axis=1, k=each, largest=True
    )[0]
    return _Routing(chosen, shares, rows, each)


def _product(c: Call, x: str, at: int, chosen: str) -> str:
    """Return rows x times the weights, at an operand, of experts chosen [n, k], and shifts: [n*k, out]."""
    weight, shift = c[at], c.optional(at + 1)
    product = c.add("expert_matmul", x, c.add("transpose", weight, perm=(0, 2, 1)), chosen)
    if not shift:
        return product
    size = c.type(shift).shape[1]
    return c.add(
        "add", product, c.reshape(c.add("gather", shift, chosen, axis=0), (c.type(product).shape[0], size))
    )


def _swiglu(c: Call, x: str) -> str:
    """Return gate * sigmoid(alpha * gate) * (line + beta); the two alternate, or lie one after the other."""
    *lead, size = c.type(x).shape
    fusion, half = c.attr("swiglu_fusion", 0), size // 2
    if fusion not in (1, 2):
        raise Unsupported("its swiglu takes gate and line from two products (swiglu_fusion 0)")
    split = c.reshape(x, (*lead, half, 2) if fusion == 1 else (*lead, 2, half))
    axis = len(lead) + (fusion == 1)
    gate, line = (
        c.reshape(c.add("gather", split, c.constant([i]), axis=axis), (*lead, half)) for i in range(2)
    )
    limit = float(c.attrs.get("swiglu_limit", float("inf")))
    if limit != float("inf"):
        top, low = c.scalar(limit, gate), c.scalar(-limit, gate)
        gate, line = c.add("min", gate, top), c.add("max", c.add("min", line, top), low)
    alpha = c.scalar(c.attr("activation_alpha", 1.0), gate)
    swish = c.add("mul", gate, c.add("sigmoid", c.add("mul", gate, alpha)))
    return c.add("mul", swish, c.add("add", line, c.scalar(c.attr("activation_beta", 0.0), line)))


def _expert(c: Call, x: str, chosen: str) -> str:
    """Return what the experts chosen [n, k] make of rows x [n, in]: [n*k, in]."""
    kind = c.attr("activation_type", "relu")
    if kind not in ACTIVATIONS:
        raise UserError(f"{c.op}: activation_type {kind!r} is none of {', '.join(ACTIVATIONS)}")
    inner = _product(c, x, 2, chosen)
    if kind == "swiglu":
        inner = _swiglu(c, inner)
    elif ACTIVATIONS[kind]:
        inner = c.compose("Relu", inner) if kind == "relu" else c.add(ACTIVATIONS[kind], inner)
    if c.has(6):
        inner = c.add("mul", inner, _product(c, x, 6, chosen))
    return _product(c, inner, 4, chosen)


@onnx("com.microsoft::MoE")
def _moe(c: Call) -> str:
    """Return the sum over the experts of each row, of what each makes of the row times its share."""
    if len(c.inputs) > OPERANDS and any(c.inputs[OPERANDS:]):
        raise Unsupported(f"it has an operand beyond the {OPERANDS} that are known")
    shape, routing = c.type(0).shape, _routing(c)
    x = c.reshape(c[0], (routing.rows, shape[-1]))
    made = c.reshape(_expert(c, x, routing.chosen), (routing.rows, routing.each, shape[-1]))
    weighted = c.add("mul", made, c.reshape(routing.shares, (routing.rows, routing.each, 1)))
    return c.reshape(c.add("reduce_sum", weighted, axes=(1,), keepdims=0), shape)


ROOM = {"fc1": 2, "fc2": 5, "fc3": 8}  # the place of the first operand of each product: codes, scales, shift
POINTS = {"fc1": 11, "fc2": 12, "fc3": 13}  # of zero points
MOST = 14  # operands that are known


@onnx("com.microsoft::QMoE")
def _qmoe(c: Call) -> str:
    """Return a mixture whose weights are stored in 4 or 8 bits, as one with the weights they stand for."""
    plain = c.attr("quant_type", "int") == "int" and c.attr("weights_prepacked", -1) != 1
    if not plain or any(c.inputs[MOST:]):
        raise Unsupported("its weights are no plain integers, or it has operands beyond zero points")
    products = [p for p in ROOM if c.has(ROOM[p])]
    parts = [v for p in products for v in (_expanded(c, p), c.optional(ROOM[p] + 2))]
    return _moe(Call(c.builder, "QMoE", c.opset, (c[0], c[1], *parts), 1, c.attrs, c.hint))


def _expanded(c: Call, product: str) -> str:
    """Return weights [experts, n, k] of a product: codes less their middle or zero points, times scales."""
    at, bits = ROOM[product], c.attr(f"{product}_expert_weight_bits", c.attr("expert_weight_bits", 4))
    if bits not in (4, 8):
        raise Unsupported(f"it has {bits}-bit weights")
    places = (at, at + 1, POINTS[product])
    consts = [c.builder.const_of(c[i]) if c.has(i) else None for i in places]
    codes, scales, zeros = consts
    if codes is None or scales is None or (c.has(places[2]) and zeros is None):
        raise Unsupported("its weights are not constants")
    experts, n, size = codes.type.shape
    k = size * 8 // bits
    kind, block = TensorType(c.type(0).dtype, (experts, n, k)), c.attr("block_size", 0) or k
    if scales.type.size != experts * n * -(-k // block):
        raise UserError(
            f"{c.op}: scales {scales.type} are not one for each {block} of {k} elements of {kind}"
        )

    def load() -> np.ndarray:
        values = unpack(codes.array(), bits).astype(np.float32)
        points: np.ndarray | float = float(1 << (bits - 1))
        if zeros is not None:
            points = _each(unpack(zeros.array(), bits), kind.shape, block)
        values = (values - points) * _each(scales.array(), kind.shape, block)
        return np.ascontiguousarray(values.astype(kind.dtype.numpy))

    present = all(x.present for x in consts if x is not None)
    return c.builder.put(c.builder.fresh(f"{c[at]}.expanded"), Const(kind, load if present else None))


def _each(values: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Return a value a row or block, [experts, n (, blocks)], for each element of weights [experts, n, k]."""
    _, n, k = shape
    blocks = -(-k // block)
    if values.ndim == 2:  # one a row
        values = values[:, :n, None]
    rows = values[:, :, :blocks].astype(np.float32)
    return np.repeat(rows, block, axis=2)[:, :, :k]
