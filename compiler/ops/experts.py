"""A mixture of experts in one node of onnxruntime, as products with the experts that rows are routed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT8, UINT8, DType

from ..graph import Const
from .dequantise import Loads, PackedShape, planes, store
from .nbits import signed, unpack
from .spelling import Call, Unsupported, onnx

ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu", "identity": "", "swiglu": "swiglu"}


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


def _product(c: Call, x: str, chosen: str, at: int) -> str:
    """Return rows x times the weights, at an operand, of experts chosen [n, k], and shifts: [n*k, out]."""
    product = c.add("expert_matmul", x, c.add("transpose", c[at], perm=(0, 2, 1)), chosen)
    return _shifted(c, product, c.optional(at + 1), chosen)


def _shifted(c: Call, product: str, shift: str, chosen: str) -> str:
    """Return rows [n*k, out] and the shift of each one's expert, of [experts, out], where there is one."""
    if not shift:
        return product
    own = c.reshape(
        c.add("gather", shift, chosen, axis=0), (c.type(product).shape[0], c.type(shift).shape[1])
    )
    return c.add("add", product, own)


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


Product = Callable[[str, str], str]  # of rows x and chosen experts, a product with its shift: [n*k, out]


def _expert(c: Call, x: str, chosen: str, products: Mapping[str, Product]) -> str:
    """Return what the experts chosen [n, k] make of rows x [n, in]: [n*k, in]."""
    kind = c.attr("activation_type", "relu")
    if kind not in ACTIVATIONS:
        raise UserError(f"{c.op}: activation_type {kind!r} is none of {', '.join(ACTIVATIONS)}")
    inner = products["fc1"](x, chosen)
    if kind == "swiglu":
        inner = _swiglu(c, inner)
    elif ACTIVATIONS[kind]:
        inner = c.compose("Relu", inner) if kind == "relu" else c.add(ACTIVATIONS[kind], inner)
    if "fc3" in products:
        inner = c.add("mul", inner, products["fc3"](x, chosen))
    return products["fc2"](inner, chosen)


def _mixture(c: Call, products: Mapping[str, Product]) -> str:
    """Return the sum over the experts of each row, of what each makes of the row times its share."""
    missing = [name for name in ("fc1", "fc2") if name not in products]
    if missing:
        raise UserError(f"{c.op}: it has no weights {', '.join(missing)}")
    shape, routing = c.type(0).shape, _routing(c)
    x = c.reshape(c[0], (routing.rows, shape[-1]))
    made = c.reshape(_expert(c, x, routing.chosen, products), (routing.rows, routing.each, shape[-1]))
    weighted = c.add("mul", made, c.reshape(routing.shares, (routing.rows, routing.each, 1)))
    return c.reshape(c.add("reduce_sum", weighted, axes=(1,), keepdims=0), shape)


PLAIN = {"fc1": 2, "fc2": 4, "fc3": 6}  # the place of the first operand of each product: weights, shift
OPERANDS = 8  # that are known


@onnx("com.microsoft::MoE")
def _moe(c: Call) -> str:
    """Return a mixture of products with weights as they are."""
    if any(c.inputs[OPERANDS:]):
        raise Unsupported(f"it has an operand beyond the {OPERANDS} that are known")
    return _mixture(c, {name: partial(_product, c, at=at) for name, at in PLAIN.items() if c.has(at)})


ROOM = {"fc1": 2, "fc2": 5, "fc3": 8}  # of weights of few bits: codes, scales, shift
POINTS = {"fc1": 11, "fc2": 12, "fc3": 13}  # of zero points
MOST = 14  # operands that are known


@onnx("com.microsoft::QMoE")
def _qmoe(c: Call) -> str:
    """Return a mixture of products that expand weights of 4 or 8 bits as they read them."""
    plain = c.attr("quant_type", "int") == "int" and c.attr("weights_prepacked", -1) != 1
    if not plain or any(c.inputs[MOST:]):
        raise Unsupported("its weights are no plain integers, or it has operands beyond zero points")
    stored = {name: _Stored.read(c, name) for name in ROOM if c.has(ROOM[name])}
    return _mixture(c, {name: partial(_packed_product, c, weights=w) for name, w in stored.items()})


