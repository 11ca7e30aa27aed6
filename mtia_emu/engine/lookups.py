"""Which rows of tables are looked up, and how many of them the cache before DRAM serves.

What is looked up, only data tell: an execution, or index inputs that a bag reads as they come. The part of
shared SRAM that a program does not use as scratch is a cache; looked-up rows of tables in DRAM pass through
it, launch after launch. In a first run other transfers go past it; `steady.py` and `keeping.py` say what it
serves in the steady state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..machine.units.cache import MOST_LINES, Cache, lines_of, whole_sets
from ..program.census import looks_up
from ..program.commands import POOLS
from ..program.isa import Binding, Block, Launch, Program
from ..types import RowLaw

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Lookups:
    """The look-ups of one launch: how many each POOL command had, and the rows, one after another.

    `missed` is the lines of the cache that each command's rows did not find there, None where that is not
    known; `carried`: in a cache that runs before have filled, else in an empty one. `popularity` says how
    runs before chose their rows: evenly without one.
    """

    counts: Array
    rows: Array
    missed: Array | None = None
    popularity: RowLaw | None = None
    carried: bool = False


def cache_bytes(program: Program, chip: Chip) -> int:
    """Return the capacity of the cache beside what the program uses as scratch."""
    resident = program.resident_bytes
    return chip.sram.cache_bytes(program.sram_bytes - resident + program.scratch_bytes, resident)


def from_inputs(
    program: Program, inputs: Mapping[str, Array], popularity: RowLaw | None = None
) -> dict[int, Lookups]:
    """Return the look-ups of the launches whose indices and offsets are inputs or constants as they come.

    The other launches, and those whose indices leave their table, are left out. Tables need no values. By
    `popularity` runs before chose their rows.
    """
    values = {b: np.asarray(inputs[b.name]) for b in program.inputs if b.name in inputs}
    for b in program.consts:
        if b.name in program.data and not b.type.dtype.is_float:
            data = program.data[b.name]
            values[b] = data if isinstance(data, np.ndarray) else data.array(b.name)
    lookups = {}
    for number, launch in enumerate(program.launches):
        block = program.blocks[launch.block]
        if not looks_up(block):
            continue
        pools = block.commands[POOLS[block.commands["op"]]]
        known = _rows(pools, values, block, launch)
        if known is not None:
            counts = np.array([len(x) for x in known])
            lookups[number] = Lookups(counts, np.concatenate(known), popularity=popularity)
    return lookups


def _rows(pools: Array, values: Mapping[Binding, Array], block: Block, launch: Launch) -> list[Array] | None:
    """Return the rows [n] that each of pools[command] looks up; None if not known, or outside a table."""
    bags: dict[int, tuple[Array, Array]] = {}  # indices and offsets, by the operand of the indices
    for table, at in dict.fromkeys(zip(pools["operand"].tolist(), pools["operand2"].tolist(), strict=True)):
        rows = block.operands[table].rows
        indices, offsets = (_operand(values, block, launch, i) for i in (at, at + 1))
        if indices is None or offsets is None or ((indices < -rows) | (indices >= rows)).any():
            return None
        bags[at] = indices % rows, offsets
    read = []
    for at, row, rows in zip(*(pools[x].tolist() for x in ("operand2", "row", "rows")), strict=True):
        indices, offsets = bags[at]
        read.append(indices[offsets[row] : offsets[row + rows]])
    return read


def _operand(values: Mapping[Binding, Array], block: Block, launch: Launch, index: int) -> Array | None:
    """Return an operand's values where they are those of a binding, whole and in order."""
    x, address = block.operands[index], launch.addresses[index]
    for binding, array in values.items():
        same = (binding.space, binding.address, binding.type.size) == (x.space, address, x.cols)
        if same and x.rows == 1 and (x.cols < 2 or x.strides[-1] == 1):
            return array.ravel().astype(np.int64)
    return None


def row_cache(program: Program, chip: Chip) -> Cache | None:
    """Return the cache that rows looked up pass, empty; None where the program leaves no SRAM for it.

    One larger than is modelled, on a chip whose SRAM has no limit, is as large as is modelled.
    """
    line, ways = chip.sram.line_bytes, chip.sram.ways
    size = min(cache_bytes(program, chip), MOST_LINES * line)
    return Cache(whole_sets(size, line, ways)) if size >= line * ways else None


def through_cache(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups], cache: Cache | None = None
) -> dict[int, Lookups]:
    """Return look-ups with what the cache missed, launch after launch.

    It starts empty, or as runs before have left `cache`, and is left as this run leaves it. What is known to
    have missed stays.
    """
    carried = cache is not None
    if all(x.missed is not None for x in lookups.values()):
        return dict(lookups)
    cache = cache or row_cache(program, chip)
    if cache is None:
        return dict(lookups)
    out = {}
    for number, rows_read in sorted(lookups.items()):
        launch = program.launches[number]
        missed = _missed(cache, chip.sram.line_bytes, program.blocks[launch.block], launch, rows_read)
        out[number] = replace(rows_read, missed=missed, carried=carried)
    return out


def _missed(cache: Cache, line: int, block: Block, launch: Launch, lookups: Lookups) -> Array:
    """Return the lines that each POOL command misses, [command]; tables in SRAM are not asked for."""
    pools = block.commands["operand"][POOLS[block.commands["op"]]]
    command = np.repeat(np.arange(len(lookups.counts)), lookups.counts)  # of each row looked up
    off_chip = np.array([x.space.off_chip for x in block.operands])[pools[command]]
    command, rows = command[off_chip], lookups.rows[: len(command)][off_chip]
    table = pools[command]
    stride, size = np.array(
        [(x.strides[0] * x.dtype.bytes, x.cols * x.dtype.bytes) for x in block.operands]
    ).T
    starts = np.array(launch.addresses)[table] + rows * stride[table]
    each = (starts + size[table] - 1) // line - starts // line + 1  # lines of each row
    missed = ~cache.access(lines_of(starts, size[table], line))
    return np.bincount(np.repeat(command, each)[missed], minlength=len(lookups.counts))


def expected_misses(rows: int, looked_up: float, fits: bool) -> float:
    """Return the share of uniform look-ups that an empty cache misses, where it holds the table or not."""
    if not fits or looked_up <= 0:
        return 1.0
    return float(min(1.0, rows * -np.expm1(looked_up * np.log1p(-1.0 / max(rows, 2))) / looked_up))
