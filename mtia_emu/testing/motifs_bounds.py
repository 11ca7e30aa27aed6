"""Motifs of what ordinary numbers seldom reach: bounds, masks, NaN, and ties of rounding."""

from __future__ import annotations

from .grower import Grower
from .motifs import motif

LOW, HIGH = (-6.0, -4.0, -1.0, 0.0), (1.0, 4.0, 6.0)
HIDDEN = (-1e4, -100.0)  # what masks put in place of a score


@motif
def bounds(g: Grower) -> None:
    """Clips, exponentials of what is bounded, masks by `where`, guards of NaN, roundings."""
    x = g.value(1, 4)
    for _ in range(g.pick((1, 1, 2))):
        x = _bounded(g, x, g.pick(("clip", "high", "exp", "mask", "nan", "round")))
        g.add(x)


def _bounded(g: Grower, x: str, spelling: str) -> str:
    if spelling == "clip":
        return g.either("min", g.either("max", x, g.number(g.pick(LOW))), g.number(g.pick(HIGH)))
    if spelling == "high":
        return g.either("min", x, g.number(g.pick(HIGH)))
    if spelling == "exp":  # of what is small enough for every format
        return g.op("exp", g.op("min", g.op("max", x, g.number(g.pick(LOW))), g.number(g.pick(HIGH))))
    if spelling == "mask":
        shape = g.of(x)
        mask = g.input(shape[g.pick(range(len(shape))) :], "bool")
        return g.op("where", mask, x, g.number(g.pick(HIDDEN)))
    if spelling == "nan":
        return g.op("where", g.op("isnan", x), g.number(0.0), x)
    return g.op("round", x)


@motif
def known(g: Grower) -> None:
    """What constants alone decide, computed in the graph nevertheless, and work that changes nothing."""
    x = g.value(1, 4)
    width = g.of(x)[-1]
    factor = g.b.add(g.pick(("mul", "add", "max")), g.const((width,)), g.const((width,)), fold=False)
    y = g.either("mul", x, factor)
    again = g.b.add("reshape", g.op("reshape", y, shape=(*g.of(y), 1)), shape=g.of(y), fold=False)
    g.add(again if g.chance() else y)
