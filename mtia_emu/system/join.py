"""One time for chips and links: launches of a chip and exchanges between chips, each as soon as it may start.

Chips that run equal programs are one track; the exchanges in which they all meet are another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

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


def pipelined(
    lengths: Sequence[Fraction], sends: Sequence[Fraction], batches: int, chunks: int = 1
) -> tuple[StageTurn, ...]:
    """Return the turns of a pipeline: `lengths` of its stages, `sends` of what each gives to the next.

    With `chunks` a chip has so many stages, every so-and-so-many-th one: it takes as many micro-batches as
    there are chips through the first of them, the same through the next, and so on (interleaved stages,
    Narayanan et al., 2021). A chip takes its turns in that order, each as soon as what it needs has arrived;
    it goes on while what it gives is sent, but sends one at a time. No formula says how long chips are idle.
    """
    chips = len(lengths) // chunks
    turns: list[StageTurn] = []
    free, line = [Fraction(0)] * chips, [Fraction(0)] * chips
    there = [Fraction(0)] * batches
    for first in range(0, batches, chips if chunks > 1 else 1):
        group = range(first, min(first + chips, batches)) if chunks > 1 else (first,)
        for chunk, batch, chip in product(range(chunks), group, range(chips)):
            stage = chunk * chips + chip
            start = max(there[batch], free[chip])
            end = free[chip] = start + lengths[stage]
            there[batch] = line[chip] = max(end, line[chip]) + sends[stage]
            turns.append(StageTurn(stage, batch, start, end, there[batch]))
    return tuple(turns)


def waiting(turns: Sequence[StageTurn], stage: int) -> int:
    """Return the most micro-batches that are at a stage at once: arrived, and not done."""
    arrived = {t.batch: t.sent for t in turns if t.stage == stage - 1}
    own = [(arrived.get(t.batch, t.start), t.end) for t in turns if t.stage == stage]
    return max((sum(a <= at < end for a, end in own) for at, _ in own), default=0)
