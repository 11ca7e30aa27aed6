"""Joins the readings of a program into a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

from ..chip import Chip
from ..isa import Block, Program
from ..report import LAUNCH, Joules, Layer, Report, Traffic
from ..types import dtype
from .bounds import Split, roof_cycles, split
from .energy import dynamic, spared, standing, traffic
from .events import Events, events
from .lookups import Lookups, cache_bytes, through_cache
from .timing import Timeline, check_fits, timed

T = TypeVar("T")
SCALAR = "scalar"  # the kernel that is an op's reference, on one core
CORE_SHARE = 0.1  # of the time, beyond which a note says that one core does it
Times = Mapping[tuple[int, int], Timeline]


@dataclass(frozen=True)
class BlockCost:
    """One block on one chip: its times, what it moves, what it costs without static power.

    `ops` are as in `Layer`; `roof_cycles` is the least time that the work could take on the chip.
    """

    time: Timeline
    cycles: int
    traffic: Traffic
    joules: Joules
    macs: int
    ops: int
    split: Split
    roof_cycles: float


def cost(block: Block, chip: Chip, ev: Events, time: Timeline | None = None) -> BlockCost:
    """Return the cost of one block that fits the chip, its events counted; it may have been timed."""
    time = time or timed(block, chip, ev)
    cycles, macs = math.ceil(time.cycles), int(ev.macs.sum())
    return BlockCost(
        time,
        cycles,
        traffic(ev),
        dynamic(block, ev, chip),
        macs,
        2 * macs + int(ev.simd_passes.sum() + ev.scalar_elements.sum()),
        split(ev, time, cycles),
        roof_cycles(ev, chip),
    )


class Counts:
    """The events of each launch of a program; those of launches without look-ups of their own are shared.

    They are counted when asked for, and kept where `keep` says so. No rate or price of the chip changes them.
    """

    def __init__(
        self,
        program: Program,
        chip: Chip,
        lookups: Mapping[int, Lookups] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self._program, self._chip = program, part(program, chip)
        self._lookups = through_cache(program, self._chip, lookups or {})
        self._cache_bytes = cache_bytes(program, self._chip)
        self._kept: dict[tuple[int, int], Events] | None = {} if keep else None

    def key(self, index: int) -> tuple[int, int]:
        """Return what launches with equal events have in common."""
        return self._program.launches[index].block, index if index in self._lookups else -1

    def of(self, index: int) -> Events:
        """Return the events of a launch."""
        key = self.key(index)
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        block = self._program.blocks[key[0]]
        found = events(block, self._chip, self._lookups.get(index), self._cache_bytes)
        if self._kept is not None:
            self._kept[key] = found
        return found


def part(program: Program, chip: Chip) -> Chip:
    """Return the corner of the chip that the program was compiled for."""
    return chip.part(**program.chip.get("grid", chip.grid.model_dump()))


def costs(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    counts: Counts | None = None,
    times: Times | None = None,
) -> list[BlockCost]:
    """Return the cost of each launch; equal blocks are timed once.

    `lookups` are what is known of the data; in their place `counts`, of a chip that differs in rates and
    prices only. `times`, by the key of `counts`, are of a chip that differs in prices only.

    Raises `UserError` where a block does not fit the chip.
    """
    known = counts or Counts(program, chip, lookups)
    chip = part(program, chip)
    seen: dict[tuple[int, int], BlockCost] = {}
    out = []
    for index, launch in enumerate(program.launches):
        key = known.key(index)
        if key not in seen:
            block, time = program.blocks[launch.block], times[key] if times else None
            check_fits(block, chip)
            seen[key] = cost(block, chip, known.of(index), time)
        out.append(seen[key])
    return out


def report(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    zero_macs: Mapping[int, Mapping[str, int]] | None = None,
    counts: Counts | None = None,
    times: Times | None = None,
    each: Sequence[BlockCost] | None = None,
) -> Report:
    """Return the report of a program on a chip; `lookups`, `counts` and `times` as in `costs`.

    `zero_macs` are an execution's, by launch; without them no operand is zero. `each` is the cost of each
    launch, where it is known already.
    """
    each = costs(program, chip, lookups, counts, times) if each is None else each
    joules = _joules(chip, each, zero_macs or {})
    layers = tuple(_layers(program, chip, each, joules))
    cycles, macs = layers[-1].end_cycle if layers else 0, sum(c.macs for c in each)
    peak = chip.peak_macs_per_cycle(dtype(program.dtype))
    return Report(
        program.model,
        chip.name,
        program.dtype,
        program.dims,
        chip.clock_hz,
        cycles,
        _sum(Joules, joules),
        _sum(Traffic, [c.traffic for c in each]),
        macs,
        macs / (peak * cycles) if cycles else 0.0,
        layers,
        program.notes + _core_notes(layers, cycles),
    )


def _core_notes(layers: Sequence[Layer], cycles: int) -> tuple[str, ...]:
    """Return what to say of work that one core does by itself, where that is much of the time."""
    took = Counter[str]()
    for layer in layers:
        if layer.kernel == SCALAR:
            took[layer.op] += layer.end_cycle - layer.start_cycle
    if took.total() <= CORE_SHARE * cycles:
        return ()
    most = ", ".join(op for op, _ in took.most_common(3))
    return (
        f"{took.total() / cycles:.0%} of the time one processor core works by itself, for want of a kernel "
        f"({most}): a real chip's software would spread that over the grid",
    )


def _layers(
    program: Program, chip: Chip, each: Sequence[BlockCost], joules: Sequence[Joules]
) -> Iterator[Layer]:
    """Return what each launch takes, one after another; a layer's span begins with its launch."""
    start = 0
    for launch, gap, c, spent in zip(program.launches, _gaps(chip, len(each)), each, joules, strict=True):
        end = start + gap + c.cycles
        yield Layer(
            launch.name,
            launch.op,
            program.blocks[launch.block].kernel,
            start,
            end,
            c.macs,
            c.traffic.dram_read_bytes + c.traffic.dram_write_bytes,
            c.traffic.sram_read_bytes + c.traffic.sram_write_bytes,
            spent.total,
            LAUNCH if gap > c.cycles else c.split.bound_by,
            c.ops,
        )
        start = end


