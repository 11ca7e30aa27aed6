"""How a matrix product is mapped onto the grid.

A mapping splits one or two of b, m, n, k over the rows of the PE grid and one or two over its columns. An
operand that does not depend on what is split over columns is the same along a row of PEs, and one load
feeds the row (multicast); the same holds for columns. Where k is split, partial sums travel the reduction
network (W to E, N to S) and the last PE of the chain finishes the tile. Each PE walks its batches, then its
tiles, the outer operand fixed while the inner one changes; k in panels. Of the outer operand's panels the
first `hold` stay in local memory while the inner one changes, the others are loaded again for each inner
tile. An outer operand in DRAM may be staged in SRAM ahead of its use. So may an inner one, by slabs: a slab
of its tiles stays in SRAM while all outer tiles pass, and DRAM is read once for all of them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory, memory_named
from mtia_emu.program.isa import Cast
from mtia_emu.types import FP32, INT32, DType

from ..builder import ceil_div

Array = np.ndarray[Any, Any]
RINGS = 2  # slots of each other circular buffer: one is filled while the other is read
_AXIS = re.compile(r"^([bmnk])(\d+)([bmnk])(\d+)$")


@dataclass(frozen=True)
class EpilogueCost:
    """What a product's epilogue takes for each element of an output tile, its result aside.

    `local_bytes` of local memory, SIMD passes over fp32, and the bytes of operands as large as the result.
    """

    local_bytes: int = 0
    passes: int = 1
    sram_bytes: int = 0
    dram_bytes: int = 0


@dataclass(frozen=True)
class MatmulProblem:
    """The sizes of a product. `a_batched` and `b_batched` say whether an operand changes with the batch."""

    batch: int
    m: int
    k: int
    n: int
    a: DType
    b: DType
    out: DType
    a_space: Memory
    b_space: Memory
    a_batched: bool = True
    b_batched: bool = True
    epilogue: EpilogueCost = EpilogueCost()
    out_space: Memory = Memory.SRAM
    b_tiled: bool = False  # b lies in memory tile after tile
    a_line: int = 0  # elements of a row of a that lie one after another, where a row is a window; 0: all
    stage_bytes: int = 0  # of SRAM that staging may take; 0: the share that is kept for it on every chip
    turns: bool = False  # batches are turns of experts: how many there are, only data tell

    def __post_init__(self) -> None:
        for name in ("a_space", "b_space", "out_space"):
            object.__setattr__(self, name, memory_named(getattr(self, name)))

    @property
    def accumulator(self) -> DType:
        """Return the type that sums products."""
        return FP32 if self.a.is_float else INT32

    def size(self, dim: str) -> int:
        """Return the size of b, m, n or k."""
        return {"b": self.batch, "m": self.m, "n": self.n, "k": self.k}[dim]


@dataclass(frozen=True)
class MatmulMapping:
    """How a product is spread: what is split over grid rows and columns, tiles, loop order, what is kept.

    An axis of the grid is split over one dimension ("n"), or over two, the second changing faster ("n2k4").
    """

    over_rows: str
    over_cols: str
    tm: int
    tn: int
    kp: int
    outer: str  # "m": a stays while n runs; "n": b stays while m runs
    stage: bool = False
    hold: int = 0  # panels of the outer operand that stay in local memory while the inner one runs
    rings: int = 1  # 2: the next outer tile's held panels are loaded while this one's are in use
    depth: int = (
        2  # slots that panels which are not held go through: one is read, the others are on their way
    )
    slabs: int = 0  # in which the inner operand goes through SRAM, one after another; 0: it does not

    def __str__(self) -> str:
        kept = f" hold={self.hold}x{self.rings}" if self.hold else ""
        staged = " staged" if self.stage else ""
        tile = f"{self.tm}x{self.tn}x{self.kp}"
        deep = f" depth={self.depth}" if self.depth != RINGS else ""
        split = f"rows={self.over_rows} cols={self.over_cols}"
        slabs = f" slabs={self.slabs}" if self.slabs else ""
        return f"{split} tile={tile} outer={self.outer}{kept}{deep}{staged}{slabs}"


@lru_cache(maxsize=4096)
def axis(spec: str, size: int) -> tuple[tuple[str, int], ...]:
    """Return the dimensions that an axis of `size` PEs is split over, slowest first, and into how many parts.

    Two factors may leave PEs at the end of the axis idle. Raises `UserError` for a spec that is neither one
    of b, m, n, k nor two with factors of which `size` has room.
    """
    if spec in ("b", "m", "n", "k"):
        return ((spec, size),)
    match = _AXIS.match(spec)
    factors = (int(match[2]), int(match[4])) if match else (0, 0)
    if not match or not 1 <= factors[0] * factors[1] <= size or match[1] == match[3]:
        raise UserError(
            f"mapping: {spec!r} does not split an axis of {size} PEs (right: n, or n{max(size // 2, 1)}k2)"
        )
    return ((match[1], factors[0]), (match[3], factors[1]))


@dataclass(frozen=True)
class ScratchTiles:
    """Panels of an operand in scratch: the first one's place in panels, how many, and the bytes of one."""

    first: int
    count: int
    bytes: int

    @property
    def end(self) -> int:
        """Return the bytes of scratch up to the last one's end."""
        return (self.first + self.count) * self.bytes


