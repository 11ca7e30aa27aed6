"""Rows by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import Transfer
from mtia_emu.program.isa import Block, Cast, Opcode, Operand

from ..builder import Builder, ceil_div
from ..estimates import RINGS, Turn, pipelined
from ..halves import Portion, in_two, part
from ..kernel import Kernel
from ..phases import Phases

T = TypeVar("T")
ISSUE = Phases(gather=0, store=1)  # a tile is stored while the next one is gathered


class GatherKernel(Kernel):
    """out[o, i] = x[o, indices[i]]: see `emit_gather`."""

    name = "gather"
    summary = "rows by index"
    writes_views = shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: see `emit_gather`."""
        return emit_gather(chip, inputs[0], inputs[1], outputs[0])

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return the indices."""
        return inputs[1:]

    def halves(self, call: Portion) -> list[Portion]:
        """Cut what lies before the axis, else the indices."""
        (table, indices), (out,) = call.inputs, call.outputs
        outer, count = table.shape[0], indices.shape[1]
        if outer > 1:
            return in_two(
                outer,
                lambda s, n: call.of([part(table, 0, s, n), indices], [part(out, 0, s * count, n * count)]),
            )
        if count < 2:
            return []
        return in_two(count, lambda s, n: call.of([table, part(indices, 1, s, n)], [part(out, 0, s, n)]))


def emit_gather(chip: Chip, x: Operand, indices: Operand, out: Operand) -> Block:
    """Return the block of a gather: out[o, i] = x[o, indices[i]], rows of contiguous elements.

    x is [outer, axis, inner], indices [1, count], out [outer * count, inner]. Negative indices count from the
    end.
    """
    outer, axis, inner = x.shape
    count = indices.cols
    build = Builder(chip, "gather", (x, indices, out))
    rows, cols = _tile(chip, x, indices, out)
    slot = build.slot(x.dtype, rows * cols, RINGS)
    per_outer, across = ceil_div(count, rows), ceil_div(inner, cols)
    t = build.steps(outer * per_outer * across)
    block, first = t // (per_outer * across), t // across % per_outer * rows
    col, pe, j = t % across * cols, chip.grid.near(t), t // chip.pes
    tile = {"rows": np.minimum(rows, count - first), "col": col, "cols": np.minimum(cols, inner - col)}
    ring = slot + j % RINGS
    build.add(
        Opcode.GATHER,
        ISSUE.at("gather", j),
        pe=pe,
        operand=0,
        operand2=1,
        row=block * axis,
        row2=first,
        k=axis,
        dst=ring,
        **tile,
    )
    at = ISSUE.at("store", j)
    build.add(Opcode.STORE, at, pe=pe, operand=2, src0=ring, row=block * count + first, **tile)
    return build.block()


def _tile(chip: Chip, x: Operand, indices: Operand, out: Operand) -> tuple[int, int]:
    """Return the rows and columns of a tile: those of one tile a PE, or of fewer where that is faster.

    Few PEs have long runs of indices and short ways.
    """
    (outer, _, inner), count = x.shape, indices.cols
    room = chip.pe.local.bytes // 2 // RINGS // x.dtype.bytes
    cols = min(inner, room)
    across, most = ceil_div(inner, cols), min(max(1, room // cols), count)
    tiles = [chip.pes, *(1 << i for i in range((2 * chip.pes).bit_length()))]
    shares = (ceil_div(outer * count, max(1, n // across)) for n in tiles)
    rows = np.array(list(dict.fromkeys(min(most, n) for n in shares)))
    number = np.ceil(count / rows) * outer * across
    beside = np.minimum(number, chip.pes)
    row = np.ceil(beside / chip.grid.rows)  # PEs that take turns on a link
    hops = chip.grid.hops(row.astype(np.int64) - 1, Cast.NONE)
    named, wide = rows * indices.dtype.bytes, cols * x.dtype.bytes
    missed = float(x.space.off_chip or indices.space.off_chip)
    come = ways.gather(Transfer(rows * wide + named, rows, hops, missed=missed, rows=rows), chip)
    go = ways.store(Transfer(rows * wide, rows if cols < inner else 1.0, hops), chip)
    turns = (
        _turn(chip, come, beside, ((x, wide, rows), (indices, named, 1.0))),
        _turn(
            chip, go, beside, ((out, wide if cols < inner else wide * rows, rows if cols < inner else 1.0),)
        ),
    )
    cycles = pipelined(number, turns, 0.0, 2, chip)
    return int(rows[np.argmin(cycles)]), cols


def _turn(chip: Chip, way: ways.Way, beside: Any, moved: Sequence[tuple[Operand, Any, Any]]) -> Turn:
    """Return what a turn takes in which so many PEs move (operand, bytes of a run, runs) each, that way."""
    dram = sram = np.zeros(len(beside))
    for x, run, runs in moved:
        if x.space.off_chip:
            dram = dram + chip.run_cycles(run, runs * beside)
        else:
            sram = sram + chip.sram_cycles(run * runs * beside)
    row = np.ceil(beside / chip.grid.rows)
    return Turn(way.busy, row * way.on_link, sram, dram, way.latency)
