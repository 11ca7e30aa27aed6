"""The gradients of the elementwise ops, by name of the SIMD function.

At ties of `max` and `min` each operand takes half. At kinks (`relu` and `abs` at 0) the gradient is that of
the flat side, or 0.
"""

from __future__ import annotations

import math

from .backward import Back, flat, gradient, no_gradient

flat("it rounds to whole numbers", "floor", "ceil", "round")
flat("it rounds to few bits", "round_random")
flat("it is the same on each side of 0", "sign")
flat(
    "its result is a truth value",
    "not", "isnan", "isinf", "equal", "less", "less_equal", "greater", "greater_equal", "and", "or", "xor",
)  # fmt: skip
no_gradient(
    "it is of whole numbers",
    "bit_not", "bit_and", "bit_or", "bit_xor", "bit_low4", "bit_high4", "shift_left", "shift_right",
    "philox",
)  # fmt: skip


def _ratio(b: Back, top: str, bottom: str) -> str:
    return b.add("div", top, bottom)


def _one_plus(b: Back, x: str, sign: float = 1.0) -> str:
    """Return 1 + x, or 1 - x."""
    return b.add("add" if sign > 0 else "sub", b.scalar(1, x), x)


@gradient("copy")
def _copy(b: Back) -> tuple[str]:
    return (b.grad,)


@gradient("neg")
def _neg(b: Back) -> tuple[str]:
    return (b.add("neg", b.grad),)


@gradient("abs")
def _abs(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.add("sign", b[0])),)


@gradient("relu")
def _relu(b: Back) -> tuple[str]:
    above = b.add("greater", b.out, b.scalar(0, b.out))
    return (b.add("where", above, b.grad, b.scalar(0, b.grad)),)


@gradient("exp")
def _exp(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.out),)


@gradient("log")
def _log(b: Back) -> tuple[str]:
    return (_ratio(b, b.grad, b[0]),)


@gradient("sin", "sinh")
def _sin(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.add({"sin": "cos", "sinh": "cosh"}[b.node.op], b[0])),)


@gradient("cos")
def _cos(b: Back) -> tuple[str]:
    return (b.add("neg", b.times(b.grad, b.add("sin", b[0]))),)


@gradient("cosh")
def _cosh(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.add("sinh", b[0])),)


@gradient("tanh")
def _tanh(b: Back) -> tuple[str]:
    return (b.times(b.grad, _one_plus(b, b.times(b.out, b.out), -1)),)


@gradient("sigmoid")
def _sigmoid(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.out, _one_plus(b, b.out, -1)),)


@gradient("softplus")
def _softplus(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.add("sigmoid", b[0])),)


@gradient("silu")
def _silu(b: Back) -> tuple[str]:
    """Of x s(x): s (1 + x (1 - s))."""
    s = b.add("sigmoid", b[0])
    return (b.times(b.grad, s, _one_plus(b, b.times(b[0], _one_plus(b, s, -1)))),)


def _bell(b: Back, x: str, scale: float, width: float) -> str:
    """Return scale * exp(-width x^2)."""
    return b.times(b.add("exp", b.times(x, x, -width)), scale)


@gradient("erf")
def _erf(b: Back) -> tuple[str]:
    return (b.times(b.grad, _bell(b, b[0], 2 / math.sqrt(math.pi), 1.0)),)


@gradient("gelu")
def _gelu(b: Back) -> tuple[str]:
    """Of x F(x), F of the normal distribution: F + x F'."""
    below = b.times(_one_plus(b, b.add("erf", b.times(b[0], 1 / math.sqrt(2)))), 0.5)
    dense = b.times(b[0], _bell(b, b[0], 1 / math.sqrt(2 * math.pi), 0.5))
    return (b.times(b.grad, b.sum(below, dense)),)


@gradient("gelu_tanh")
def _gelu_tanh(b: Back) -> tuple[str]:
    """Of x (1 + t) / 2, t = tanh(c (x + a x^3)): (1 + t) / 2 + x (1 - t^2) c (1 + 3 a x^2) / 2."""
    x, c, a = b[0], math.sqrt(2 / math.pi), 0.044715
    square = b.times(x, x)
    t = b.add("tanh", b.times(x, _one_plus(b, b.times(square, a)), c))
    slope = b.times(_one_plus(b, b.times(square, 3 * a)), 0.5 * c)
    inner = b.times(x, _one_plus(b, b.times(t, t), -1), slope)
    return (b.times(b.grad, b.sum(b.times(_one_plus(b, t), 0.5), inner)),)


