"""ONNX activations that are a few ops of ours."""

from __future__ import annotations

from .spelling import Call, onnx


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
