"""What the way back of attention does to a tile, made of the tape that the forward pass applies to scores."""

from __future__ import annotations

from dataclasses import replace

from ..rows.tape import Source, Tape, TapeBuilder
from .back import BackTapes
from .operands import ScoreTape

AHEAD = 3  # inputs of the new tape before the extras' numbers: shares, totals, deltas


def back_tapes(tape: Tape, mask: int) -> BackTapes | None:
    """Return tapes of (scores, shares, totals, deltas, extras) whose results are (p, ds), and their factors.

    The forward tape scales scores, adds to them or chooses between them and a number; None for any other.
    """
    masked = _back(tape)
    plain = _back(ScoreTape(tape, mask).plain()) if masked else None
    if masked is None or plain is None:
        return None
    return BackTapes(masked[0], plain[0], (1.0, masked[1]))


def of_queries(tapes: BackTapes) -> BackTapes:
    """Return the tapes that give ds alone."""
    masked, plain = (replace(x, results=x.results[1:]) for x in (tapes.masked, tapes.plain))
    return BackTapes(masked, plain, tapes.factors[1:])


def _back(tape: Tape) -> tuple[Tape, float] | None:
    """Return the tape of (p, ds) and the factor of ds."""
    build = TapeBuilder(tape.inputs + AHEAD)
    distance = build.call("sub", 1, 3)  # first: the accumulator is free for the next product

    def moved(source: Source) -> Source:
        if isinstance(source, float) or source == 0:
            return source
        return source + AHEAD if source > 0 else source - 1

    factors: dict[Source, float] = {0: 1.0}
    scales: list[Source] = []
    hidden: list[Source] = []
    for index, step in enumerate(tape.steps):
        active = [i for i, s in enumerate(step.sources) if s in factors and not isinstance(s, float)]
        sources = tuple(map(moved, step.sources))
        if active:
            through = factors[step.sources[active[0]]]
            other = step.sources[1 - active[0]] if len(sources) == 2 and len(active) == 1 else None
            if step.function == "mul" and isinstance(other, float):
                through *= other
            elif step.function == "mul" and other is not None:
                scales.append(moved(other))
            elif step.function == "div" and active == [0] and isinstance(other, float):
                through /= other
            elif step.function == "where" and active == [1]:
                hidden.append(sources[0])
            elif not (step.function in ("copy", "cast") or (step.function == "add" and other is not None)):
                return None
            factors[~index] = through
        build.steps.append(replace(step, sources=sources))
    (result,) = tape.results
    if isinstance(result, float) or result not in factors:
        return None
    powers = build.call("exp", build.call("sub", moved(result), 2))
    ds = build.call("mul", powers, distance)
    for scale in scales:
        ds = build.call("mul", ds, scale)
    for where in hidden:
        ds = build.call("where", where, ds, 0.0)
    return build.done(powers, ds), factors[result]
