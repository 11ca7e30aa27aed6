"""One stage of a partitioned model on a chip: its program timed, and joined with its exchanges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from ..engine.cost import BlockCost
from ..engine.energy import standing
from ..engine.launches import untimed_costs
from ..engine.power import sustained
from ..engine.run import report
from ..engine.sequence import spans, track_of
from ..machine.chip import Chip
from ..program.isa import Program
from ..results.report import Joules, Layer, Report, Stretch
from ..results.spans import Span, Track
from ..results.system_use import ExchangeUse, MemoryUse, StageUse
from ..system.join import PICOSECONDS, ChipJob, joined, length
from .buckets import bucketed, is_bucketed
from .meetings import Meeting, exchange_uses, largest, meeting
from .partition import Exchanges, Partition, exchanged_bytes
from .waits import exchanges, waits

LINKS = "links"  # what bounds an exchange


@dataclass(frozen=True)
class StageTime:
    """A stage: its report with the exchanges in it, what its chips came to (`uses`), and what links took.

    `classes` are how many chips run each program, and the report whose amounts are of one of them.
    """

    report: Report
    uses: tuple[StageUse, ...]
    exchanges: tuple[ExchangeUse, ...]
    link_joules: float
    classes: tuple[tuple[int, Report], ...]


@dataclass(frozen=True)
class StageRun:
    """A stage's program on a chip, and the partition and the system that its exchanges are of."""

    parts: Partition
    stage: int
    program: Program
    chip: Chip
    on: Exchanges

    def time(self) -> StageTime:
        """Return the stage's time: at the fastest clock at which its chip keeps to its limit of power."""
        meetings = self._together()
        last: dict[float, tuple[Report, float, float]] = {}

        def at(chip: Chip) -> Report:
            found = self._report(chip, meetings)
            last[found[0].clock_hz] = found
            return found[0]

        whole = sustained(self.chip, at)
        _, compute_s, exposed_s = last[whole.clock_hz]
        exchange_s = sum(m.time.seconds for m in meetings)
        use = StageUse(
            stage_name(self.parts, self.stage),
            self.parts.mesh.each,
            whole.seconds,
            compute_s,
            exchange_s,
            exposed_s,
            memory(self.program, self.chip, largest(meetings), self.parts.mesh.batches),
        )
        joules = sum(m.groups * m.time.joules for m in meetings)
        used = exchange_uses(use.name, meetings)
        return StageTime(whole, (use,), used, joules, ((use.chips, whole),))

    def meetings(self) -> list[Meeting]:
        """Return the exchanges of the program, each by itself."""
        out = []
        for number in exchanges(self.program):
            block = self.program.blocks[self.program.launches[number].block]
            (op, given), operand = block.scalar, block.operands[0]
            attrs = dict(given)
            size = exchanged_bytes(op, math.prod(operand.shape) * operand.dtype.bytes, attrs["size"])
            out.append(meeting(self.on, self.stage, number, op, attrs, size))
        return out

    def _together(self) -> list[Meeting]:
        """Return the exchanges of the program, those together that go together."""
        out, limit = self.meetings(), self.parts.mesh.bucket
        if not is_bucketed(out, limit):
            return out
        return bucketed(out, waits(self.program, [m.launch for m in out]), self.on, self.stage, limit)

    def _report(self, chip: Chip, meetings: Sequence[Meeting]) -> tuple[Report, float, float]:
        """Return the report at a clock, the seconds in which the chip works, and those in which it waits."""
        numbers = {i: m for m in meetings for i in (*m.held, m.launch)}
        each = [moving(x) if i in numbers else x for i, x in enumerate(untimed_costs(self.program, chip, {}))]
        alone = report(self.program, chip, each=each)
        if not meetings:
            return alone, alone.seconds, 0.0
        track, links = track_of(chip), Track(links_name(self.parts, self.stage), PICOSECONDS)
        runs = joined(jobs(self.program, chip, each, numbers), track, links)
        took = length(runs)
        work = track.seconds(sum(x.ticks for x in runs if x.track == track))
        layers = tuple(layers_among(alone, runs, numbers))
        waited = float(took) - alone.seconds
        flows = standing(chip)
        idle = Joules(*(getattr(flows, f.name) * waited for f in fields(flows)))
        found = replace(
            alone,
            tracks=(track, links),
            stretches=(Stretch(layers, took),),
            joules_by=alone.joules_by + idle,
            peak_macs=alone.peak_macs * float(took) / alone.seconds if alone.seconds else 0.0,
        )
        return found, work, float(took) - work


def stage_name(parts: Partition, stage: int) -> str:
    return f"stage {stage}" if len(parts.stages) > 1 else "all chips"


def links_name(parts: Partition, stage: int) -> str:
    return f"{LINKS} of {stage_name(parts, stage)}" if len(parts.stages) > 1 else LINKS


def moving(cost: BlockCost) -> BlockCost:
    """Return the cost of an exchange at its own chip: it moves its bytes, which the links' time holds."""
    joules = replace(cost.joules, compute=0.0, local=0.0, control=0.0)
    return replace(cost, cycles=0, joules=joules, macs=0, ops=0, roof_cycles=0.0)


def jobs(
    program: Program, chip: Chip, each: Sequence[BlockCost], numbers: Mapping[int, Meeting]
) -> list[ChipJob]:
    """Return the launches and the exchanges of a program, in order."""
    alone = spans(program, chip, each)
    after = waits(program, tuple(numbers))
    out = []
    for i, (span, cost) in enumerate(zip(alone, each, strict=True)):
        held = numbers.get(i)
        waited = {numbers[x].launch if x in numbers else x for x in after[i]}
        if held is None:
            out.append(ChipJob(cost.cycles, span.begin - span.start, after=tuple(sorted(waited))))
        elif held.launch != i:
            out.append(ChipJob(seconds=0.0))
        else:
            every = waited.union(*(after[x] for x in held.held))
            out.append(ChipJob(seconds=held.time.seconds, after=tuple(sorted(every))))
    return out


def layers_among(alone: Report, runs: Sequence[Span], numbers: Mapping[int, Meeting]) -> list[Layer]:
    """Return the layers of a report as they run among exchanges; those of exchanges on the links' track."""
    first: dict[int, int] = {}
    for layer in alone.layers:
        first[layer.launch] = min(layer.start_cycle, first.get(layer.launch, layer.start_cycle))
    out = []
    for layer in alone.layers:
        run = runs[layer.launch]
        if layer.launch not in numbers:
            shift = run.start - first[layer.launch]
            out.append(
                replace(layer, start_cycle=layer.start_cycle + shift, end_cycle=layer.end_cycle + shift)
            )
            continue
        m = numbers[layer.launch]
        when = replace(layer, start_cycle=run.start, end_cycle=run.end, track=run.track)
        how = f"{m.time.algorithm}, {m.time.protocol}" if m.launch == layer.launch else "in a bucket"
        out.append(replace(when, op=m.op, kernel=how, bound_by=LINKS, next_bound="", slack=0.0))
    return out


def memory(program: Program, chip: Chip, buffers: int, batches: int) -> MemoryUse:
    """Return what of a chip's DRAM a program takes; states, in place, are there once a micro-batch."""
    weights = sum(b.type.bytes for b in program.consts)
    given = {(b.space, b.address) for b in program.inputs}
    state = sum(b.type.bytes for b in program.outputs if (b.space, b.address) in given)
    rest = max(program.dram_bytes - weights - state, 0)
    return MemoryUse(weights, state * batches, rest, buffers, chip.dram.bytes)
