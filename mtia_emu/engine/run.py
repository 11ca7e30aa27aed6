"""Joins the readings of a program into a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..chip import Chip
from ..isa import Program
from ..report import Joules, Layer, Report, Traffic
from ..types import dtype
from .energy import dynamic, traffic
from .events import events
from .lookups import Lookups, cache_bytes, through_cache
from .timing import Timeline, timeline


@dataclass(frozen=True)
class BlockCost:
    """One block on one chip: its times, what it moves, what it costs without static power."""

    time: Timeline
    cycles: int
    traffic: Traffic
    joules: Joules
    macs: int


def cost(program: Program, index: int, chip: Chip, lookups: Lookups | None = None) -> BlockCost:
    """Return the cost of one block of a program."""
    block, cache = program.blocks[index], cache_bytes(program, chip)
    ev = events(block, chip, lookups, cache)
    time = timeline(block, chip, lookups, cache)
    return BlockCost(time, math.ceil(time.cycles), traffic(ev), dynamic(block, ev, chip), int(ev.macs.sum()))


def costs(program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None) -> list[BlockCost]:
    """Return the cost of each launch; equal blocks are timed once. `lookups` are what the data tell."""
    chip = chip.part(**program.chip.get("grid", chip.grid.model_dump()))
    lookups = through_cache(program, chip, lookups or {})
    seen: dict[int, BlockCost] = {}
    out = []
    for index, launch in enumerate(program.launches):
        if index in lookups:
            out.append(cost(program, launch.block, chip, lookups[index]))
            continue
        if launch.block not in seen:
            seen[launch.block] = cost(program, launch.block, chip)
        out.append(seen[launch.block])
    return out


def report(program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None) -> Report:
    """Return the report of a program on a chip; `lookups` are an execution's, or an input's."""
    each = costs(program, chip, lookups)
    layers: list[Layer] = []
    at, total, parts = 0, Traffic(), Joules()
    static_per_cycle = chip.energy.static_w / chip.clock_hz
    for launch, c in zip(program.launches, each, strict=True):
        seconds = chip.launch.replace_s if layers else chip.launch.first_s
        gap = math.ceil(chip.cycles(seconds))
        start, end = at, at + gap + c.cycles  # a layer's span begins with its launch
        joules = c.joules.total + (gap + c.cycles) * static_per_cycle
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
                joules,
                "launch" if gap > c.cycles else c.time.bound_by,
            )
        )
        at, total, parts = end, _sum(total, c.traffic), _sum(parts, c.joules)
    macs = sum(c.macs for c in each)
    peak = chip.peak_macs_per_cycle(dtype(program.dtype))
    return Report(
        program.model,
        chip.name,
        program.dtype,
        program.dims,
        chip.clock_hz,
        at,
        replace(parts, static=at * static_per_cycle),
        total,
        macs,
        macs / (peak * at) if at else 0.0,
        tuple(layers),
        program.notes,
    )


def _sum(a: Any, b: Any) -> Any:
    return type(a)(*(getattr(a, f.name) + getattr(b, f.name) for f in fields(a)))
