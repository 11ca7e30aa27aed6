"""How a matrix product is mapped onto the grid, and what that would cost.

A mapping splits one of b, m, n, k over the rows of the PE grid and one over its columns. An operand that does
not depend on the dimension split over columns is the same along a row of PEs, and one load feeds the row
(multicast); the same holds for columns. Where k is split, partial sums travel the reduction network (W to E,
N to S) and the last PE of the chain finishes the tile. Each PE walks its batches, then its tiles, the outer
operand fixed while the inner one changes; k in panels. An outer operand that stays in DRAM and is read again
for each inner tile is staged in SRAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mtia_emu.chip import Chip
from mtia_emu.errors import UserError
from mtia_emu.isa import Cast
from mtia_emu.types import FP32, INT32, DType

from .builder import NoRoom, ceil_div, round_up

Array = np.ndarray[Any, Any]
OVERLAP_LOSS = 0.05  # share of the work on resources that do not bound which still shows (estimate)
RINGS = 2  # slots of each circular buffer: one is filled while the other is read


@dataclass(frozen=True)
class Problem:
    """The sizes of a product. `a_batched` and `b_batched` say whether an operand changes with the batch."""

    batch: int
    m: int
    k: int
    n: int
    a: DType
    b: DType
    out: DType
    a_space: str
    b_space: str
    a_batched: bool = True
    b_batched: bool = True
    epilogue_bytes: int = 0  # local memory that the epilogue takes for each element of an output tile

    @property
    def accumulator(self) -> DType:
        """Return the type that sums products."""
        return FP32 if self.a.is_float else INT32


@dataclass(frozen=True)
class Mapping:
    """How a product is spread: what is split over grid rows and columns, tiles, loop order and staging."""

    over_rows: str
    over_cols: str
    tm: int
    tn: int
    kp: int
    outer: str  # "m": a stays while n runs; "n": b stays while m runs
    stage: bool = False

    def __str__(self) -> str:
        staged = " staged" if self.stage else ""
        tile = f"{self.tm}x{self.tn}x{self.kp}"
        return f"rows={self.over_rows} cols={self.over_cols} tile={tile} outer={self.outer}{staged}"


class Plan:
    """A problem under a mapping on a grid: how many tiles each PE walks, and which PE gets which."""

    def __init__(self, problem: Problem, mapping: Mapping, chip: Chip) -> None:
        self.problem, self.mapping, self.chip = problem, mapping, chip
        p, t = problem, mapping
        if t.over_rows == t.over_cols == "k":
            raise UserError(
                f"mapping {t}: k cannot be split over both rows and columns: partial sums travel one way"
            )
        self.tiles = {
            "b": p.batch,
            "m": ceil_div(p.m, t.tm),
            "n": ceil_div(p.n, t.tn),
            "k": ceil_div(p.k, t.kp),
        }
        self.parts = dict.fromkeys("bmnk", 1)
        self.parts[t.over_rows] *= chip.grid.rows
        self.parts[t.over_cols] *= chip.grid.cols
        self.local = {d: ceil_div(self.tiles[d], self.parts[d]) for d in "bmnk"}
        self.inner = "n" if t.outer == "m" else "m"

    def part(self, dim: str, row: Array, col: Array) -> Array:
        """Return which part of a dimension falls to the PE at (row, col)."""
        t, part = self.mapping, np.zeros_like(row)
        if t.over_rows == dim:
            part = part + row * (self.chip.grid.cols if t.over_cols == dim else 1)
        if t.over_cols == dim:
            part = part + col
        return part

    def cast(self, operand: str) -> Cast:
        """Return which PEs share a tile of operand a (does not depend on n) or b (does not depend on m)."""
        free = {"n"} if operand == "a" else {"m"}
        if not (self.problem.a_batched if operand == "a" else self.problem.b_batched):
            free.add("b")
        along_row, along_col = self.mapping.over_cols in free, self.mapping.over_rows in free
        return {
            (False, False): Cast.NONE,
            (True, False): Cast.ROW,
            (False, True): Cast.COL,
            (True, True): Cast.ALL,
        }[along_row, along_col]

    def leaders(self, operand: str) -> int:
        """Return how many loads bring a tile of the operand to all PEs."""
        grid = self.chip.grid
        return {Cast.NONE: self.chip.pes, Cast.ROW: grid.rows, Cast.COL: grid.cols, Cast.ALL: 1}[
            self.cast(operand)
        ]

    @cached_property
    def steps(self) -> int:
        """Return the steps that every PE walks."""
        return self.local["b"] * self.local["m"] * self.local["n"] * self.local["k"]

    def reloads(self, operand: str) -> bool:
        """Return whether a tile of the operand is loaded in every step, not once while it stays the same."""
        own = self.mapping.outer == ("m" if operand == "a" else "n")
        return not own or self.local["k"] > 1


@dataclass(frozen=True)
class Estimate:
    """What a plan would cost, in cycles by resource; the slowest resource sets the time."""

    cycles: float
    commands: int
    bound: str


def candidates(problem: Problem, chip: Chip) -> Iterator[Mapping]:
    """Yield mappings worth estimating: every split, a few tile sizes, both loop orders, staged or not."""
    unit = chip.pe.matrix
    block_m = chip.pe.reduce.bank_rows * max(1, chip.pe.reduce.banks // 2)
    block_n = chip.pe.reduce.bank_cols * max(1, min(2, chip.pe.reduce.banks))
    tms = _sizes(problem.m, block_m, 8)
    tns = _sizes(problem.n, block_n, min(unit.cols, block_n))
    for rows in "bmnk":
        for cols in "bmnk":
            if ("b" in (rows, cols) and problem.batch == 1) or rows == cols == "k":
                continue
            for tm in tms:
                for tn in tns:
                    for outer in "mn":
                        yield from _panels(problem, chip, Mapping(rows, cols, tm, tn, 1, outer))


def _sizes(size: int, block: int, least: int) -> list[int]:
    """Return tile sizes: the whole block and its halves that are no smaller than `least`, cut to the size."""
    if size <= least:
        return [min(size, block)]
    sizes, tile = [], block
    while tile >= least:
        sizes.append(min(tile, round_up(size, least) if size < tile else tile))
        tile //= 2
    return sorted({min(s, size) for s in sizes}, reverse=True) or [min(size, block)]


def _panels(problem: Problem, chip: Chip, mapping: Mapping) -> Iterator[Mapping]:
    kp = _panel(problem, mapping, chip)
    if kp < 1:
        return
    chosen = replace(mapping, kp=kp)
    yield chosen
    outer_space = problem.a_space if mapping.outer == "m" else problem.b_space
    if outer_space == "dram":
        yield replace(chosen, stage=True)


def _panel(problem: Problem, mapping: Mapping, chip: Chip) -> int:
    """Return the longest k panel that local memory holds twice beside the output tiles, 0 where none does."""
    parts = (chip.grid.rows if mapping.over_rows == "k" else 1) * (
        chip.grid.cols if mapping.over_cols == "k" else 1
    )
    spare = chip.pe.local.bytes * 3 // 4 - mapping.tm * mapping.tn * (
        RINGS * problem.out.bytes + problem.epilogue_bytes
    )
    per_k = RINGS * (mapping.tm * problem.a.bytes + mapping.tn * problem.b.bytes)
    step = chip.pe.matrix.lanes(problem.a.name) if chip.pe.matrix.supports(problem.a.name) else 1
    longest = spare // per_k // step * step
    if longest < 1:
        return 0
    mine = ceil_div(problem.k, parts)
    return min(round_up(ceil_div(mine, ceil_div(mine, longest)), step), longest)


def estimate(plan: Plan) -> Estimate:
    """Return the cycles that each resource needs for the whole product under this plan."""
    chip, p, t = plan.chip, plan.problem, plan.mapping
    compute = plan.steps * _tile_cycles(chip, p, t)
    use = dict.fromkeys(("array", "dram", "sram", "row links", "col links", "port"), 0.0) | {"array": compute}
    commands = plan.steps * chip.pes
    for operand in "ab":
        commands += _operand_use(plan, operand, use)
    tiles = plan.local["b"] * plan.local["m"] * plan.local["n"]
    use["array"] += tiles * t.tm * t.tn * 4 / chip.pe.simd.bytes_per_cycle / chip.pe.reduce.banks
    use["sram"] += p.batch * p.m * p.n * p.out.bytes / chip.sram_bytes_per_cycle
    chain = (chip.grid.rows if t.over_rows == "k" else 0) + (chip.grid.cols if t.over_cols == "k" else 0)
    reduce = tiles * chain * t.tm * t.tn * 4 / chip.pe.reduce.bytes_per_cycle
    first = (
        max(use["port"], use["row links"], use["dram"]) / plan.steps
    )  # the first tile's way in overlaps nothing
    bound = max(use, key=lambda r: use[r])
    others = (
        sum(use.values()) - use[bound]
    )  # nothing overlaps perfectly: of two equal bounds prefer less traffic
    return Estimate(use[bound] + reduce + first + OVERLAP_LOSS * others, commands, bound)


def _tile_cycles(chip: Chip, p: Problem, t: Mapping) -> float:
    if chip.pe.matrix.supports(p.a.name):
        cycles = float(chip.pe.matrix.busy(min(t.tm, p.m), min(t.kp, p.k), min(t.tn, p.n), p.a.name))
    else:
        cycles = t.tm * min(t.kp, p.k) * t.tn / chip.pe.simd.macs_per_cycle(p.a)
    return max(cycles, chip.pe.core.issue_cycles)


def _operand_use(plan: Plan, operand: str, use: dict[str, float]) -> int:
    """Add an operand's loads to the resources' cycles; return how many load commands there are."""
    chip, p, t = plan.chip, plan.problem, plan.mapping
    side, width = (t.tm, p.a.bytes) if operand == "a" else (t.tn, p.b.bytes)
    tile = min(side, p.m if operand == "a" else p.n) * min(t.kp, p.k) * width
    loads = plan.steps if plan.reloads(operand) else plan.steps // plan.local[plan.inner]
    cast = plan.cast(operand)
    copies = plan.leaders(operand)
    use["port"] += loads * tile / chip.pe.dma.bytes_per_cycle
    if cast is Cast.COL:
        use["col links"] += loads * tile / chip.noc.col_bytes_per_cycle
    else:
        each = chip.grid.cols if cast is Cast.NONE else 1
        use["row links"] += loads * tile * each / chip.noc.row_bytes_per_cycle
    read = loads * copies * tile
    space = p.a_space if operand == "a" else p.b_space
    outer = t.outer == ("m" if operand == "a" else "n")
    runs = np.asarray(t.kp * width)  # along k
    efficiency = float(chip.dram.efficiency(runs)) * chip.dram_bytes_per_cycle
    if space == "dram" and t.stage and outer:
        once = read / plan.local[plan.inner]
        use["dram"] += once / efficiency
        use["sram"] += (once + read) / chip.sram_bytes_per_cycle
    elif space == "dram":
        use["dram"] += read / efficiency
    else:
        use["sram"] += read / chip.sram_bytes_per_cycle
    return loads * copies


def plan_matmul(problem: Problem, chip: Chip, forced: Mapping | None = None) -> Plan:
    """Return the plan with the least estimated time; ties go to fewer commands, then to the first candidate.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    best: tuple[float, Plan] | None = None
    for mapping in [forced] if forced else candidates(problem, chip):
        plan = Plan(problem, mapping, chip)
        if mapping.stage and (plan.local[plan.inner] == 1 or stage_bytes(plan) > chip.sram.bytes // 4):
            continue
        guess = estimate(plan)
        cost = guess.cycles + guess.commands * 1e-3
        if best is None or cost < best[0]:
            best = (cost, plan)
    if best is None:
        raise NoRoom(
            f"matmul: no tile of {problem.m}x{problem.k}x{problem.n} {problem.a} fits "
            f"{chip.pe.local.bytes} bytes of local memory"
        )
    return best[1]


def stage_bytes(plan: Plan) -> int:
    """Return the SRAM scratch that staging takes: two outer steps' tiles of the outer operand."""
    p, t = plan.problem, plan.mapping
    side, width = (t.tm, p.a.bytes) if t.outer == "m" else (t.tn, p.b.bytes)
    return RINGS * plan.leaders("a" if t.outer == "m" else "b") * plan.local["k"] * side * t.kp * width