@gradient("sqrt")
def _sqrt(b: Back) -> tuple[str]:
    return (_ratio(b, b.times(b.grad, 0.5), b.out),)


@gradient("rsqrt")
def _rsqrt(b: Back) -> tuple[str]:
    return (b.times(b.grad, b.out, b.out, b.out, -0.5),)


@gradient("reciprocal")
def _reciprocal(b: Back) -> tuple[str]:
    return (b.add("neg", b.times(b.grad, b.out, b.out)),)


@gradient("asin", "acos")
def _asin(b: Back) -> tuple[str]:
    slope = b.times(b.grad, b.add("rsqrt", _one_plus(b, b.times(b[0], b[0]), -1)))
    return (slope if b.node.op == "asin" else b.add("neg", slope),)


@gradient("atan", "atanh")
def _atan(b: Back) -> tuple[str]:
    return (_ratio(b, b.grad, _one_plus(b, b.times(b[0], b[0]), 1 if b.node.op == "atan" else -1)),)


@gradient("asinh", "acosh")
def _asinh(b: Back) -> tuple[str]:
    square = b.times(b[0], b[0])
    inner = b.add("add" if b.node.op == "asinh" else "sub", square, b.scalar(1, square))
    return (b.times(b.grad, b.add("rsqrt", inner)),)


@gradient("add")
def _add(b: Back) -> tuple[str, str]:
    return b.grad, b.grad


@gradient("sub")
def _sub(b: Back) -> tuple[str, str]:
    return b.grad, b.add("neg", b.grad) if b.wants(1) else ""


@gradient("mul")
def _mul(b: Back) -> tuple[str, str]:
    return tuple(b.times(b.grad, b[1 - i]) if b.wants(i) else "" for i in (0, 1))  # type: ignore[return-value]


@gradient("div")
def _div(b: Back) -> tuple[str, str]:
    over = _ratio(b, b.grad, b[1])
    return over, b.add("neg", b.times(over, b.out)) if b.wants(1) else ""


@gradient("mod", "fmod")
def _mod(b: Back) -> tuple[str, str]:
    """Of a - b n(a / b) with n whole: 1, and -n."""
    if not b.wants(1):
        return b.grad, ""
    whole = b.add("round", _ratio(b, b.add("sub", b[0], b.out), b[1]))
    return b.grad, b.add("neg", b.times(b.grad, whole))


@gradient("pow")
def _pow(b: Back) -> tuple[str, str]:
    x, y = b[0], b[1]
    base = exponent = ""
    if b.wants(0):
        one_less = b.add("sub", y, b.scalar(1, y))
        slope = b.times(b.cast(y, b.type(x)), b.add("pow", x, b.cast(one_less, b.type(x))))
        none = b.add("equal", y, b.scalar(0, y))  # 0 * 0 ** -1 is 0 here
        base = b.times(b.grad, b.add("where", none, b.scalar(0, slope), slope))
    if b.wants(1):
        slope = b.times(b.out, b.add("log", x))
        none = b.add("equal", x, b.scalar(0, x))
        exponent = b.times(b.grad, b.add("where", none, b.scalar(0, slope), slope))
    return base, exponent


@gradient("max", "min")
def _larger(b: Back) -> tuple[str, str]:
    shares = []
    for mine, other in ((0, 1), (1, 0)):
        wins = b.add("greater" if b.node.op == "max" else "less", b[mine], b[other])
        tie = b.add("equal", b[0], b[1])
        half = b.add("where", tie, b.times(b.grad, 0.5), b.scalar(0, b.grad))
        shares.append(b.add("where", wins, b.grad, half) if b.wants(mine) else "")
    return shares[0], shares[1]


@gradient("prelu")
def _prelu(b: Back) -> tuple[str, str]:
    above = b.add("greater", b[0], b.scalar(0, b[0]))
    slope = b.times(b.grad, b[0]) if b.wants(1) else b.grad
    return (
        b.add("where", above, b.grad, b.times(b.grad, b[1])),
        b.add("where", above, b.scalar(0, slope), slope) if b.wants(1) else "",
    )


@gradient("where")
def _where(b: Back) -> tuple[str, str, str]:
    none = b.scalar(0, b.grad)
    return (
        "",
        b.add("where", b[0], b.grad, none) if b.wants(1) else "",
        b.add("where", b[0], none, b.grad) if b.wants(2) else "",
    )


@gradient("cast")
def _cast(b: Back) -> tuple[str]:
    return (b.cast(b.grad, b.type(0)),)
