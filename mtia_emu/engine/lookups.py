"""Which rows of tables are looked up, and how many of them the cache before DRAM serves.

What is looked up, only data tell: an execution, or index inputs that a bag reads as they come. The part of
shared SRAM that a program does not use as scratch is a cache; looked-up rows of tables in DRAM pass through
it, launch after launch. Other transfers go past it: the compiler keeps in scratch what is used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..chip import Chip
from ..isa import Binding, Block, Launch, Op, Program
from ..units.cache import Cache, lines_of, whole_sets

Array = np.ndarray[Any, Any]
TABLE, INDICES, OFFSETS = 0, 1, 2  # operands of an embedding bag's block


@dataclass(frozen=True)
class Lookups:
    """The look-ups of one launch: how many each POOL command had, and the rows, one after another.

    `missed` is the lines of the cache that each command's rows did not find there, None where there is none.
    """

    counts: Array
    rows: Array
    missed: Array | None = None


def cache_bytes(program: Program, chip: Chip) -> int:
    """Return the capacity of the cache beside what the program uses as scratch."""
    scratch = max((b.scratch_bytes for b in program.blocks), default=0)
    return chip.sram.cache_bytes(program.sram_bytes + scratch)


def from_inputs(program: Program, inputs: Mapping[str, Array]) -> dict[int, Lookups]:
    """Return the look-ups of the launches whose indices and offsets are inputs or constants as they come.

    The other launches, and those whose indices leave their table, are left out. Tables need no values.
    """
    values = {b: np.asarray(inputs[b.name]) for b in program.inputs if b.name in inputs}
    for b in program.consts:
        if b.name in program.data and not b.type.dtype.is_float:
            data = program.data[b.name]
            values[b] = data if isinstance(data, np.ndarray) else data.array(b.name)
    found = {}
    for number, launch in enumerate(program.launches):
        block = program.blocks[launch.block]
        if block.kernel != "embedding_bag":
            continue
        indices, offsets = (_operand(values, block, launch, i) for i in (INDICES, OFFSETS))
        rows = block.operands[TABLE].rows
        if indices is not None and offsets is not None and not ((indices < -rows) | (indices >= rows)).any():
            found[number] = _by_command(block, indices % rows, offsets)
    return found


def _operand(values: Mapping[Binding, Array], block: Block, launch: Launch, index: int) -> Array | None:
    """Return an operand's values where they are those of a binding, whole and in order."""
    x, address = block.operands[index], launch.addresses[index]
    for binding, array in values.items():
        same = (binding.space, binding.address, binding.type.size) == (x.space, address, x.cols)
        if same and x.rows == 1 and (x.cols < 2 or x.strides[-1] == 1):
            return array.ravel().astype(np.int64)
    return None


def _by_command(block: Block, indices: Array, offsets: Array) -> Lookups:
    pools = block.commands[block.commands["op"] == Op.POOL]
    first, last = offsets[pools["row"]], offsets[pools["row"] + pools["rows"]]
    rows = [indices[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    return Lookups(last - first, np.concatenate([np.zeros(0, np.int64), *rows]))


def through_cache(program: Program, chip: Chip, lookups: Mapping[int, Lookups]) -> dict[int, Lookups]:
    """Return look-ups with what the cache missed, launch after launch; it starts empty."""
    size, line, ways = cache_bytes(program, chip), chip.sram.line_bytes, chip.sram.ways
    if not size:
        return dict(lookups)
    cache = Cache(whole_sets(size, line, ways))
    out = {}
    for number, found in sorted(lookups.items()):
        launch = program.launches[number]
        table = program.blocks[launch.block].operands[TABLE]
        if table.space != "dram":
            out[number] = found
            continue
        size_bytes, stride = table.cols * table.dtype.bytes, table.strides[0] * table.dtype.bytes
        starts = launch.addresses[TABLE] + found.rows * stride
        lines = lines_of(starts, size_bytes, line)
        each = (starts + size_bytes - 1) // line - starts // line + 1  # lines of each row
        command = np.repeat(np.repeat(np.arange(len(found.counts)), found.counts), each)
        missed = np.bincount(command[~cache.access(lines)], minlength=len(found.counts))
        out[number] = replace(found, missed=missed)
    return out


def expected_misses(rows: int, looked_up: float, fits: bool) -> float:
    """Return the share of uniform look-ups that an empty cache misses, where it holds the table or not."""
    if not fits or looked_up <= 0:
        return 1.0
    return float(min(1.0, rows * -np.expm1(looked_up * np.log1p(-1.0 / max(rows, 2))) / looked_up))
