"""What each unit did, layer by layer, as events of a trace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from ..engine.cost import BlockCost
from ..engine.lookups import Lookups
from ..engine.run import costs, part
from ..machine.chip import Chip
from ..program.commands import UNITS
from ..program.isa import Block, Launch, Program
from ..view.trace import Event


def trace_events(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None
) -> Iterator[Event]:
    """Yield the events of a program: tracks `launch` and `layer`, and a track for each kind of unit.

    A unit's event spans from the first to the last command that a unit of that kind ran in the layer, on any
    PE. Of layers side by side each has one more, from its first to its last command, on the track of its rows
    of PEs. `lookups` are those of the execution that the report is of, where there was one.
    """
    cols = part(program, chip).grid.cols
    at = 0.0
    for index, (launch, cost) in enumerate(zip(program.launches, costs(program, chip, lookups), strict=True)):
        gap = math.ceil(chip.cycles(chip.launch.replace_s if index else chip.launch.first_s))
        block, time = program.blocks[launch.block], cost.time
        start = at + gap
        yield Event("launch", launch.name, at, start, {})
        yield Event(
            "layer",
            launch.name,
            start,
            start + cost.cycles,
            {
                "op": launch.op,
                "kernel": block.kernel,
                "mapping": block.mapping,
                "bound_by": cost.split.bound_by,
            },
        )
        yield from _parts(launch, block, cost, start, cols)
        for unit in np.unique(time.unit):
            mine = time.unit == unit
            low, high = float(time.start[mine].min()), float(time.end[mine].max())
            span = {"commands": int(mine.sum())}
            yield Event(UNITS[int(unit)], launch.name, start + low, start + high, span)
        at = start + cost.cycles


def _parts(launch: Launch, block: Block, cost: BlockCost, start: float, cols: int) -> Iterator[Event]:
    """Yield an event for each of the layers that a launch runs side by side."""
    if not launch.parts or not cost.members:
        return
    time = cost.time
    band = np.searchsorted(block.bands, block.commands["pe"] // cols, side="right")
    for index, (layer, first) in enumerate(zip(launch.parts, (0, *block.bands), strict=True)):
        mine = band == index
        if mine.any():
            low, high = float(time.start[mine].min()), float(time.end[mine].max())
            told = {"op": layer.op, "bound_by": cost.members[index].split.bound_by}
            yield Event(f"layer from row {first}", layer.name, start + low, start + high, told)