def _packed_product(c: Call, x: str, chosen: str, weights: _Stored) -> str:
    """Return rows x times weights of few bits of experts chosen [n, k], and shifts: [n*k, out]."""
    form = weights.form
    codes, *scales = planes(c.builder, weights.name, form, weights.to, weights.loads, weights.present)
    product = c.add("expert_matmul_packed", x, codes, chosen, *scales, k=form.k, block=form.block)
    return _shifted(c, product, weights.shift, chosen)


@dataclass(frozen=True)
class _Stored:
    """Weights [experts, n, k] as the file has them, to be multiplied in a type: codes, scales, zero points.

    `bits` are those of a code, `shift` names what is added to a product, or is "".
    """

    name: str
    to: DType
    form: PackedShape
    bits: int
    codes: Const
    scales: Const
    zeros: Const | None
    shift: str

    @classmethod
    def read(cls, c: Call, product: str) -> _Stored:
        """Return those of a product; raise for what no QMoE has."""
        at, bits = ROOM[product], c.attr(f"{product}_expert_weight_bits", c.attr("expert_weight_bits", 4))
        if bits not in (4, 8):
            raise Unsupported(f"it has {bits}-bit weights")
        places = (at, at + 1, POINTS[product])
        codes, scales, zeros = (c.builder.const_of(c[i]) if c.has(i) else None for i in places)
        if codes is None or scales is None or (c.has(places[2]) and zeros is None):
            raise Unsupported("its weights are not constants")
        if codes.type.rank != 3 or 0 in codes.type.shape or codes.type.dtype != UINT8:
            raise UserError(f"{c.op}: weights {codes.type} are not bytes [experts, n, k * bits / 8]")
        experts, n, size = codes.type.shape
        k = size * 8 // bits
        block = min(c.attr("block_size", 0) or k, k)
        blocks = experts * n * -(-k // max(block, 1))
        if block < 1 or scales.type.size != blocks:
            raise UserError(
                f"{c.op}: scales {scales.type} are not one for each {block} of {k} of {experts}x{n} rows"
            )
        form = PackedShape(k, n, block, UINT8 if bits == 4 else INT8, experts)
        return cls(c[at], c.type(0).dtype, form, bits, codes, scales, zeros, c.optional(at + 2))

    @property
    def present(self) -> bool:
        """Return whether their values are there."""
        return all(x.present for x in (self.codes, self.scales, self.zeros) if x is not None)

    @property
    def loads(self) -> Loads:
        """Return what makes codes, scales and zero points as they lie in memory."""
        return self._codes, self._scales, self._points if self.zeros is not None else None

    def _codes(self) -> np.ndarray:
        return self._stored(self.codes.array(), self.form.k, self.form.block)

    def _points(self) -> np.ndarray:
        assert self.zeros is not None
        points = self.zeros.array()
        return self._stored(points.reshape(self.form.of, self.form.n, -1), self._blocks, 1)

    def _scales(self) -> np.ndarray:
        rows = self.scales.array().reshape(self.form.of, self.form.n, self._blocks)
        return np.ascontiguousarray(rows.transpose(0, 2, 1).astype(self.to.numpy))

    @property
    def _blocks(self) -> int:
        return -(-self.form.k // self.form.block)

    def _stored(self, packed: np.ndarray, rows: int, block: int) -> np.ndarray:
        """Return bytes [experts, n, ..] as codes [experts, rows of memory, n], expert by expert."""

        def one(matrix: np.ndarray) -> np.ndarray:
            return store(signed(unpack(matrix, self.bits)[:, :rows], self.bits).T, self.bits, block)

        return np.stack([one(matrix) for matrix in packed])