class MatmulPlan:
    """A problem under a mapping on a grid: how many tiles each PE walks, and which PE gets which."""

    def __init__(self, problem: MatmulProblem, mapping: MatmulMapping, chip: Chip) -> None:
        self.problem, self.mapping, self.chip = problem, mapping, chip
        p, t = problem, mapping
        self.rows, self.cols = axis(t.over_rows, chip.grid.rows), axis(t.over_cols, chip.grid.cols)
        split = [d for d, _ in (*self.rows, *self.cols)]
        if split.count("k") > 1:
            raise UserError(
                f"mapping {t}: k cannot be split over both rows and columns: partial sums travel one way"
            )
        if any(len(x) > 1 and x[0][0] == "k" for x in (self.rows, self.cols)):
            raise UserError(f"mapping {t}: k must change fastest along its axis: sums go to the next PE")
        self.tiles = {
            "b": p.batch,
            "m": ceil_div(p.m, t.tm),
            "n": ceil_div(p.n, t.tn),
            "k": ceil_div(p.k, t.kp),
        }
        self.parts = dict.fromkeys("bmnk", 1)
        for dim, factor in (*self.rows, *self.cols):
            self.parts[dim] *= factor
        self.local = {d: ceil_div(self.tiles[d], self.parts[d]) for d in "bmnk"}
        self.inner = "n" if t.outer == "m" else "m"
        self.hold = min(t.hold, self.local["k"])
        inner = self.local[self.inner]
        self.chunk = ceil_div(inner, max(t.slabs, 1))  # inner tiles of a slab
        self.slabs = ceil_div(inner, self.chunk)

    def works(self, row: Array, col: Array) -> Array:
        """Return which PEs at row and col have a part at all, in their shape: the ends of axes may idle."""
        down, across = (math.prod(parts for _, parts in x) for x in (self.rows, self.cols))
        return (row < down) & (col < across)

    def part(self, dim: str, row: Array, col: Array) -> Array:
        """Return which part of a dimension falls to the PEs at row and col, in their shape."""
        part = np.zeros_like(row)
        for place, parts in ((row, self.rows), (col, self.cols)):
            below = 1
            for name, factor in reversed(parts):
                if name == dim:
                    part = part * factor + place // below % factor
                below *= factor
        return part

    def cast(self, operand: str) -> Cast:
        """Return which PEs share a tile of operand a (does not depend on n) or b (does not depend on m)."""
        free = {"n"} if operand == "a" else {"m"}
        if not (self.problem.a_batched if operand == "a" else self.problem.b_batched):
            free.add("b")
        along_row, along_col = (all(d in free for d, _ in x) for x in (self.cols, self.rows))
        return cast_of(self.chip, along_row, along_col)

    def leaders(self, operand: str) -> int:
        """Return how many loads bring a tile of the operand to all PEs."""
        grid = self.chip.grid
        return {Cast.NONE: self.chip.pes, Cast.ROW: grid.rows, Cast.COL: grid.cols, Cast.ALL: 1}[
            self.cast(operand)
        ]

    @cached_property
    def steps(self) -> int:
        """Return the steps that every PE walks."""
        outers = self.local["b"] * self.local[self.mapping.outer]
        return self.slabs * outers * self.chunk * self.local["k"]

    @property
    def outer_operand(self) -> str:
        """Return the operand that stays while the other one's tiles change: a or b."""
        return "a" if self.mapping.outer == "m" else "b"

    def first_alike(self, leaders: Array) -> Array:
        """Return, [group], the first group that walks the outer operand's tiles as leaders[group] does."""
        operand, cols = self.outer_operand, self.chip.grid.cols
        batched = self.problem.a_batched if operand == "a" else self.problem.b_batched
        own = ["k", self.mapping.outer, *(["b"] if batched else [])]
        parts = np.stack([self.part(d, leaders // cols, leaders % cols) for d in own])
        _, first, alike = np.unique(parts, axis=1, return_index=True, return_inverse=True)
        return np.asarray(first[alike.reshape(-1)])

    @property
    def chain(self) -> tuple[int, int]:
        """Return the distance in PE numbers of one hop of the chain, and how many PEs hold a part of k."""
        hop = 1 if "k" in dict(self.cols) else self.chip.grid.cols
        return hop, ceil_div(self.tiles["k"], self.local["k"])

    @property
    def visits(self) -> int:
        """Return how many slabs of the inner operand a PE meets: those of each batch, if it has batches."""
        batched = self.problem.b_batched if self.inner == "n" else self.problem.a_batched
        return self.slabs * (self.local["b"] if batched else 1)

    @cached_property
    def scratch(self) -> dict[str, ScratchTiles]:
        """Return where staged operands stand in the block's scratch, the outer one first."""
        places, end = {}, 0
        for name in "ab":
            if self.mapping.stage and name == self.outer_operand:
                tiles = RINGS * self.leaders(name) * self.local["k"]
            elif self.mapping.slabs and name != self.outer_operand:
                tiles = min(RINGS, self.visits) * self.slab_tiles
            else:
                continue
            size = self._panel_bytes(name)
            places[name] = ScratchTiles(ceil_div(end, size), tiles, size)
            end = places[name].end
        return places

    @property
    def slab_tiles(self) -> int:
        """Return the panels of the inner operand that all PEs together meet in a slab."""
        p, inner = self.problem, self.inner
        parts = {d: ceil_div(self.tiles[d], self.local[d]) for d in "bmnk"}
        batched = p.b_batched if inner == "n" else p.a_batched
        return (parts["b"] if batched else 1) * parts[inner] * self.chunk * self.tiles["k"]

    def stage_bytes(self) -> int:
        """Return the SRAM scratch that staging takes: two outer steps' tiles, two slabs or the only one."""
        return max((x.end for x in self.scratch.values()), default=0)

    def _panel_bytes(self, operand: str) -> int:
        p, t = self.problem, self.mapping
        side, width = (t.tm, p.a.bytes) if operand == "a" else (t.tn, p.b.bytes)
        return side * t.kp * width


def cast_of(chip: Chip, along_row: bool, along_col: bool) -> Cast:
    """Return how a tile is read that is the same along a row or column of PEs; for all, maybe row by row."""
    if along_row:
        return Cast.ALL if along_col and chip.noc.broadcast else Cast.ROW
    return Cast.COL if along_col else Cast.NONE
