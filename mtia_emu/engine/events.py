"""What each command does, counted: the facts that the timing and the energy readings both start from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..machine.units.simd import FUNCTIONS
from ..program.isa import (
    FUNCTION_NAMES,
    QUANTISED,
    REDUCTION_NAMES,
    VECTOR,
    Block,
    Cast,
    Opcode,
    Operand,
    Shape,
    select,
    source_shape,
)
from ..types import DTYPES
from .lookups import Lookups, expected_misses

Array = np.ndarray[Any, Any]
DTYPE_NAMES = tuple(DTYPES)
MOST_CODES, CODES_EACH = 1 << 22, 64  # of a table that is looked up in place of sorting: all, for one number


@dataclass
class Events:
    """One array a kind of event, one element a command. Every event here has a price and a timing rule."""

    local_read_bytes: Array  # bytes read from PE local memories
    local_write_bytes: Array  # bytes written to PE local memories, every receiver of a multicast counted
    sram_read_bytes: Array  # bytes read from shared SRAM
    sram_write_bytes: Array  # bytes written to shared SRAM
    dram_read_bytes: Array  # bytes read from DRAM, whole bursts
    dram_write_bytes: Array  # bytes written to DRAM, whole bursts
    noc_bytes: Array  # payload bytes that enter the network on chip, a multicast once
    noc_byte_hops: Array  # payload bytes times the links that they cross
    macs: Array  # multiply-adds
    mac_dtype: Array  # their dtype, an index into DTYPE_NAMES
    simd_passes: Array  # elements times passes through the SIMD lanes
    scalar_elements: Array  # elements handled by a core
    commands: Array  # commands issued
    run_bytes: Array  # length of the contiguous runs of a transfer, for DRAM efficiency and addressing
    runs: Array  # number of those runs
    transposed_bytes: Array  # bytes that pass the layout unit
    rows: Array  # rows requested one by one (indexed transfers)
    missed: Array  # share of an indexed transfer's rows in DRAM that no cache serves

    @classmethod
    def zeros(cls, n: int) -> Events:
        """Return the events of n commands that do nothing."""
        return cls(**{f.name: np.ones(n) if f.name == "missed" else np.zeros(n) for f in fields(cls)})


def events(block: Block, chip: Chip, lookups: Lookups | None = None, cache_bytes: int = 0) -> Events:
    """Return what each command of a block does.

    `lookups` are those that the block's launch really had; without them the mean stands, spread evenly over
    the table's rows. `cache_bytes` is the capacity of the cache that rows looked up in DRAM pass.
    """
    commands = block.commands
    ev = Events.zeros(len(commands))
    ev.commands[:] = 1
    if lookups is not None:
        commands = commands.copy()
        commands["k"][commands["op"] == Opcode.POOL] = lookups.counts
    ops = commands["op"].copy()  # side by side, for it is gone through once for each
    for op in np.flatnonzero(np.bincount(ops)).tolist():
        at = np.flatnonzero(ops == op)
        for part in _by_table(at, commands) if op in (Opcode.POOL, Opcode.GATHER) else (at,):
            _COUNT[Opcode(int(op))](ev, part, select(commands, part), block, chip)
    if cache_bytes:
        pools = np.flatnonzero(commands["op"] == Opcode.POOL)
        missed = None if lookups is None else lookups.missed
        for part in _by_table(pools, commands):
            mine = None if missed is None else missed[np.searchsorted(pools, part)]
            _cache(ev, part, block.operands[int(commands["operand"][part[0]])], chip, mine, cache_bytes)
    return ev


def events_of(ev: Events, which: Array) -> Events:
    """Return the events of some of the commands."""
    return Events(**{f.name: getattr(ev, f.name)[which] for f in fields(Events)})


def _by_table(pools: Array, commands: Array) -> list[Array]:
    """Return POOL or GATHER commands, by number, apart by the table that they look up."""
    tables = commands["operand"][pools]
    return [pools[tables == table] for table in np.unique(tables)]


def _cache(
    ev: Events, at: Array, table: Operand, chip: Chip, missed_lines: Array | None, cache_bytes: int
) -> None:
    """Let the cache serve part of the rows of a table in DRAM; what it misses it reads and keeps."""
    if table.space != "dram":
        return
    row_bytes, rows = table.cols * table.dtype.bytes, ev.rows[at]
    whole = chip.dram.burst(np.full(len(at), float(row_bytes)), rows)
    if missed_lines is not None:
        missed = np.minimum(missed_lines * chip.sram.line_bytes, whole)
    else:
        missed = whole * expected_misses(table.rows, float(rows.sum()), table.extent_bytes <= cache_bytes)
    ev.dram_read_bytes[at] += missed - whole
    ev.sram_write_bytes[at] += missed
    ev.sram_read_bytes[at] += np.maximum(rows * row_bytes - missed, 0)
    ev.missed[at] = np.divide(missed, whole, out=np.ones(len(at)), where=whole > 0)


def _itemsizes(block: Block) -> Array:
    return np.array([x.dtype.bytes for x in block.operands] or [0])


def _slot_sizes(block: Block) -> tuple[Array, Array]:
    return (
        np.array([s.dtype.bytes for s in block.slots] or [0]),
        np.array([s.accumulator for s in block.slots] or [False]),
    )


def _lead(operand: Operand) -> tuple[int, int, int]:
    """Return the stride of an operand's rows, how often each is repeated, and how many lie at that stride."""
    dims = [d for d in zip(operand.shape[:-1], operand.strides[:-1], strict=True) if d[0] > 1]
    again, span = 1, 1
    while dims and dims[-1][1] == 0:
        again *= dims.pop()[0]
    stride = dims[-1][1] if dims else operand.cols
    while dims and dims[-1][1] == stride * span:
        span *= dims.pop()[0]
    return stride, again, span