def _gaps(chip: Chip, launches: int) -> list[int]:
    """Return the cycles that it takes to begin each launch."""
    first, more = (math.ceil(chip.cycles(x)) for x in (chip.launch.first_s, chip.launch.replace_s))
    return [first, *[more] * launches][:launches]


def _joules(
    chip: Chip, each: Sequence[BlockCost], zero_macs: Mapping[int, Mapping[str, int]]
) -> list[Joules]:
    """Return the joules of each launch; equal costs without zeros are priced once."""
    power, known = standing(chip), dict[tuple[int, int], Joules]()
    out = []
    for index, (gap, c) in enumerate(zip(_gaps(chip, len(each)), each, strict=True)):
        zeros, key = zero_macs.get(index, {}), (id(c), gap)
        if zeros or key not in known:
            out.append(_layer_joules(c.joules, zeros, power, gap + c.cycles, chip))
            known |= {} if zeros else {key: out[-1]}
        else:
            out.append(known[key])
    return out


def _layer_joules(
    events: Joules, zero_macs: Mapping[str, int], power: Joules, cycles: int, chip: Chip
) -> Joules:
    """Return what a launch costs: its events, less what zeros spare, and what flows for all its time."""
    seconds = cycles / chip.clock_hz
    compute = max(0.0, events.compute - spared(zero_macs, chip))
    flows = Joules(*(getattr(power, f.name) * seconds for f in fields(power)))
    return _sum(Joules, [replace(events, compute=compute), flows])


def _sum(kind: type[T], items: Sequence[T]) -> T:
    """Return the sum of dataclasses, field by field."""
    return kind(*(sum(getattr(x, f.name) for x in items) for f in fields(cast(Any, kind))))
