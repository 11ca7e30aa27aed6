"""One time for chips and links: launches of a chip and exchanges between chips, each as soon as it may start.

Chips that run equal programs are one track; the exchanges in which they all meet are another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..results.spans import Span, Task, Track, laid_out

PICOSECONDS = 1e12  # ticks a second of links


@dataclass(frozen=True)
class ChipJob:
    """What one of equal chips does next: a launch of `ticks`, or an exchange of `seconds`.

    `setup` ticks start a launch, `after` are the numbers of the jobs that it waits for besides those of its
    own track.
    """

    ticks: int = 0
    setup: int = 0
    seconds: float | None = None
    after: tuple[int, ...] = ()


def joined(jobs: Sequence[ChipJob], chip: Track, links: Track) -> tuple[Span, ...]:
    """Return when each job runs: launches on the chip's track, exchanges on that of the links."""
    return laid_out(
        Task(chip, number, job.setup, job.ticks, job.after)
        if job.seconds is None
        else Task(links, number, 0, max(round(job.seconds * links.clock_hz), 0), job.after)
        for number, job in enumerate(jobs)
    )


def length(spans: Sequence[Span]) -> Fraction:
    """Return the seconds from the first start to the last end."""
    return max((x.track.exact_seconds(x.end) for x in spans), default=Fraction(0))


@dataclass(frozen=True)
class StageTurn:
    """When a stage of a pipeline runs a micro-batch, in seconds; `sent` is when what it gives is there."""

    stage: int
    batch: int
    start: Fraction
    end: Fraction
    sent: Fraction


def pipelined(lengths: Sequence[Fraction], sends: Sequence[Fraction], batches: int) -> tuple[StageTurn, ...]:
    """Return the turns of a pipeline: `lengths` of its stages, `sends` of what each gives to the next.

    A stage takes its micro-batches in order, each as soon as it has arrived and the one before is done; it
    goes on while what it gives is sent, but sends one at a time. No formula says how long chips are idle.
    """
    turns: list[StageTurn] = []
    free = [Fraction(0)] * len(lengths)
    line = [Fraction(0)] * len(lengths)
    for batch in range(batches):
        there = Fraction(0)
        for stage, (long, send) in enumerate(zip(lengths, sends, strict=True)):
            start = max(there, free[stage])
            end = free[stage] = start + long
            there = line[stage] = max(end, line[stage]) + send
            turns.append(StageTurn(stage, batch, start, end, there))
    return tuple(turns)
