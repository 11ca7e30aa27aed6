"""Rows of tables named by indices: gathered, or pooled bag by bag on the SIMD engine."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ...errors import UserError
from ...machine.ways import Pooled, gather, pool
from ..columns import CommandColumns
from ..events import Events
from ..fields import COL, COLS, DST, FLAGS, FN, OPERAND, OPERAND2, PE, ROW, ROW2, ROWS, Fields, K
from ..isa import LOWEST, POOL_MODES, QUANTISED, Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, tile_text
from .dma import LOADS, cross_network, into_grid, pass_memory, transfers


class GatherRows(CommandKind):
    """Rows of a table into a slot, one after another."""

    opcode, queue = Opcode.GATHER, LOADS
    unit, text = "dma", "rows of an operand named by operand2[row2 : row2 + rows], from `row` on -> slot dst"
    reads, writes, operands = (), ("dst",), ("operand", "operand2")
    looks_up = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        one = np.ones_like(at)
        columns.tile(at, c["operand"], c["row"], c["k"], c["col"], c["cols"])
        columns.tile(at, c["operand2"], 0 * one, one, c["row2"], c["rows"])
        columns.refuse(c["k"] < 1, at, "the axis has at least one row")
        columns.held(at, c["dst"], c["rows"] * c["cols"])
        columns.same(at, c["dst"], c["operand"])
        columns.integers(at, c["operand2"])

    def count(self, batch: Batch, ev: Events) -> None:
        c, rows = batch.c, batch.c["rows"].astype(float)
        row_bytes = c["cols"].astype(float) * batch.operand_bytes[c["operand"]]
        _look_up(batch, ev, rows, row_bytes)
        ev.local_write_bytes[batch.at] += rows * row_bytes

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return into_grid(batch, gather(transfers(batch, ev), batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        at = indices(run, c[OPERAND2], c[ROW2], c[ROW2] + c[ROWS], c[K]) + c[ROW]
        data = run.rows(c[OPERAND], at)[:, c[COL] : c[COL] + c[COLS]]
        run.give(c[PE], c[DST], c[ROWS], c[COLS])[...] = data

    def show(self, c: Any, block: Block) -> str:
        return f"s{c['dst']} = %{c['operand']}{tile_text(c)} rows %{c['operand2']}[{c['row2']}+{c['rows']}]"


class PoolBags(CommandKind):
    """Bags of rows of a table, each summed, into a slot."""

    opcode, queue = Opcode.POOL, LOADS
    unit, text = "dma and simd", "bags row .. row + rows of an embedding bag, about k look-ups -> slot dst"
    reads, writes, operands = (), ("dst",), ("operand", "operand2", "row2")  # row2: of the weights
    looks_up = pools = opaque = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        """Check what is known before it runs: the executor refuses look-ups outside indices and table."""
        zero, one = np.zeros_like(at), np.ones_like(at)
        quantised, offsets = (c["flags"] & QUANTISED) > 0, c["operand2"] + 1
        columns.refuse(c["fn"] >= len(POOL_MODES), at, f"unknown mode; right: 0 to {len(POOL_MODES) - 1}")
        columns.tile(at, c["operand"], zero, one, zero, c["cols"] + 8 * quantised)
        columns.tile(at, offsets, zero, one, c["row"], c["rows"] + 1)
        columns.tile(at, c["operand2"], zero, one, zero, one)
        unknown = (c["k"] < 0) | (c["flags"] & ~(QUANTISED | LOWEST) > 0) | (c["row2"] < -1)
        columns.refuse(unknown, at, "negative look-ups or unknown flags")
        columns.integers(at, c["operand2"])
        columns.integers(at, offsets)
        names = np.array([k.name for k in columns.kinds])[columns.operand_kind[c["operand"]]]
        columns.refuse(quantised & (names != "uint8"), at, "quantised rows are uint8")
        weights = np.maximum(c["row2"], 0)
        columns.operand(at, weights)
        short = columns.operand_cols[weights] < columns.operand_cols[c["operand2"]]
        columns.refuse((c["row2"] >= 0) & short, at, "fewer weights than indices")
        columns.held(at, c["dst"], c["rows"] * c["cols"])
        _one_pair(columns, at, c)

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, looks, cols = batch.at, batch.c, batch.c["k"].astype(float), batch.c["cols"].astype(float)
        table = batch.block.operands[int(c["operand"][0])]
        row_bytes = np.full(len(at), float(table.cols * table.dtype.bytes))
        _look_up(batch, ev, looks, row_bytes)
        weighted = c["row2"] >= 0
        _read_words(batch, ev, int(c["operand2"][0]) + 1, c["rows"] + 1.0)
        _read_words(batch, ev, int(c["row2"].max()), looks * weighted)
        ev.local_write_bytes[at] += looks * row_bytes + c["rows"] * cols * 4
        ev.local_read_bytes[at] += looks * row_bytes
        dequantise = 1 + (c["flags"] & QUANTISED)
        ev.simd_passes[at] += looks * cols * (dequantise + weighted)
        ev.commands[at] += np.ceil(looks / batch.chip.pe.core.rows_per_accumulate)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return into_grid(batch, pool(transfers(batch, ev), _pooled(batch, ev), batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        row, rows, cols, weights = c[ROW], c[ROWS], c[COLS], c[ROW2]
        offsets = run.tile(c[OPERAND2] + 1, 0, 1, row, rows + 1)[0].astype(np.int64)
        count = run.block.operands[c[OPERAND2]].cols
        if (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > count:
            raise UserError(
                f"offsets of bags {row} .. {row + rows} must rise from 0 to at most {count}, "
                f"got {offsets[:8]}"
            )
        low, high = int(offsets[0]), int(offsets[-1])
        at = indices(run, c[OPERAND2], low, high, run.block.operands[c[OPERAND]].rows)
        values = widen_rows(run.rows(c[OPERAND], at), cols, quantised=bool(c[FLAGS] & QUANTISED))
        if weights >= 0:
            values = values * run.tile(weights, 0, 1, low, high - low)[0].astype(np.float32)[:, None]
        run.note_lookups(at)
        run.give(c[PE], c[DST], rows, cols)[...] = pool_bags(
            values, offsets - low, POOL_MODES[c[FN]], -np.inf if c[FLAGS] & LOWEST else 0.0
        )

    def show(self, c: Any, block: Block) -> str:
        mode = POOL_MODES[c["fn"]]
        return f"s{c['dst']} = {mode} %{c['operand']} bags {tile_text(c)} about {c['k']} look-ups"


def _one_pair(columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
    _, first, table = np.unique(c["operand"], return_index=True, return_inverse=True)
    for name, what in (("operand2", "indices"), ("row2", "weights")):
        other = c[name] != c[name][first][table]
        columns.refuse(other, at, f"all pools of a table of a block read the same {what}")


def _look_up(batch: Batch, ev: Events, rows: Array, row_bytes: Array) -> None:
    """Count the rows of an indexed transfer and the indices that name them."""
    at, c, block, burst = batch.at, batch.c, batch.block, batch.chip.dram.burst
    index_bytes = rows * batch.operand_bytes[c["operand2"]]
    ev.run_bytes[at], ev.runs[at], ev.rows[at] = row_bytes, rows, rows
    table, index = block.operands[int(c["operand"][0])], block.operands[int(c["operand2"][0])]
    pass_memory(ev, at, table.space, rows * row_bytes, burst(row_bytes, rows), out=False)
    pass_memory(ev, at, index.space, index_bytes, burst(index_bytes, np.ones_like(rows)), out=False)
    cross_network(batch, ev, rows * row_bytes + index_bytes)


def _read_words(batch: Batch, ev: Events, operand: int, words: Array) -> None:
    """Count so many words of an operand, one run for each command; none of operand -1."""
    if operand < 0:
        return
    data, space = words * batch.operand_bytes[operand], batch.block.operands[operand].space
    bursts = batch.chip.dram.burst(data, np.ones(len(batch.at)))
    pass_memory(ev, batch.at, space, data, bursts, out=False)
    cross_network(batch, ev, data)


def _pooled(batch: Batch, ev: Events) -> Pooled:
    """Return what commands pool, by what was counted of them."""
    bags, looks = np.maximum(batch.c["rows"], 1), ev.rows[batch.at]
    passes = np.divide(ev.simd_passes[batch.at], looks, out=np.zeros(len(looks)), where=looks > 0)
    return Pooled(bags, looks / bags, ev.run_bytes[batch.at], passes)


def indices(run: MemoryDoors, operand: int, start: int, stop: int, axis: int) -> Array:
    """Return indices start..stop of a one-row operand, counted from 0; refuse those outside the axis."""
    values = run.tile(operand, 0, 1, start, stop - start)[0].astype(np.int64)
    wrong = (values < -axis) | (values >= axis)
    if wrong.any():
        where = start + int(np.argmax(wrong))
        raise UserError(f"index {values[wrong][0]} at position {where} is outside 0 .. {axis - 1}")
    return np.where(values < 0, values + axis, values)


def widen_rows(raw: Array, cols: int, *, quantised: bool) -> Array:
    """Return table rows as fp32; a quantised row is `cols` uint8 values, an fp32 scale, an fp32 offset."""
    if not quantised:
        return raw[:, :cols].astype(np.float32)
    tail = np.ascontiguousarray(raw[:, cols : cols + 8]).view(np.float32)
    return raw[:, :cols].astype(np.float32) * tail[:, :1] + tail[:, 1:2]


def pool_bags(values: Array, offsets: Array, mode: str, empty: float = 0.0) -> Array:
    """Return the pooled bags in fp32, rows added in order; an empty bag gives `empty`."""
    out = np.full((len(offsets) - 1, values.shape[1]), empty, np.float32)
    for bag, (low, high) in enumerate(pairwise(offsets)):
        if high > low:
            rows = values[low:high]
            out[bag] = rows.max(axis=0) if mode == "max" else np.add.reduce(rows, axis=0)
            if mode == "mean":
                out[bag] /= np.float32(high - low)
    return out
