"""Training over the stages of a pipeline: in which order a chip takes its passes, and when each of them runs.

A pass is of a stage and a micro-batch, forward or back. Stage `s` runs on chip `s` mod the number of chips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

GPIPE, ONE_F_ONE_B = "gpipe", "1f1b"
SCHEDULES = (ONE_F_ONE_B, GPIPE)


@dataclass(frozen=True)
class PipelinePass:
    """A micro-batch through a stage: forward, or `back`."""

    stage: int
    batch: int
    back: bool


@dataclass(frozen=True)
class PassTurn:
    """When a pass runs, in seconds; `sent` is when what it gives to the next stage is there."""

    of: PipelinePass
    start: Fraction
    end: Fraction
    sent: Fraction


def passes(schedule: str, chip: int, chips: int, batches: int, chunks: int = 1) -> tuple[PipelinePass, ...]:
    """Return the passes of a chip of a pipeline in their order; it has `chunks` stages.

    "gpipe" takes all micro-batches forward, then all back (Huang et al., 2019). "1f1b" goes forward until the
    first comes back, from then on by turns (PipeDream-Flush, Narayanan et al., 2021); with several chunks it
    is interleaved, as that paper has it: as many micro-batches as there are chips through one of a chip's
    stages, the same through the next. Passes back are in the order of micro-batches in all of them.
    """
    forward = _in_groups(chip, chips, batches, range(chunks), back=False)
    back = _in_groups(chip, chips, batches, range(chunks - 1, -1, -1), back=True)
    ahead = chips - chip - 1 if chunks == 1 else 2 * (chips - chip - 1) + (chunks - 1) * chips
    ahead = len(forward) if schedule == GPIPE else min(ahead, len(forward))
    turns = [x for pair in zip(forward[ahead:], back, strict=False) for x in pair]
    return (*forward[:ahead], *turns, *back[len(forward) - ahead :])


def _in_groups(
    chip: int, chips: int, batches: int, chunks: Sequence[int], *, back: bool
) -> list[PipelinePass]:
    """Return a chip's passes of one direction: a group of micro-batches through each of its stages."""
    size = chips if len(chunks) > 1 else 1
    groups = (range(at, min(at + size, batches)) for at in range(0, batches, size))
    return [
        PipelinePass(chunk * chips + chip, batch, back)
        for group in groups
        for chunk, batch in product(chunks, group)
    ]


def timed_passes(
    orders: Sequence[Sequence[PipelinePass]],
    length: Callable[[PipelinePass], Fraction],
    sends: Callable[[PipelinePass], Fraction],
) -> tuple[PassTurn, ...]:
    """Return when each pass runs, by their starts: `orders` are those of the chips, one after another.

    A chip takes each pass as soon as what it needs has arrived, and goes on while what it gives is sent: one
    at a time forward, and one at a time back. A pass forward needs the stage before, one back the stage
    behind. Raises `ValueError` for orders in which passes wait for one another.
    """
    last = max(x.stage for order in orders for x in order)
    done: dict[PipelinePass, PassTurn] = {}
    free = [Fraction(0)] * len(orders)
    lines: dict[tuple[int, bool], Fraction] = {}
    left = [0] * len(orders)
    moved = True
    while moved:
        moved = False
        for chip, order in enumerate(orders):
            while left[chip] < len(order):
                one = order[left[chip]]
                needs = _needs(one, last)
                if not needs <= done.keys():
                    break
                arrived = [done[x].sent for x in needs if x.stage != one.stage]
                start = max([free[chip], *arrived])
                end = free[chip] = start + length(one)
                gives = one.stage > 0 if one.back else one.stage < last
                sent = max(end, lines.get((chip, one.back), end)) + sends(one) if gives else end
                lines[chip, one.back] = sent
                done[one] = PassTurn(one, start, end, sent)
                left[chip] += 1
                moved = True
    if len(done) < sum(map(len, orders)):
        raise ValueError("passes of a pipeline wait for one another")
    return tuple(sorted(done.values(), key=lambda t: (t.start, t.end, t.of.stage, t.of.batch)))


def _needs(one: PipelinePass, last: int) -> set[PipelinePass]:
    """Return the passes whose results one works on: those of other stages are sent first."""
    if one.back:
        own = PipelinePass(one.stage, one.batch, False)
        return {own, PipelinePass(one.stage + 1, one.batch, True)} if one.stage < last else {own}
    return {PipelinePass(one.stage - 1, one.batch, False)} if one.stage else set()


def alive(turns: Sequence[PassTurn], stages: Sequence[int]) -> int:
    """Return the most micro-batches that some stages of a chip hold at once, counted for each stage.

    A stage holds what it made of one from the start of its pass forward to the end of its pass back.
    """
    changes: list[tuple[Fraction, int]] = []
    for turn in turns:
        if turn.of.stage in stages:
            changes.append((turn.end, -1) if turn.of.back else (turn.start, 1))
    now = most = 0
    for _, change in sorted(changes):  # what ends at a moment has ended
        now += change
        most = max(most, now)
    return most
