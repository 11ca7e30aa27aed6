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
from .energy import dynamic, spared, standing, traffic
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


def report(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    zero_macs: Mapping[int, Mapping[str, int]] | None = None,
) -> Report:
    """Return the report of a program on a chip.

    `lookups` are an execution's, or an input's, `zero_macs` an execution's, by launch; without them bags have
    their mean of look-ups and no operand is zero.
    """
    each = costs(program, chip, lookups)
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
                "launch" if gap > c.cycles else c.time.bound_by,
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