def _distinct(operand: Operand, row: Array, rows: Array) -> Array:
    """Return the distinct rows of tiles: a broadcast row is moved once."""
    _, again, _ = _lead(operand)
    return (row + rows - 1) // again - row // again + 1.0


def _runs(operand: Operand, rows: Array, cols: Array) -> tuple[Array, Array, bool]:
    """Return the length in bytes and the number of the contiguous runs of tiles, and whether they are turned.

    `rows` are distinct. The layout unit turns a tile whose runs in memory lie across the direction in which
    local memory keeps it.
    """
    size, col = operand.dtype.bytes, operand.strides[-1]
    row, _, span = _lead(operand)
    if col == 0 or operand.cols == 1:
        col, cols = 1, np.ones_like(cols)
    thin = operand.rows == 1 or operand.cols == 1
    length = np.minimum(rows, span)
    if col == 1 and not (row == 1 and operand.cols == 1):
        length = np.where((row == operand.cols) & (cols == operand.cols), length, 1)
        return length * cols * size, np.ceil(rows / length), operand.by_column and not thin
    if row == 1:
        return length * size, np.ceil(rows / length) * cols, not operand.by_column and not thin
    return np.full_like(rows, size), rows * cols, not thin


def _transfer(ev: Events, at: Array, c: Array, block: Block, chip: Chip, *, out: bool) -> Array:
    """Count moves between operands and the network; return each transfer's payload bytes."""
    payload = np.zeros(len(at))
    for i in np.unique(c["operand"]):
        mine, operand = c["operand"] == i, block.operands[i]
        rows = _distinct(operand, c["row"][mine].astype(np.int64), c["rows"][mine].astype(np.int64))
        cols = c["cols"][mine].astype(float)
        run, runs, turned = _runs(operand, rows, cols)
        if operand.tiled:
            run, runs = run * runs, np.ones_like(runs)
        data = rows * (cols if operand.strides[-1] else 1) * operand.dtype.bytes
        where = at[mine]
        payload[mine] = data
        ev.run_bytes[where], ev.runs[where] = run, runs
        ev.transposed_bytes[where] += data * turned
        _memory(ev, where, operand.space, data, chip.dram.burst(run, runs), out=out)
    return payload


