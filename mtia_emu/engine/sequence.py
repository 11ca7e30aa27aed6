"""Launches in time: when each launch of a program runs on a chip, and which layers run in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..machine.chip import Chip
from ..program.isa import Block, Launch, Part, Program
from ..results.spans import Span, Task, Track, chain, laid_out
from .cost import BlockCost

Waits = Sequence[tuple[int, ...]]  # of each launch: the numbers of those that must have ended


@dataclass(frozen=True)
class LayerRun:
    """One layer while it runs: the only one of its launch, or one of several, on a band of rows of PEs.

    Its span starts with the launch and ends with its own last command.
    """

    layer: Launch | Part
    band: int
    kernel: str
    span: Span
    cost: BlockCost


@dataclass(frozen=True)
class LaunchRun:
    """One launch while it runs, its block, and what it costs."""

    launch: Launch
    block: Block
    span: Span
    cost: BlockCost

    @cached_property
    def layers(self) -> tuple[LayerRun, ...]:
        """Return the layer that the launch runs, or those that run side by side, one a band."""
        parts, members = self.launch.parts, self.cost.members
        if not parts or len(parts) != len(members):
            return (LayerRun(self.launch, 0, self.block.kernel, self.span, self.cost),)
        return tuple(
            LayerRun(part, band, kernel, replace(self.span, end=self.span.begin + member.cycles), member)
            for band, (part, kernel, member) in enumerate(
                zip(parts, self.block.kernels, members, strict=True)
            )
        )


def track_of(chip: Chip) -> Track:
    """Return the chip as what runs launches, one at a time."""
    return Track(chip.name, chip.clock_hz)


def spans(
    program: Program, chip: Chip, costs: Sequence[BlockCost], waits: Waits | None = None
) -> tuple[Span, ...]:
    """Return when each launch of a program runs on the chip, given what each costs.

    `waits` says what each launch waits for: the one before it without. The chip runs one at a time; to start
    the first takes it `launch.first_s`, every other `launch.replace_s`; one that goes on with the loop of the
    launch before it takes a barrier. What a launch copies for later ones
    is part of its cost: it ends when that is there.
    """
    track = track_of(chip)
    waits = chain(len(costs)) if waits is None else waits
    starts = (_start_cycles(program.launches, number, chip) for number in range(len(program.launches)))
    return laid_out(
        Task(track, number, start, cost.cycles, after)
        for number, (start, cost, after) in enumerate(zip(starts, costs, waits, strict=True))
    )


def barrier_cycles(chip: Chip) -> int:
    """Return the cycles in which all PEs wait for one another within a launch.

    Estimate: two trips to a counter in SRAM, as on a GPU to one in its L2: each PE adds to it, then sees that
    all have.
    """
    return math.ceil(2 * chip.sram.latency_s * chip.power.nominal_hz)


def _start_cycles(launches: Sequence[Launch], number: int, chip: Chip) -> int:
    """Return the cycles to start a launch: within a loop PEs wait for one another, and none is started."""
    if number and launches[number].goes_on(launches[number - 1]):
        return min(barrier_cycles(chip), chip.launch_cycles(number))
    return chip.launch_cycles(number)


def launch_runs(program: Program, chip: Chip, costs: Sequence[BlockCost]) -> Iterator[LaunchRun]:
    """Yield the launches of a program as they run on the chip, given what each costs."""
    for launch, span, cost in zip(program.launches, spans(program, chip, costs), costs, strict=True):
        yield LaunchRun(launch, program.blocks[launch.block], span, cost)
