"""Joins the readings of a program into a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..chip import Chip
from ..isa import Block, Program
from ..report import LAUNCH, Joules, Layer, Report, Traffic
from ..types import dtype
from .bounds import Split, roof_cycles, split
from .energy import dynamic, spared, standing, traffic
from .events import Events, events
from .lookups import Lookups, cache_bytes, through_cache
from .timing import Timeline, check_fits, timed

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
    layers: list[Layer] = []
    at, total, parts = 0, Traffic(), Joules()
    power = standing(chip)
    for index, (launch, c) in enumerate(zip(program.launches, each, strict=True)):
        seconds = chip.launch.replace_s if layers else chip.launch.first_s
        gap = math.ceil(chip.cycles(seconds))
        start, end = at, at + gap + c.cycles  # a layer's span begins with its launch
        joules = _layer_joules(c.joules, (zero_macs or {}).get(index, {}), power, end - start, chip)
        layers.append(
            Layer(
                launch.name,
                launch.op,
                program.blocks[launch.block].kernel,
                start,
                end,
                c.macs,
                c.traffic.dram_read_bytes + c.traffic.dram_write_bytes,
                c.traffic.sram_read_bytes + c.traffic.sram_write_bytes,
                joules.total,
                LAUNCH if gap > c.cycles else c.split.bound_by,
                c.ops,
            )
        )
        at, total, parts = end, _sum(total, c.traffic), _sum(parts, joules)
    macs = sum(c.macs for c in each)
    peak = chip.peak_macs_per_cycle(dtype(program.dtype))
    return Report(
        program.model,
        chip.name,
        program.dtype,
        program.dims,
        chip.clock_hz,
        at,
        parts,
        total,
        macs,
        macs / (peak * at) if at else 0.0,
        tuple(layers),
        program.notes,
    )


def _layer_joules(
    events: Joules, zero_macs: Mapping[str, int], power: Joules, cycles: int, chip: Chip
) -> Joules:
    """Return what a launch costs: its events, less what zeros spare, and what flows for all its time."""
    seconds = cycles / chip.clock_hz
    compute = max(0.0, events.compute - spared(zero_macs, chip))
    flows = type(power)(*(getattr(power, f.name) * seconds for f in fields(power)))
    return _sum(replace(events, compute=compute), flows)


def _sum(a: Any, b: Any) -> Any:
    return type(a)(*(getattr(a, f.name) + getattr(b, f.name) for f in fields(a)))