def _memory(ev: Events, where: Array, space: str, data: Array, bursts: Array, *, out: bool) -> None:
    """Count bytes at the memory that an operand is in."""
    if space == "dram":
        (ev.dram_write_bytes if out else ev.dram_read_bytes)[where] += bursts
    else:
        (ev.sram_write_bytes if out else ev.sram_read_bytes)[where] += data


def receivers(c: Array, bands: Array, chip: Chip) -> Array:
    """Return how many PEs each command writes; `bands` as of `Block.band_rows`."""
    cols, cast = chip.grid.cols, c["cast"]
    if len(np.unique(bands)) == 2:
        return np.array([1, cols, len(bands), chip.pes])[cast]
    rows = (bands[:, 1] - bands[:, 0])[c["pe"] // cols]
    return np.choose(cast, [np.ones_like(rows), np.full_like(rows, cols), rows, rows * cols])


def _enter(ev: Events, at: Array, c: Array, payload: Array, chip: Chip) -> None:
    """Count bytes that cross the network between a memory and one PE."""
    ev.noc_bytes[at] += payload
    ev.noc_byte_hops[at] += payload * (c["pe"] % chip.grid.cols + 1.0)


def _load(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    payload = _transfer(ev, at, c, block, chip, out=False)
    written = c["rows"].astype(float) * c["cols"] * _itemsizes(block)[c["operand"]]
    bands = block.band_rows(chip.grid.rows)
    reached = receivers(c, bands, chip)
    ev.local_write_bytes[at] += written * reached
    ev.noc_bytes[at] += payload
    links = np.where(c["cast"] == Cast.ALL, reached, chip.grid.hops(c["pe"].astype(int), c["cast"], bands))
    ev.noc_byte_hops[at] += payload * links


def _store(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    payload = _transfer(ev, at, c, block, chip, out=True)
    ev.local_read_bytes[at] += payload
    _enter(ev, at, c, payload, chip)


def _stage(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    payload = _transfer(ev, at, c, block, chip, out=False)
    ev.sram_write_bytes[at] += payload
    ev.noc_bytes[at] += payload
    ev.noc_byte_hops[at] += payload


def _gather(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    sizes = _itemsizes(block)
    rows, cols = c["rows"].astype(float), c["cols"].astype(float)
    row_bytes = cols * sizes[c["operand"]]
    _indexed(ev, at, c, block, chip, rows, row_bytes)
    ev.local_write_bytes[at] += rows * row_bytes


def _indexed(
    ev: Events, at: Array, c: Array, block: Block, chip: Chip, rows: Array, row_bytes: Array
) -> None:
    """Count the rows of an indexed transfer and the indices that name them."""
    index_bytes = rows * _itemsizes(block)[c["operand2"]]
    ev.run_bytes[at], ev.runs[at], ev.rows[at] = row_bytes, rows, rows
    table, index = block.operands[int(c["operand"][0])], block.operands[int(c["operand2"][0])]
    _memory(ev, at, table.space, rows * row_bytes, chip.dram.burst(row_bytes, rows), out=False)
    _memory(ev, at, index.space, index_bytes, chip.dram.burst(index_bytes, np.ones_like(rows)), out=False)
    payload = rows * row_bytes + index_bytes
    _enter(ev, at, c, payload, chip)


def _pool(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    sizes, looks, cols = _itemsizes(block), c["k"].astype(float), c["cols"].astype(float)
    table = block.operands[int(c["operand"][0])]
    row_bytes = np.full(len(at), float(table.cols * table.dtype.bytes))
    _indexed(ev, at, c, block, chip, looks, row_bytes)
    weighted = c["row2"] >= 0
    offsets = int(c["operand2"][0]) + 1
    for index, words in ((offsets, c["rows"] + 1.0), (int(c["row2"].max()), looks * weighted)):
        if index >= 0:
            data = words * sizes[index]
            _memory(
                ev, at, block.operands[index].space, data, chip.dram.burst(data, np.ones(len(at))), out=False
            )
            _enter(ev, at, c, data, chip)
    pooled = c["rows"] * cols * 4
    ev.local_write_bytes[at] += looks * row_bytes + pooled
    ev.local_read_bytes[at] += looks * row_bytes
    dequantise = 1 + (c["flags"] & QUANTISED)
    ev.simd_passes[at] += looks * cols * (dequantise + weighted)
    ev.commands[at] += np.ceil(looks / chip.pe.core.rows_per_accumulate)


def products(c: Array) -> tuple[Array, Array, Array, Array]:
    """Return the distinct sizes m, k, n of MATMULs, and the number of each command's among them."""
    m, k, n = (c[name].astype(np.int64) for name in ("rows", "k", "cols"))
    wide, deep = int(n.max()) + 1, int(k.max()) + 1
    code, most = (m * deep + k) * wide + n, (int(m.max()) + 1) * deep * wide
    if most > min(MOST_CODES, CODES_EACH * len(code)):
        found, which = np.unique(code, return_inverse=True)
    else:
        here, number = np.zeros(most, bool), np.empty(most, np.int32)
        here[code] = True
        found = np.flatnonzero(here)
        number[found] = np.arange(len(found))
        which = number[code]
    rows, cols = np.divmod(found, wide)
    return *np.divmod(rows, deep), cols, which


def _matmul(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    sizes, _ = _slot_sizes(block)
    m, k, n, which = products(c)
    a = block.slots[int(c["src0"][0])].dtype
    ev.macs[at] = (m * n * k)[which]
    ev.mac_dtype[at] = DTYPE_NAMES.index(a.name)
    if (c["flags"] & VECTOR).any():
        # each row of b passes the lanes once for four rows of a held in registers
        words_a, words_b = m * k, k * n * -(-m // 4)
        ev.mac_dtype[at] = DTYPE_NAMES.index("fp32")
    else:
        words_a, words_b = chip.pe.matrix.operand_reads(m, k, n, a.name)
    ev.local_read_bytes[at] += words_a[which] * sizes[c["src0"]] + words_b[which] * sizes[c["src1"]]


def _reduce(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    data = c["rows"].astype(float) * c["cols"] * 4
    ev.noc_bytes[at] += data
    ev.noc_byte_hops[at] += data
    ev.simd_passes[at] += data / 4


def _simd(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    sizes, accumulators = _slot_sizes(block)
    rows, cols = c["rows"].astype(float), c["cols"].astype(float)
    fold = c["op"][0] == Opcode.FOLD
    passes = (
        np.ones(len(REDUCTION_NAMES)) if fold else np.array([FUNCTIONS[f].passes for f in FUNCTION_NAMES])
    )
    ev.simd_passes[at] += rows * cols * passes[c["fn"]]
    local = np.append(np.where(accumulators, 0, sizes), (0, 0))  # the last two: IMMEDIATE and NO_SLOT
    for i, name in enumerate(("src0", "src1", "src2")):
        if (c[name] < 0).all():
            continue
        shape = source_shape(c["flags"], i)
        size = np.where(shape <= Shape.ROW, cols, 1) * np.where(shape % 2 == 0, rows, 1)
        ev.local_read_bytes[at] += size * local[c[name]]
    ev.local_write_bytes[at] += rows * (1 if fold else cols) * sizes[c["dst"]]


def _scalar(ev: Events, at: Array, c: Array, block: Block, chip: Chip) -> None:
    for operand in block.operands:
        data = np.full(len(at), float(operand.distinct_bytes))
        _memory(ev, at, operand.space, data, chip.dram.burst(data, np.ones(len(at))), out=operand.written)
        ev.noc_bytes[at] += data
        ev.noc_byte_hops[at] += data
    ev.run_bytes[at], ev.runs[at] = 64, 1
    ev.scalar_elements[at] += c["rows"]


_COUNT = {
    Opcode.LOAD: _load,
    Opcode.STORE: _store,
    Opcode.STAGE: _stage,
    Opcode.GATHER: _gather,
    Opcode.POOL: _pool,
    Opcode.MATMUL: _matmul,
    Opcode.REDUCE: _reduce,
    Opcode.SIMD: _simd,
    Opcode.FOLD: _simd,
    Opcode.SCALAR: _scalar,
}
