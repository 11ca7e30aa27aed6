"""The gradient operators of onnxruntime-training, by the gradient rules of our own ops."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from mtia_emu.errors import UserError

from ..nodes import Node, freeze_attrs
from .backward import GRADIENTS, Back, undone
from .shapes import take
from .spelling import Call, Unsupported, onnx

MS = "com.microsoft::"
OF_OPERAND = {  # (gradient, operand) -> gradient of the operand
    "GeluGrad": "gelu", "FastGeluGrad": "gelu_tanh", "ErfGrad": "erf", "SinGrad": "sin", "CosGrad": "cos",
    "LogGrad": "log", "AbsGrad": "abs",
}  # fmt: skip
OF_RESULT = {  # (gradient, result) -> gradient of the operand
    "ReluGrad": "relu", "SigmoidGrad": "sigmoid", "TanhGrad": "tanh", "SqrtGrad": "sqrt", "ExpGrad": "exp",
}  # fmt: skip


def pulled(
    c: Call, op: str, gradient: str, operands: tuple[str, ...], result: str = "", **attrs: object
) -> list[str]:
    """Return the gradients of an op's operands by its rule; without its result the op is computed again."""
    frozen = freeze_attrs(attrs, op)
    if not result:
        (result,) = c.builder.make(op, operands, frozen, c.hint)
    kind = c.type(result)
    node = Node(c.hint or op, op, operands, (result,), (kind,), frozen)
    wanted = tuple(c.type(v).dtype.is_float for v in operands)
    found = GRADIENTS[op](Back(c.builder, node, (gradient,), wanted))
    return [
        undone(c.builder, g, c.type(v), c.hint) if g else "" for g, v in zip(found, operands, strict=False)
    ]


@onnx(*(MS + name for name in OF_OPERAND))
def _of_operand(c: Call) -> str:
    return pulled(c, OF_OPERAND[c.op.removeprefix(MS)], c[0], (c[1],))[0]


@onnx(*(MS + name for name in OF_RESULT))
def _of_result(c: Call) -> str:
    """The second operand may be the result's own operand where both are of one sign: of Relu."""
    return pulled(c, OF_RESULT[c.op.removeprefix(MS)], c[0], (c[1],), c[1])[0]


@onnx(f"{MS}QuickGeluGrad")
def _quick_gelu(c: Call) -> str:
    """Of x s(a x): s + a x s (1 - s)."""
    inner = c.add("mul", c[1], c.scalar(c.attr("alpha", 1.702), c[1]))
    s = c.add("sigmoid", inner)
    slope = c.add(
        "mul", s, c.add("add", c.scalar(1, s), c.add("mul", inner, c.add("sub", c.scalar(1, s), s)))
    )
    return c.add("mul", c[0], slope)


@onnx(f"{MS}BiasGeluGrad_dX", f"{MS}BiasFastGeluGrad_dX")
def _bias_gelu(c: Call) -> str:
    op = "gelu_tanh" if "Fast" in c.op else "gelu"
    return pulled(c, op, c[0], (c.add("add", c[1], c[2]),))[0]


@onnx(f"{MS}SoftmaxGrad_13", f"{MS}LogSoftmaxGrad_13")
def _softmax(c: Call) -> str:
    op = "log_softmax" if "Log" in c.op else "softmax"
    return pulled(c, op, c[0], (c[1],), c[1], axis=c.axis(-1))[0]


@onnx(f"{MS}DivGrad")
def _div(c: Call) -> list[str]:
    return pulled(c, "div", c[0], (c[1], c[2]))


@onnx(f"{MS}LayerNormalizationGrad", f"{MS}SimplifiedLayerNormalizationGrad")
def _norm(c: Call) -> list[str]:
    """The mean and the inverse deviation that the node is given are computed again, by its epsilon."""
    x, op = c.type(1), "layernorm" if c.op == f"{MS}LayerNormalizationGrad" else "rmsnorm"
    if c.axis(-1, x.rank) != x.rank - 1:
        raise Unsupported(f"its axis is {c.axis(-1, x.rank)} (right: the last)")
    operands = (c[1], c[2], c.add("mul", c[2], c.scalar(0, c[2]))) if op == "layernorm" else (c[1], c[2])
    return pulled(c, op, c[0], operands, epsilon=c.attr("epsilon", 1e-5))


