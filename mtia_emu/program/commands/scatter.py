"""Rows changed where indices say, and indices grouped: sorted first, so that equal ones are one PE's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...machine.units.simd import scatter
from ...machine.ways import gather
from ...types import distinct_rows
from ..columns import CommandColumns
from ..events import Events
from ..fields import COLS, DST, FN, OPERAND, OPERAND2, PE, ROW, ROW2, ROWS, Fields, K
from ..isa import SCATTER_NAMES, Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors
from .dma import LOADS, cross_network, into_grid, pass_memory, transfers
from .lookups import indices

RADIX_BITS = 8  # of a row's number that one pass sorts by: a table of 256 counts for each core
SORT_STEPS = 2  # a key is counted, then moved, in each pass


class ScatterRows(CommandKind):
    """A share of the updates, in the order of the rows that they change: each row is read, changed, written.

    All cores sort the indices by radix: each has as many as it has updates, and writes them to SRAM in each
    pass. Equal rows are next to one another then; all updates of a row belong to the share that the first of
    them is in, and are applied in the order of their indices. So the result is the same on every grid.
    """

    opcode, queue = Opcode.SCATTER, LOADS
    unit = "core, dma and simd"
    text = (
        "rows of operand = SCATTERS[fn](themselves, rows of operand row2), for updates row .. row + rows"
        " by the order of operand2's indices, sorted; slot dst holds rows on their way"
    )
    reads, writes, operands = (), ("dst",), ("operand", "operand2", "row2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        zero, one = np.zeros_like(at), np.ones_like(at)
        columns.refuse(
            c["fn"] >= len(SCATTER_NAMES), at, f"unknown change; right: 0 to {len(SCATTER_NAMES) - 1}"
        )
        columns.writable(at, c["operand"])
        columns.tile(at, c["operand"], zero, one, zero, c["cols"])
        columns.tile(at, c["operand2"], zero, one, c["row"], c["rows"])
        columns.operand(at, c["row2"])
        columns.tile(at, c["row2"], c["row"], c["rows"], zero, c["cols"])
        columns.integers(at, c["operand2"])
        kinds, whole = columns.operand_kind, columns.operand_cols
        columns.refuse(kinds[c["operand"]] != kinds[c["row2"]], at, "rows and updates differ in type")
        columns.refuse(whole[c["operand"]] != c["cols"], at, "rows are changed whole")
        columns.held(at, c["dst"], c["cols"])
        columns.same(at, c["dst"], c["operand"])

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, block = batch.at, batch.c, batch.block
        out, index, updates = (block.operands[int(c[f][0])] for f in ("operand", "operand2", "row2"))
        mine, row_bytes = c["rows"].astype(float), np.full(len(at), float(out.cols * out.dtype.bytes))
        distinct = distinct_rows(index.cols, out.rows) * mine / max(1, index.cols)
        read = distinct * (c["fn"] > 0)  # what is overwritten is not read
        burst, once = batch.chip.dram.burst, np.ones(len(at))
        pass_memory(ev, at, updates.space, mine * row_bytes, burst(row_bytes, mine), out=False)
        pass_memory(ev, at, out.space, read * row_bytes, burst(row_bytes, read), out=False)
        pass_memory(ev, at, out.space, distinct * row_bytes, burst(row_bytes, distinct), out=True)
        keys = mine * index.dtype.bytes
        pass_memory(ev, at, index.space, keys, burst(keys, once), out=False)
        sorted_bytes = sort_keys(ev, at, mine, index.dtype.bytes, np.full(len(at), out.rows))
        moved = (mine + read + distinct) * row_bytes
        cross_network(batch, ev, moved + keys + 2 * sorted_bytes)
        ev.run_bytes[at], ev.runs[at], ev.rows[at] = row_bytes, mine + read + distinct, mine + read
        ev.simd_passes[at] += mine * out.cols * (c["fn"] > 0)
        ev.local_write_bytes[at] += (mine + read) * row_bytes
        ev.local_read_bytes[at] += (mine + distinct) * row_bytes

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        at, chip = batch.at, batch.chip
        way = gather(transfers(batch, ev), chip)
        ordered = chip.pe.core.sort_cost(ev.scalar_elements[at] / SORT_STEPS)
        changed, _ = chip.pe.simd.cost(ev.simd_passes[at], batch.slot_bytes[batch.c["dst"]], 1)
        return into_grid(batch, way._replace(busy=ordered + np.maximum(way.busy, changed)))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        out, count = c[OPERAND], run.block.operands[c[OPERAND2]].cols
        named = indices(run, c[OPERAND2], 0, count, run.block.operands[out].rows)
        mine, members, group = _groups(named, c)
        if len(mine):
            rows = named[mine]
            run.put_rows(out, rows, _changed(run, c, rows, members, group))
        run.give(c[PE], c[DST], 1, c[COLS])[...] = 0

    def show(self, c: Any, block: Block) -> str:
        fn, part = SCATTER_NAMES[c["fn"]], f"[{c['row']}+{c['rows']}]"
        return f"%{c['operand']} {fn} rows %{c['row2']} at sorted %{c['operand2']}{part}"


class GroupIndices(CommandKind):
    """For a share of the indices, in the order of the rows that they name: where the first equal one stands.

    They are sorted as for `ScatterRows`. The places of all equal indices are written by the PE in whose share
    the first of them is.
    """

    opcode, queue = Opcode.GROUP, LOADS
    unit = "core and dma"
    text = (
        "rows of operand = the place of the first of operand2's indices that names the same of k rows, for "
        "indices row .. row + rows by their order, sorted"
    )
    reads, writes, operands = (), (), ("operand", "operand2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        zero, one = np.zeros_like(at), np.ones_like(at)
        columns.writable(at, c["operand"])
        columns.refuse(c["k"] < 1, at, "the axis has at least one row")
        columns.tile(at, c["operand"], c["row"], c["rows"], zero, one)
        columns.tile(at, c["operand2"], zero, one, c["row"], c["rows"])
        for name in ("operand", "operand2"):
            columns.integers(at, c[name])

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, block = batch.at, batch.c, batch.block
        out, index = (block.operands[int(c[f][0])] for f in ("operand", "operand2"))
        mine, burst = c["rows"].astype(float), batch.chip.dram.burst
        keys, places = mine * index.dtype.bytes, mine * out.dtype.bytes
        pass_memory(ev, at, index.space, keys, burst(keys, np.ones(len(at))), out=False)
        each = np.full(len(at), float(out.dtype.bytes))
        pass_memory(ev, at, out.space, places, burst(each, mine), out=True)
        sorted_bytes = sort_keys(ev, at, mine, index.dtype.bytes, c["k"])
        cross_network(batch, ev, places + keys + 2 * sorted_bytes)
        ev.run_bytes[at], ev.runs[at] = each, mine

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        way = gather(transfers(batch, ev), batch.chip)
        ordered = batch.chip.pe.core.sort_cost(ev.scalar_elements[batch.at] / SORT_STEPS)
        return into_grid(batch, way._replace(busy=ordered + way.busy))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        named = indices(run, c[OPERAND2], 0, run.block.operands[c[OPERAND2]].cols, c[K])
        mine, members, group = _groups(named, c)
        if len(mine):
            run.put_rows(c[OPERAND], members, mine[group].reshape(-1, 1))

    def show(self, c: Any, block: Block) -> str:
        return f"%{c['operand']} = firsts of sorted %{c['operand2']}[{c['row']}+{c['rows']}] in {c['k']} rows"


def sort_keys(ev: Events, at: Array, mine: Array, key_bytes: int, rows: Array) -> Array:
    """Count a radix sort of `mine` keys of each command; return the bytes that go to SRAM, and come back."""
    passes = np.ceil(np.log2(np.maximum(2, rows)) / RADIX_BITS)
    ev.scalar_elements[at] += mine * passes * SORT_STEPS
    sorted_bytes = mine * passes * (key_bytes + 4)  # a key and its place
    ev.sram_read_bytes[at] += sorted_bytes
    ev.sram_write_bytes[at] += sorted_bytes
    return sorted_bytes


def _groups(named: Array, c: Fields) -> tuple[Array, Array, Array]:
    """Return the groups of equal numbers whose first, when sorted, is in a command's share.

    They are the places of their first members; those of all members, in order; and each member's group.
    """
    order = np.argsort(named, kind="stable")
    first = np.flatnonzero(np.diff(named[order], prepend=-1))
    mine = first[(first >= c[ROW]) & (first < c[ROW] + c[ROWS])]
    if not len(mine):
        return order[:0], order[:0], order[:0]
    last = np.append(first, len(named))[np.searchsorted(first, mine[-1]) + 1]
    group = np.searchsorted(mine, np.arange(mine[0], last), "right") - 1
    return order[mine], order[mine[0] : last], group


def _changed(run: MemoryDoors, c: Fields, rows: Array, at: Array, group: Array) -> Array:
    """Return rows [n, cols] after the updates at[m], in order; update i changes row group[i] of them."""
    updates = run.rows(c[ROW2], at)
    if not c[FN]:
        return updates[np.append(np.flatnonzero(np.diff(group)), len(group) - 1)]
    return scatter(SCATTER_NAMES[c[FN]], run.rows(c[OPERAND], rows), (group,), updates)
