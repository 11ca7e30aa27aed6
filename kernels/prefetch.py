"""Tiles of a constant read ahead: an earlier block copies them to a head in SRAM, the block that loads them
from DRAM loads them from there.

A block is changed after it is made, so any kernel can have a head: its loads of a tile name another operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mtia_emu.machine.memories import Memory
from mtia_emu.program.commands import table_of
from mtia_emu.program.isa import COMMAND, NO_SLOT, Block, Opcode, Operand, join

from .builder import ceil_div

Array = np.ndarray[Any, Any]
LOADS_TILE = table_of(lambda kind: kind.loads_tile)
PIECES = 8  # parts in which a tile may be copied, each by another launch; few, so that each is one long run


@dataclass(frozen=True)
class TileArrays:
    """The tiles of an operand that a block loads, as arrays over tiles in the order of their first loads.

    `loads` counts the loads of each; `at` are the commands that load any, `of` the tile that each loads.
    """

    row: Array
    rows: Array
    col: Array
    cols: Array
    loads: Array
    at: Array
    of: Array


@dataclass(frozen=True)
class TileSizes:
    """How many tiles a block loads of an operand, the most rows and columns of one, and the mean of loads."""

    count: int
    rows: int
    cols: int
    loads: float


@dataclass(frozen=True)
class LoadedTiles:
    """The tiles of an operand that a block loads: their sizes, and what gives them one by one."""

    sizes: TileSizes
    make: Callable[[], TileArrays]

    @cached_property
    def arrays(self) -> TileArrays:
        """Return the tiles one by one, found at the first call."""
        return self.make()

    def __len__(self) -> int:
        return self.sizes.count


def tiles_of(block: Block, operand: int) -> LoadedTiles | None:
    """Return the tiles of an operand that commands load; None where two begin at one corner."""
    arrays = tile_arrays(block, operand)
    if arrays is None:
        return None
    rows, cols = (int(x.max(initial=0)) for x in (arrays.rows, arrays.cols))
    loads = float(arrays.loads.mean()) if len(arrays.loads) else 0.0
    return LoadedTiles(TileSizes(len(arrays.row), rows, cols, loads), lambda: arrays)


def tile_arrays(block: Block, operand: int) -> TileArrays | None:
    """Return the tiles of an operand that commands load, one by one; None where two begin at one corner."""
    c = block.commands
    at = np.flatnonzero(LOADS_TILE[c["op"]] & (c["operand"] == operand))
    row, rows, col, cols = (c[name][at].astype(np.int64) for name in ("row", "rows", "col", "cols"))
    corner = row * block.operands[operand].cols + col
    _, first, of, loads = np.unique(corner, return_index=True, return_inverse=True, return_counts=True)
    if (rows != rows[first[of]]).any() or (cols != cols[first[of]]).any():
        return None
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = first[order]
    return TileArrays(row[first], rows[first], col[first], cols[first], loads[order], at, place[of])


@dataclass(frozen=True)
class Head:
    """Some tiles of an operand, one after another in SRAM; tile i is tile `chosen[i]` of `tiles`."""

    source: Operand
    tiles: LoadedTiles
    chosen: Array

    @property
    def operand(self) -> Operand:
        """Return the head as its reader sees it: a matrix of tiles one under another."""
        rows, cols = self.tiles.sizes.rows, self.tiles.sizes.cols
        strides = (rows * cols, 1, rows) if self.source.by_column else (rows * cols, cols, 1)
        shape = (len(self.chosen), rows, cols)
        return Operand(
            self.source.dtype, shape, strides, Memory.SRAM, False, self.source.by_column, tiled=True
        )


def spread(head: int, tiles: LoadedTiles) -> Array:
    """Return which tiles to read ahead, [head]: evenly spread, so that DRAM is busy with others all along."""
    return np.arange(head) * len(tiles) // head


def with_head(block: Block, head: Head) -> Block:
    """Return the block with its loads of a head's tiles read there; the head is its new last operand."""
    operand = head.operand
    slot = np.full(len(head.tiles), NO_SLOT)
    slot[head.chosen] = np.arange(len(head.chosen))
    of = slot[head.tiles.arrays.of]
    at, of = head.tiles.arrays.at[of >= 0], of[of >= 0]
    commands = block.commands.copy()
    commands["operand"][at] = len(block.operands)
    commands["row"][at] = of * operand.shape[1]
    commands["col"][at] = 0
    return replace(block, operands=(*block.operands, operand), commands=commands)


def with_prefetch(block: Block, head: Head, pieces: range) -> Block:
    """Return the block with commands behind all others that copy pieces of a head's tiles.

    Each tile counts `PIECES`. The source and the head are the block's new last operands.
    """
    operand = replace(head.operand, written=True)
    tile = np.arange(pieces.start // PIECES, ceil_div(pieces.stop, PIECES))
    of = head.chosen[tile]
    first = np.maximum(pieces.start - tile * PIECES, 0)
    last = np.minimum(pieces.stop - tile * PIECES, PIECES)
    across = ("col", "cols") if head.source.by_column else ("row", "rows")  # a piece is one run of the tile
    fields = {name: getattr(head.tiles.arrays, name)[of] for name in ("row", "rows", "col", "cols")}
    each, size = ceil_div(operand.shape[2 if head.source.by_column else 1], PIECES), fields[across[1]]
    begin, end = np.minimum(first * each, size), np.minimum(last * each, size)
    fields |= {across[0]: fields[across[0]] + begin, across[1]: end - begin}
    fields |= {"row2": tile * operand.shape[1], "col2": np.zeros_like(tile)}
    fields[f"{across[0]}2"] = fields[f"{across[0]}2"] + begin
    places = {"operand": len(block.operands), "operand2": len(block.operands) + 1}
    copies = _stages({name: x[end > begin] for name, x in fields.items()}, places)
    return replace(
        block,
        operands=(*block.operands, head.source, operand),
        commands=join([block.commands, copies]),
        routed=block.routed and block.routed.with_more(copies),
    )


def _stages(fields: dict[str, Array], places: dict[str, int]) -> Array:
    """Return STAGE commands [n] that announce nothing."""
    out = np.zeros(len(fields["row"]), COMMAND)
    for name in ("dst", "src0", "src1", "src2", "src_pe", "stage"):
        out[name] = NO_SLOT
    out["op"] = Opcode.STAGE
    for name, value in (fields | places).items():
        out[name] = value
    return out
