"""A step of an optimiser, as elementwise ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .spelling import Call, Unsupported, onnx

DOMAIN = "ai.onnx.preview.training"


class _Sums:
    """Arithmetic on values of one call."""

    def __init__(self, c: Call) -> None:
        self.c = c

    def scaled(self, x: str, by: float) -> str:
        return self.c.add("mul", x, self.c.scalar(by, x))

    def plus(self, a: str, b: str) -> str:
        return self.c.add("add", a, b)


def _groups(c: Call, kinds: int) -> list[list[str]]:
    """Return the operands behind the rate and the count, grouped: one list for each optimised tensor."""
    rest = [c[i] for i in range(2, len(c.inputs))]
    count = len(rest) // kinds
    return [[rest[kind * count + i] for kind in range(kinds)] for i in range(count)]


def _spread(results: Sequence[tuple[str, ...]]) -> list[str]:
    return [value for kind in zip(*results, strict=True) for value in kind]


@onnx(f"{DOMAIN}::Momentum")
def _momentum(c: Call) -> list[str]:
    alpha, beta = c.attr("alpha", 0.0), c.attr("beta", 0.0)
    first = c.builder.known(c[1])
    if first is None:
        raise Unsupported("its step count depends on the data", c[1])
    if int(first.reshape(-1)[0]) == 0:
        beta = 1.0
    nesterov, s = c.attr("mode", "standard") == "nesterov", _Sums(c)
    out = []
    for x, gradient, moment in _groups(c, 3):
        slope = s.plus(s.scaled(x, c.attr("norm_coefficient", 0.0)), gradient)
        new = s.plus(s.scaled(moment, alpha), s.scaled(slope, beta))
        step = s.plus(slope, s.scaled(new, alpha)) if nesterov else new
        out.append((c.add("sub", x, c.add("mul", c.cast(c[0], c.type(x).dtype.name), step)), new))
    return _spread(out)


def _rate(c: Call, correction: Callable[[float], float]) -> str:
    """Return the learning rate at this step."""
    steps = c.builder.known(c[1])
    if steps is None:
        raise Unsupported("its step count depends on the data", c[1])
    return c.add("mul", c[0], c.scalar(correction(float(steps.reshape(-1)[0])), c[0]))


@onnx(f"{DOMAIN}::Adagrad")
def _adagrad(c: Call) -> list[str]:
    decay, s = c.attr("decay_factor", 0.0), _Sums(c)
    rate = _rate(c, lambda t: 1.0 / (1.0 + t * decay))
    out = []
    for x, gradient, squares in _groups(c, 3):
        slope = s.plus(s.scaled(x, c.attr("norm_coefficient", 0.0)), gradient)
        total = s.plus(squares, c.add("mul", slope, slope))
        root = s.plus(c.add("sqrt", total), c.scalar(c.attr("epsilon", 0.0), x))
        out.append((c.add("sub", x, c.add("div", c.add("mul", rate, slope), root)), total))
    return _spread(out)


@onnx(f"{DOMAIN}::Adam")
def _adam(c: Call) -> list[str]:
    alpha, beta, s = c.attr("alpha", 0.9), c.attr("beta", 0.999), _Sums(c)
    rate = _rate(c, lambda t: (1 - beta**t) ** 0.5 / (1 - alpha**t) if t > 0 else 1.0)
    out = []
    for x, gradient, mean, square in _groups(c, 4):
        slope = s.plus(s.scaled(x, c.attr("norm_coefficient", 0.0)), gradient)
        mean = s.plus(s.scaled(mean, alpha), s.scaled(slope, 1 - alpha))
        square = s.plus(s.scaled(square, beta), s.scaled(c.add("mul", slope, slope), 1 - beta))
        root = s.plus(c.add("sqrt", square), c.scalar(c.attr("epsilon", 0.0), x))
        new = c.add("sub", x, c.add("div", c.add("mul", rate, mean), root))
        out.append((s.scaled(new, 1 - c.attr("norm_coefficient_post", 0.0)), mean, square))
    return _spread(out)
