"""ONNX activations that are a few ops of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .spelling import ONNX, Call, Unsupported, onnx

Function = Callable[[Call, str], str]
PARAMETERS = {  # of a recurrent layer's activations: attributes, and their defaults there
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
}


def _const(c: Call, value: float) -> str:
    return c.scalar(value, c[0])


@onnx("LeakyRelu")
def _leaky_relu(c: Call) -> str:
    return c.add("prelu", c[0], _const(c, c.attr("alpha", 0.01)))


@onnx("ThresholdedRelu")
def _thresholded_relu(c: Call) -> str:
    above = c.add("greater", c[0], _const(c, c.attr("alpha", 1.0)))
    return c.add("where", above, c[0], _const(c, 0))


def _exponential_below(c: Call, alpha: float, gamma: float, scale: float) -> str:
    """Return gamma * (x where x > 0, else alpha * (exp(x / scale) - 1))."""
    below = c.add("min", c[0], _const(c, 0))
    power = c.add("exp", below if scale == 1.0 else c.add("div", below, _const(c, scale)))
    low = c.add("mul", c.add("sub", power, _const(c, 1)), _const(c, alpha))
    both = c.add("where", c.add("greater", c[0], _const(c, 0)), c[0], low)
    return both if gamma == 1.0 else c.add("mul", both, _const(c, gamma))


@onnx("Elu")
def _elu(c: Call) -> str:
    return _exponential_below(c, c.attr("alpha", 1.0), 1.0, 1.0)


@onnx("Selu")
def _selu(c: Call) -> str:
    return _exponential_below(c, c.attr("alpha", 1.6732632), c.attr("gamma", 1.0507010), 1.0)


@onnx("Celu")
def _celu(c: Call) -> str:
    return _exponential_below(c, c.attr("alpha", 1.0), 1.0, c.attr("alpha", 1.0))


def _hard_sigmoid(c: Call, alpha: float, beta: float) -> str:
    line = c.add("add", c.add("mul", c[0], _const(c, alpha)), _const(c, beta))
    return c.add("min", c.add("max", line, _const(c, 0)), _const(c, 1))


@onnx("HardSigmoid")
def _spell_hard_sigmoid(c: Call) -> str:
    return _hard_sigmoid(c, c.attr("alpha", 0.2), c.attr("beta", 0.5))


@onnx("HardSwish")
def _hard_swish(c: Call) -> str:
    return c.add("mul", c[0], _hard_sigmoid(c, 1 / 6, 0.5))


@onnx("Softsign")
def _softsign(c: Call) -> str:
    return c.add("div", c[0], c.add("add", c.add("abs", c[0]), _const(c, 1)))


@onnx("Mish")
def _mish(c: Call) -> str:
    return c.add("mul", c[0], c.add("tanh", c.add("softplus", c[0])))


@onnx("Shrink")
def _shrink(c: Call) -> str:
    edge, bias = c.attr("lambd", 0.5), c.attr("bias", 0.0)
    high = c.add(
        "where", c.add("greater", c[0], _const(c, edge)), c.add("sub", c[0], _const(c, bias)), _const(c, 0)
    )
    return c.add("where", c.add("less", c[0], _const(c, -edge)), c.add("add", c[0], _const(c, bias)), high)


@onnx("Tan")
def _tan(c: Call) -> str:
    return c.add("div", c.add("sin", c[0]), c.add("cos", c[0]))


@onnx("Affine")
def _affine(c: Call) -> str:
    return c.add("add", c.add("mul", c[0], _const(c, c.attr("alpha", 1.0))), _const(c, c.attr("beta", 0.0)))


@onnx("ScaledTanh")
def _scaled_tanh(c: Call) -> str:
    inner = c.add("tanh", c.add("mul", c[0], _const(c, c.attr("beta", 1.0))))
    return c.add("mul", inner, _const(c, c.attr("alpha", 1.0)))


def activation(name: str, alphas: list[float], betas: list[float]) -> Function:
    """Return a recurrent layer's activation by its name; its parameters are taken from the lists' fronts."""
    names = {
        known.lower(): known for known in (*PARAMETERS, "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")
    }
    if name.lower() not in names:
        raise Unsupported(f"its activation {name} is none of {', '.join(sorted(names.values()))}")
    known = names[name.lower()]
    attrs = dict(PARAMETERS.get(known, {}))
    for attr, given in (("alpha", alphas), ("beta", betas)):
        if attr in attrs and given:
            attrs[attr] = given.pop(0)
    return partial(_applied, known, attrs)


def _applied(name: str, attrs: dict[str, float], c: Call, x: str) -> str:
    result = ONNX[name](Call(c.builder, name, c.opset, (x,), 1, attrs, c.hint))
    return result if isinstance(result, str) else result[0]
