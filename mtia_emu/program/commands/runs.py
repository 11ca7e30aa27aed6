"""Rows of a table by runs of equal indices: sorted, summed run by run, fetched and put back.

A run is the indices that name one row, or so many of them at most. The words of runs lie in three operands,
one behind another: where each sorted update comes from [1, n], where each run begins [1, g + 1], and the row
that it names [1, g]. What is behind the last run begins where that one ends and names row -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UserError
from ...machine.units.simd import scatter
from ...machine.ways import gather, store
from ...types import distinct_rows
from ..columns import CommandColumns
from ..events import Events
from ..fields import COL, COL2, COLS, DST, FLAGS, OPERAND, OPERAND2, PE, ROW, ROW2, ROWS, SRC0, Fields, K
from ..geometry import links_out
from ..isa import NONE_BELOW, Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors
from .dma import LOADS, STORES, cross_network, into_grid, pass_memory, transfers
from .lookups import indices
from .scatter import SORT_STEPS, sort_keys

STARTS, NAMED = 1, 2  # operands behind that of the sources


class SortRuns(CommandKind):
    """A share of the indices, sorted by the row that they name, and the runs that begin in it.

    All cores sort by radix, as for `ScatterRows`. A PE writes what stands at its places of the sorted order,
    and at the same numbers of the runs.
    """

    opcode, queue = Opcode.SORT, LOADS
    unit = "core and dma"
    text = (
        "operands operand, + 1, + 2 = where operand2's indices into k rows come from, sorted by row; where "
        "each run of equal ones begins; its row. Places row .. row + rows of them; through places of operand "
        "row2 in col2 rows, if that is not negative. Runs of col at most, unless it is 0; with flag 1 an "
        "index below 0 names nothing"
    )
    reads, writes, operands = (), (), ("operand", "operand2", "row2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        zero, one = np.zeros_like(at), np.ones_like(at)
        for behind in (0, STARTS, NAMED):
            columns.operand(at, c["operand"] + behind)
            columns.writable(at, c["operand"] + behind)
            columns.integers(at, c["operand"] + behind)
        columns.tile(at, c["operand"], zero, one, c["row"], c["rows"])
        columns.tile(at, c["operand2"], zero, one, c["row"], c["rows"])
        columns.integers(at, c["operand2"])
        cols = columns.operand_cols
        runs = cols[c["operand"] + NAMED]
        columns.refuse(cols[c["operand"]] != cols[c["operand2"]], at, "as many sources as indices")
        columns.refuse(cols[c["operand"] + STARTS] != runs + 1, at, "one start more than there are runs")
        count, most = cols[c["operand2"]], np.maximum(c["col"], 1)
        columns.refuse((c["k"] < 1) | (c["col"] < 0) | (c["flags"] & ~NONE_BELOW > 0), at, "no such sort")
        need = np.minimum(count, np.minimum(count, c["k"]) + (c["col"] > 0) * (count // most))
        columns.refuse(runs < need, at, "too few runs")
        placed = c["row2"] >= 0
        places = np.maximum(c["row2"], 0)
        columns.operand(at, places)
        columns.refuse(placed & (cols[places] != cols[c["operand2"]]), at, "a place for each index")
        columns.refuse(placed & (c["col2"] < 1), at, "places are in at least one row")
        columns.integers(at, np.where(placed, places, c["operand2"]))

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, block = batch.at, batch.c, batch.block
        first, index = int(c["operand"][0]), block.operands[int(c["operand2"][0])]
        out, runs = block.operands[first], block.operands[first + NAMED].cols
        mine, burst, once = c["rows"].astype(float), batch.chip.dram.burst, np.ones(len(at))
        keys = mine * index.dtype.bytes
        pass_memory(ev, at, index.space, keys, burst(keys, once), out=False)
        words = mine * (1 + 2 * runs / max(1, index.cols)) * out.dtype.bytes
        pass_memory(ev, at, out.space, words, burst(words, 3 * once), out=True)
        placed = int(c["row2"][0])
        found = mine * (block.operands[placed].dtype.bytes if placed >= 0 else 0)
        if placed >= 0:
            pass_memory(ev, at, block.operands[placed].space, found, burst(found / mine, mine), out=False)
        sorted_bytes = sort_keys(ev, at, mine, index.dtype.bytes, c["k"])
        cross_network(batch, ev, keys + words + found + 2 * sorted_bytes)
        ev.run_bytes[at], ev.runs[at] = keys, np.where(placed >= 0, mine, once)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        way = gather(transfers(batch, ev), batch.chip)
        ordered = batch.chip.pe.core.sort_cost(ev.scalar_elements[batch.at] / SORT_STEPS)
        return into_grid(batch, way._replace(busy=ordered + way.busy))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        out, count = c[OPERAND], run.block.operands[c[OPERAND2]].cols
        order, first, named = _runs(run, c)
        rows = np.full(run.block.operands[out + NAMED].cols, -1)
        starts = np.full(len(rows) + 1, len(named))
        rows[: len(first)], starts[: len(first)] = named[first], first
        if c[ROW2] >= 0:
            order = indices(run, c[ROW2], 0, count, c[COL2])[order]
        low, high = c[ROW], c[ROW] + c[ROWS]
        for behind, words in enumerate((order, starts, rows)):
            mine = words[low:] if high == count else words[low:high]
            if len(mine):
                run.put(out + behind, 0, low, mine.reshape(1, -1))

    def show(self, c: Any, block: Block) -> str:
        through = f" through %{c['row2']}" if c["row2"] >= 0 else ""
        return f"%{c['operand']} = runs of %{c['operand2']}[{c['row']}+{c['rows']}] in {c['k']} rows{through}"


def _runs(run: MemoryDoors, c: Fields) -> tuple[Array, Array, Array]:
    """Return the places of indices in sorted order, where runs of them begin, and the rows that they name.

    Those that name nothing stand behind the others, of which alone the rows are.
    """
    count = run.block.operands[c[OPERAND2]].cols
    given = run.tile(c[OPERAND2], 0, 1, 0, count)[0].astype(np.int64)
    if c[FLAGS] & NONE_BELOW:
        none = given < 0
        if (given >= c[K]).any():
            raise UserError(f"index {int(given.max())} is outside 0 .. {c[K] - 1}")
        order = np.argsort(np.where(none, c[K], given), kind="stable")
        named = given[order][: count - np.count_nonzero(none)]
    else:
        given = indices(run, c[OPERAND2], 0, count, c[K])
        order = np.argsort(given, kind="stable")
        named = given[order]
    first = np.flatnonzero(np.diff(named, prepend=-1))
    if c[COL]:
        before = np.arange(len(named)) - np.repeat(first, np.diff(first, append=len(named)))
        first = np.flatnonzero(before % c[COL] == 0)
    return order, first, named


class SumRuns(CommandKind):
    """The rows of each of some runs, added one after another, into a slot; a run that is none gives 0."""

    opcode, queue = Opcode.SUM, LOADS
    unit = "dma and simd"
    text = (
        "runs row .. row + rows of operand2's sources: their rows of operand, about k, added up -> slot dst"
    )
    reads, writes, operands = (), ("dst",), ("operand", "operand2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        zero, one = np.zeros_like(at), np.ones_like(at)
        columns.tile(at, c["operand"], zero, one, zero, c["cols"])
        columns.tile(at, c["operand2"], zero, one, zero, one)
        columns.tile(at, c["operand2"] + STARTS, zero, one, c["row"], c["rows"] + 1)
        columns.integers(at, c["operand2"])
        columns.integers(at, c["operand2"] + STARTS)
        columns.refuse(c["k"] < 0, at, "negative rows")
        columns.refuse(columns.operand_cols[c["operand"]] != c["cols"], at, "rows are summed whole")
        columns.held(at, c["dst"], c["rows"] * c["cols"])

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, block, burst = batch.at, batch.c, batch.block, batch.chip.dram.burst
        values, words = (block.operands[int(c[f][0])] for f in ("operand", "operand2"))
        rows, row_bytes = c["k"].astype(float), np.full(len(at), float(values.cols * values.dtype.bytes))
        summed = c["rows"].astype(float) * values.cols * batch.slot_bytes[c["dst"]]
        pass_memory(ev, at, values.space, rows * row_bytes, burst(row_bytes, rows), out=False)
        read = (rows + c["rows"] + 1) * words.dtype.bytes
        pass_memory(ev, at, words.space, read, burst(read, 2 * np.ones(len(at))), out=False)
        cross_network(batch, ev, rows * row_bytes + read)
        ev.run_bytes[at], ev.runs[at], ev.rows[at] = row_bytes, rows, rows
        ev.simd_passes[at] += rows * values.cols
        ev.local_write_bytes[at] += rows * row_bytes + summed
        ev.local_read_bytes[at] += rows * row_bytes

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        way = gather(transfers(batch, ev), batch.chip)
        added, _ = batch.chip.pe.simd.cost(ev.simd_passes[batch.at], batch.slot_bytes[batch.c["dst"]], 1)
        return into_grid(batch, way._replace(busy=np.maximum(way.busy, added)))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        row, rows, cols, count = c[ROW], c[ROWS], c[COLS], run.block.operands[c[OPERAND2]].cols
        starts = run.tile(c[OPERAND2] + STARTS, 0, 1, row, rows + 1)[0].astype(np.int64)
        if (np.diff(starts) < 0).any() or starts[0] < 0 or starts[-1] > count:
            raise UserError(f"runs {row} .. {row + rows} must rise from 0 to at most {count}")
        out = run.give(c[PE], c[DST], rows, cols)
        out[...] = 0
        low, high = int(starts[0]), int(starts[-1])
        if high > low:
            at = indices(run, c[OPERAND2], low, high, run.block.operands[c[OPERAND]].rows)
            group = np.repeat(np.arange(rows), np.diff(starts))
            out[...] = scatter("add", np.zeros_like(out), (group,), run.rows(c[OPERAND], at))

    def show(self, c: Any, block: Block) -> str:
        return (
            f"s{c['dst']} = sum %{c['operand']} runs %{c['operand2']}[{c['row']}+{c['rows']}] about {c['k']}"
        )


class FetchRows(CommandKind):
    """The rows of a table that some runs name, into a slot; a run that is none gives 0."""

    opcode, queue = Opcode.FETCH, LOADS
    unit, text = "dma", "rows of an operand named by operand2[row2 : row2 + rows], none by -1 -> slot dst"
    reads, writes, operands = (), ("dst",), ("operand", "operand2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        _verify_named(columns, at, c, "dst")

    def count(self, batch: Batch, ev: Events) -> None:
        moved = _count_named(batch, ev, out=False)
        ev.rows[batch.at] = ev.runs[batch.at]
        ev.local_write_bytes[batch.at] += moved

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return into_grid(batch, gather(transfers(batch, ev), batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        named, there = _named(run, c)
        out = run.give(c[PE], c[DST], c[ROWS], c[COLS])
        out[...] = 0
        if there.any():
            out[there] = run.rows(c[OPERAND], named[there])

    def show(self, c: Any, block: Block) -> str:
        return f"s{c['dst']} = %{c['operand']} rows %{c['operand2']}[{c['row2']}+{c['rows']}]"


class PutRows(CommandKind):
    """A slot into the rows of a table that some runs name."""

    opcode, queue = Opcode.PUT, STORES
    unit, text = "dma", "slot src0 -> rows of an operand named by operand2[row2 : row2 + rows], none by -1"
    reads, writes, operands = ("src0",), (), ("operand", "operand2")
    opaque = apart = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        _verify_named(columns, at, c, "src0")
        columns.writable(at, c["operand"])

    def count(self, batch: Batch, ev: Events) -> None:
        ev.local_read_bytes[batch.at] += _count_named(batch, ev, out=True)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        way, chip = store(transfers(batch, ev), batch.chip), batch.chip
        asked = ev.runs[batch.at] * chip.pe.core.row_issue_cycles
        return CommandCost(*way._replace(busy=np.maximum(way.busy, asked)), links_out(batch.pe, chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        named, there = _named(run, c)
        if there.any():
            run.put_rows(c[OPERAND], named[there], run.take(c[PE], c[SRC0], c[ROWS], c[COLS])[there])

    def show(self, c: Any, block: Block) -> str:
        return f"%{c['operand']} rows %{c['operand2']}[{c['row2']}+{c['rows']}] = s{c['src0']}"


def _verify_named(columns: CommandColumns, at: Array, c: dict[str, Array], slot: str) -> None:
    zero, one = np.zeros_like(at), np.ones_like(at)
    columns.tile(at, c["operand"], zero, one, zero, c["cols"])
    columns.tile(at, c["operand2"], zero, one, c["row2"], c["rows"])
    columns.operand(at, c["operand2"] - NAMED)  # the indices that the runs are of
    columns.integers(at, c["operand2"])
    columns.refuse(columns.operand_cols[c["operand"]] != c["cols"], at, "rows are moved whole")
    columns.held(at, c[slot], c["rows"] * c["cols"])
    columns.same(at, c[slot], c["operand"])


def _count_named(batch: Batch, ev: Events, *, out: bool) -> Array:
    """Count the rows that commands move, as many as even draws name; return their bytes."""
    at, c, block, burst = batch.at, batch.c, batch.block, batch.chip.dram.burst
    table, word = block.operands[int(c["operand"][0])], int(c["operand2"][0])
    names, draws = block.operands[word], block.operands[word - NAMED].cols
    share = min(1.0, distinct_rows(draws, table.rows) / max(1, names.cols))
    rows, row_bytes = c["rows"] * share, np.full(len(at), float(table.cols * table.dtype.bytes))
    pass_memory(ev, at, table.space, rows * row_bytes, burst(row_bytes, rows), out=out)
    words = c["rows"].astype(float) * names.dtype.bytes
    pass_memory(ev, at, names.space, words, burst(words, np.ones(len(at))), out=False)
    cross_network(batch, ev, rows * row_bytes + words)
    ev.run_bytes[at], ev.runs[at] = row_bytes, rows
    return rows * row_bytes


def _named(run: MemoryDoors, c: Fields) -> tuple[Array, Array]:
    """Return the rows [n] that runs name, and which of them name one; refuse those outside the table."""
    named = run.tile(c[OPERAND2], 0, 1, c[ROW2], c[ROWS])[0].astype(np.int64)
    rows = run.block.operands[c[OPERAND]].rows
    if (named >= rows).any():
        raise UserError(f"row {int(named.max())} of runs from {c[ROW2]} on is outside 0 .. {rows - 1}")
    return named, named >= 0