@onnx(f"{MS}SoftmaxCrossEntropyLossGrad", f"{MS}SoftmaxCrossEntropyLossInternalGrad")
def _cross_entropy(c: Call) -> str:
    """Return (exp(log p) - one hot) times the weight of each label and, for a mean, over the weights' sum."""
    log_p, labels, reduction = c[1], c[2], c.attr("reduction", "mean")
    if c.type(log_p).rank != c.type(labels).rank + 1:
        raise UserError(f"{c.op}: labels {c.type(labels)} do not fit {c.type(log_p)}")
    rank, classes = c.type(log_p).rank, c.type(log_p).shape[1]
    column = c.reshape(labels, (*c.type(labels).shape[:1], 1, *c.type(labels).shape[1:]))
    places = np.arange(classes).reshape(-1, *(1 for _ in range(rank - 2)))
    hit = c.cast(
        c.add("equal", column, c.constant(places.astype(c.type(labels).dtype.numpy))),
        c.type(log_p).dtype.name,
    )
    weights = (
        c.add("mul", hit, c.reshape(c[3], (classes, *(1 for _ in range(rank - 2))))) if c.has(3) else hit
    )
    weight = c.add("reduce_sum", weights, axes=(1,), keepdims=True)
    ignored = c.attr("ignore_index", -100) if "ignore_index" in c.attrs else None
    if ignored is not None:
        counts = c.cast(
            c.add("not", c.add("equal", column, c.scalar(ignored, column))), c.type(log_p).dtype.name
        )
        weight = c.add("mul", weight, counts)
    gap = c.add("mul", c.add("sub", c.add("exp", log_p), hit), weight)
    gradient = c[0]
    if reduction == "mean":
        axes = tuple(range(rank))
        gradient = c.add("div", gradient, c.add("reduce_sum", weight, axes=axes, keepdims=False))
    elif reduction == "none":
        gradient = c.reshape(gradient, c.type(column).shape)
    return c.add("mul", gap, gradient)


@onnx(f"{MS}GatherGrad")
def _gather(c: Call) -> str:
    shape = c.integers(0, "shape")
    table = c.add("expand", c.builder.constant(0, c.type(2).dtype.numpy), shape=shape)
    return pulled(c, "gather", c[2], (table, c[1]), c[2], axis=c.axis(0, len(shape)))[0]


@onnx(f"{MS}GatherElementsGrad")
def _gather_elements(c: Call) -> str:
    shape = c.integers(1, "shape")
    data = c.add("expand", c.builder.constant(0, c.type(0).dtype.numpy), shape=shape)
    return pulled(c, "gather_elements", c[0], (data, c[2]), c[0], axis=c.axis(0, len(shape)))[0]


@onnx(f"{MS}ConcatTraining")
def _concat(c: Call) -> list[str]:
    axis = c.axis(0)
    lengths = np.array([c.type(v).shape[axis] for v in c.inputs], np.int64)
    return [c.add("concat", *c.inputs, axis=axis), c.constant(lengths)]


@onnx(f"{MS}SplitTraining")
def _split(c: Call) -> list[str]:
    axis, sizes = c.axis(0), c.integers(1, "split")
    ends = [0, *accumulate(sizes)]
    return [take(c, c[0], axis, low, high) for low, high in pairwise(ends)]


@onnx(f"{MS}Scale")
def _scale(c: Call) -> str:
    factor = c.cast(c[1], c.type(0).dtype.name)
    factor = c.reshape(factor, ()) if c.type(factor).size == 1 else factor
    return c.add("div" if c.attr("scale_down", 0) else "mul", c[0], factor)


@onnx(f"{MS}InPlaceAccumulatorV2")
def _accumulator(c: Call) -> list[str]:
    """Return that it was done, and the sums: with the gradient added, or replaced by it if it says so."""
    gradient = c.cast(c[1], c.type(0).dtype.name)
    total = c.add("add", c[0], gradient)
    if c.has(2):
        total = c.add("where", c.reshape(c[2], ()), gradient, total)
    return [c.constant(np.array([True])), total]


@onnx(f"{MS}ConvGrad")
def _conv(c: Call) -> list[str]:
    """Return the gradients of x, of the weight and of the bias."""
    rank = c.type(1).rank - 2
    if c.attr("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("its auto_pad is set (right: pads)")
    attrs: dict[str, Any] = {name: tuple(c.attr(name, (1,) * rank)) for name in ("strides", "dilations")}
    pads, kind = tuple(c.attr("pads", (0,) * 2 * rank)), c.type(1).dtype.name
    found = pulled(
        c, "conv", c[0], (c[1], c[2]), **attrs, pads=pads, group=c.attr("group", 1), tape="1 -> x0 |", to=kind
    )
    axes = (0, *range(2, rank + 2))
    return [*found, c.add("reduce_sum", c[0], axes=axes, keepdims=False)]
