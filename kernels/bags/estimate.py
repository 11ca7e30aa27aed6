"""The cycles that embedding bags are estimated to take, a mean number of look-ups in every bag.

The way of a command's rows is `machine.ways.pool`; what PEs share is counted over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import Pooled, Transfer
from mtia_emu.program.isa import Cast
from mtia_emu.types import FP32

from ..builder import ceil_div
from .operands import BagOperands, bags_each

Array = np.ndarray[Any, Any]


def bag_cycles(chip: Chip, tables: Sequence[BagOperands], most: int) -> float:
    """Return about the cycles of bags of tables of one width and type, up to `most` bags in a command.

    The busiest of a PE's queue of loads, DRAM, SRAM and the links sets the pace; the result of the last
    command is stored behind it.
    """
    shares = [bags_each(t.out.rows, most, chip.pes) for t in tables]
    counts = [ceil_div(t.out.rows, bags) for t, bags in zip(tables, shares, strict=True)]
    furthest = int(chip.grid.near(min(sum(counts), chip.pes) - 1))
    commands = [_command(chip, t, bags, furthest) for t, bags in zip(tables, shares, strict=True)]
    pe = chip.grid.near(np.arange(sum(counts)))
    busy, link = (
        np.repeat([float(x) for x in each], counts)
        for each in zip(*((x.busy, x.on_link) for x in commands), strict=True)
    )
    dram, sram = _memories(chip, tables)
    pace = max(np.bincount(pe, busy).max(), np.bincount(pe // chip.grid.cols, link).max(), dram, sram)
    late = max(float(x.latency) for x in commands)
    return float(chip.pe.core.issue(1) + pace) + late + _end(chip, tables, most, furthest)


def _command(chip: Chip, t: BagOperands, bags: int, pe: int) -> ways.Way:
    """Return the way of the rows of one command, to a PE."""
    looks = bags * t.looked_up
    row_bytes = t.table.cols * t.table.dtype.bytes
    named = looks * t.indices.dtype.bytes + (bags + 1) * t.offsets.dtype.bytes
    named += looks * t.weights.dtype.bytes if t.weights else 0
    hops = chip.grid.hops(pe, Cast.NONE)
    missed = float(t.table.space.off_chip or t.indices.space.off_chip)  # indices come the same way
    rows = Transfer(looks * row_bytes + named, looks, hops, missed=missed, rows=looks)
    passes = 1 + (t.table.cols != t.out.cols) + bool(t.weights)  # what is quantised passes once more
    pooled = Pooled(*map(np.asarray, (bags, t.looked_up, row_bytes, t.out.cols * passes)))
    return ways.pool(rows, pooled, chip)


def _memories(chip: Chip, tables: Sequence[BagOperands]) -> tuple[float, float]:
    """Return the cycles of DRAM and of SRAM for all rows and results; indices are small beside them."""
    dram = sram = 0.0
    for t in tables:
        for x, run, runs in (
            (t.table, t.table.cols * t.table.dtype.bytes, t.indices.cols),
            (t.out, t.out.cols * t.out.dtype.bytes, t.out.rows),
        ):
            if x.space.off_chip:
                dram += float(chip.run_cycles(run, runs))
            else:
                sram += float(chip.sram_cycles(run * runs))
    return dram, sram


def _end(chip: Chip, tables: Sequence[BagOperands], most: int, pe: int) -> float:
    """Return the cycles in which the last command's result is narrowed and stored."""
    out = tables[0].out
    elements = max(bags_each(t.out.rows, most, chip.pes) for t in tables) * out.cols
    narrowed, wait = chip.pe.simd.cost(elements, FP32.bytes, 1)
    hops = chip.grid.hops(pe, Cast.NONE)
    store = ways.store(Transfer(elements * out.dtype.bytes, 1, hops), chip)
    return float(store.busy + store.latency) + (float(narrowed) + wait if out.dtype != FP32 else 0.0)
