"""How attention is mapped onto the grid: who holds which queries, and how much of the keys at a time.

Queries that share keys and values are a group; its heads lie one after another, `queries` rows each. A lane
is a row of PEs that share every load of keys and values by multicast, or one PE where a group has too few
queries to fill a row. Each PE of a lane holds `stack` units, up to `rows` queries of one group each, and
meets the keys a block at a time, `panels` panels of `width` keys: one unit after another takes the whole
block, while the next one is loaded. After a block a unit's running result is scaled to the new maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mtia_emu.chip import Chip
from mtia_emu.isa import Cast
from mtia_emu.types import FP32, DType

from .builder import LINE, NoRoom, ceil_div, round_up
from .matmul_plan import RINGS

Array = np.ndarray[Any, Any]
PANELS = (16, 8, 6, 4, 3, 2)  # in a block; beyond that the scaling of results is a small share of the work
STACKS = (1, 2, 4, 8)
OVERLAP_LOSS = 0.05  # share of the work on resources that do not bound which still shows (estimate)
ALWAYS = 1 << 40  # a diagonal that hides no key
STALLS = 2  # of a block's columns each waits for the one before
BEHIND = 4  # panels by which values come behind keys
LAG = 5  # panels between powers and the scores that take their slot


@dataclass(frozen=True)
class Attention:
    """The sizes of softmax(tape(q k^T, extras)) v: groups of heads, each of so many queries.

    Key j is hidden from query i of a head where j > i + diagonal. `extra_bytes` is the local memory that
    extras and registers of the tape take for each score, `passes` the SIMD passes of the tape, in fp32.
    """

    groups: int
    heads: int
    queries: int
    keys: int
    dim: int
    value_dim: int
    kind: DType
    space: str
    diagonal: int = ALWAYS
    extra_bytes: int = 0
    passes: int = 1


@dataclass(frozen=True)
class Tiles:
    """How a problem is cut: PEs a lane, queries a unit, keys a panel, panels a block, units a PE."""

    lane: int
    rows: int
    width: int
    panels: int
    stack: int = 1

    def __str__(self) -> str:
        return f"lane={self.lane} rows={self.rows}x{self.stack} keys={self.width}x{self.panels}"


class Plan:
    """A problem on a grid under a tiling: its units, and the passes in which lanes take them."""

    def __init__(self, problem: Attention, tiles: Tiles, chip: Chip) -> None:
        self.problem, self.tiles, self.chip = problem, tiles, chip
        self.lanes = chip.pes // tiles.lane
        self.split = max(1, self.lanes // problem.groups)  # lanes of one group
        self.rounds = ceil_div(problem.groups, self.lanes)  # groups of one lane, one after another

    @property
    def cast(self) -> Cast:
        """Return which PEs a load of keys and values feeds."""
        return Cast.ROW if self.tiles.lane > 1 else Cast.NONE

    @cached_property
    def units(self) -> Array:
        """Return [unit, (first row in its group, rows, panels that it needs, panels seen whole)].

        Units of equal positions in all heads stand together, so that a lane's PEs need about the same keys.
        """
        p, rows = self.problem, self.tiles.rows
        whole = p.heads * p.queries
        if p.queries < rows:  # a unit spans heads, and so all positions
            first = np.arange(0, whole, rows)
            low, high = np.zeros_like(first), np.full_like(first, p.queries - 1)
            count = np.minimum(rows, whole - first)
        else:
            at = np.arange(0, p.queries, rows)
            low = np.repeat(at, p.heads)
            first = low + np.tile(np.arange(p.heads) * p.queries, len(at))
            count = np.minimum(rows, p.queries - low)
            high = low + count - 1
        seen = np.clip(high + p.diagonal + 1, 0, p.keys)  # keys that some query sees
        bare = np.clip(low + p.diagonal + 1, 0, p.keys)  # keys that every query sees
        plain = np.where(bare == p.keys, ceil_div(p.keys, self.tiles.width), bare // self.tiles.width)
        need = np.maximum(-(-seen // self.tiles.width), 1)
        return np.stack([first, count, need, plain], axis=1)

    @cached_property
    def passes(self) -> int:
        """Return how often a lane streams the keys of one group."""
        return ceil_div(len(self.units), self.tiles.lane * self.tiles.stack * self.split)

    def needs(self) -> Array:
        """Return [pass, lane of a group]: the panels that a lane streams, those that any of its PEs needs."""
        together = self.tiles.lane * self.tiles.stack
        need = np.zeros(self.passes * self.split * together, np.int64)
        need[: len(self.units)] = self.units[:, 2]
        return need.reshape(self.passes, self.split, together).max(axis=2)

    def worked(self) -> int:
        """Return the panels that the busiest PE takes of one group, all of its units together."""
        t, need = self.tiles, self.units[:, 2]
        every = np.zeros(self.passes * self.split * t.stack * t.lane, np.int64)
        every[: len(need)] = need
        return int(every.reshape(self.passes, self.split, t.stack, t.lane).sum(axis=(0, 2)).max())

    @property
    def block(self) -> int:
        """Return the panels of a block of keys that there are."""
        return min(self.tiles.panels, ceil_div(self.problem.keys, self.tiles.width))

    @property
    def score_rings(self) -> int:
        """Return the accumulators that scores take in turn."""
        tile = round_up(4 * self.tiles.rows * self.tiles.width, LINE)
        sums = round_up(4 * self.tiles.rows * self.problem.value_dim, LINE)
        return min(RINGS, (self.chip.pe.reduce.bytes - sums) // tile)

    @property
    def logit_rings(self) -> int:
        """Return the slots of scores in local memory: from the product by keys to that by values."""
        return self.tiles.panels + LAG

    @property
    def local_bytes(self) -> int:
        """Return about the local memory that the plan takes."""
        p, t = self.problem, self.tiles
        held = RINGS * t.stack * t.rows * p.dim * p.kind.bytes
        held += RINGS * t.panels * t.width * (p.dim + p.value_dim) * p.kind.bytes
        held += t.rows * t.width * (self.logit_rings * p.kind.bytes + p.extra_bytes)
        held += t.rows * p.value_dim * (4 * t.stack + RINGS * p.kind.bytes)
        slots = 2 * RINGS * t.panels + self.logit_rings + 10 * t.stack + 40
        return held + slots * LINE


def plan_attention(problem: Attention, chip: Chip) -> Plan:
    """Return the plan with the least estimated time; raise `NoRoom` where none fits the chip's memories."""
    return Plan(problem, ranked_attention(problem, chip, 1)[0], chip)


def ranked_attention(problem: Attention, chip: Chip, count: int) -> list[Tiles]:
    """Return up to `count` tilings, the one with the least estimated time first.

    Raises `NoRoom` where none fits the chip's memories.
    """
    found, rate = [], memory_rate(problem, chip)
    for tiles in _candidates(problem, chip):
        plan = Plan(problem, tiles, chip)
        if plan.score_rings >= 1 and plan.local_bytes <= chip.pe.local.bytes:
            found.append((estimate(plan, rate), tiles))
    if not found:
        raise NoRoom(
            f"attention: no tile of {problem.dim} + {problem.value_dim} columns of {problem.kind} fits "
            f"{chip.pe.local.bytes} bytes of local memory and {chip.pe.reduce.bytes} of accumulators"
        )
    return [tiles for _, tiles in sorted(found, key=lambda x: x[0])[:count]]


def _candidates(problem: Attention, chip: Chip) -> list[Tiles]:
    """Return tilings worth estimating: tiles of accumulators, blocks as long as they may be."""
    unit, whole = chip.pe.matrix, problem.heads * problem.queries
    widest = min(problem.keys, chip.pe.reduce.bank_cols * 2)
    rows = {min(whole, max(1, chip.pe.reduce.bank_rows >> i)) for i in range(4)}
    widths = {max(1, widest >> i) for i in range(3)} | {min(widest, unit.cols)}
    lanes = {chip.grid.cols, 1} if problem.groups * whole else {1}
    return [
        Tiles(lane, r, w, panels, stack)
        for lane in sorted(lanes, reverse=True)
        for r in sorted(rows, reverse=True)
        for w in sorted(widths, reverse=True)
        for panels in PANELS
        for stack in STACKS
        if (panels == PANELS[-1] or (panels - 1) * w < problem.keys) and (stack - 1) * r < whole
    ]


def memory_rate(problem: Attention, chip: Chip) -> float:
    """Return the bytes a cycle at which keys and values come out of the memory that they are in."""
    if problem.space != "dram":
        return chip.sram_bytes_per_cycle
    run = np.asarray(problem.dim * problem.kind.bytes)
    return chip.dram_bytes_per_cycle * float(chip.dram_efficiency(run))


def estimate(plan: Plan, rate: float) -> float:
    """Return about the cycles of a plan; `rate` is `memory_rate` of its problem.

    The busiest resource sets the pace. A PE's first unit meets a block of keys as it comes, its other units
    meet it in local memory, while the next block is on its way. Of the first block of a unit only scores are
    computed, of the last only what follows them: there the two halves of the work do not overlap.
    """
    p, t = plan.problem, plan.tiles
    panels = float(plan.needs().sum(axis=0).max()) * plan.rounds  # that the longest lane streams
    worked, block = float(plan.worked()) * plan.rounds, float(plan.block)
    before, after = _panel_cycles(plan)
    whole = {name: cycles + after[name] for name, cycles in before.items()}
    moves, pace = _moves(plan, panels, rate), max(whole.values())
    blocks = ceil_div(int(panels), plan.block)
    come, unit = max(moves.values()) / blocks, pace * worked / (blocks * t.stack)
    waits = max(come - unit, 0) + (blocks - 1) * max(come - t.stack * unit, 0)
    panel, keys = max(_moves(plan, 1.0, rate).values()), p.dim / (p.dim + p.value_dim)
    edge = min(block, worked) * (max(before.values()) + max(after.values()) - pace)
    if waits > 0:  # the last keys come before the last values; powers wait for the whole block's keys
        edge = max(edge, block * max(after.values()) - min(BEHIND, block) * panel * (1 - keys))
    else:
        edge += panel * keys
    rest = sum(moves.values()) + worked * sum(whole.values()) - max(pace * worked, max(moves.values()))
    return pace * worked + waits + edge + OVERLAP_LOSS * rest + _last(plan)


def _moves(plan: Plan, panels: float, rate: float) -> dict[str, float]:
    """Return the cycles that panels of keys and values take on their way, each lane streaming so many."""
    p, t, chip = plan.problem, plan.tiles, plan.chip
    loads = t.width * (p.dim + p.value_dim) * p.kind.bytes * panels
    turned = chip.pe.layout.bytes_per_cycle  # values are turned on their way
    lanes_of_row = chip.grid.cols // t.lane
    busy = min(plan.lanes, p.groups * int(np.count_nonzero(plan.needs()[0])))
    return {
        "port": loads / min(chip.pe.dma.bytes_per_cycle, 2 * turned),
        "row links": loads * lanes_of_row / chip.noc.row_bytes_per_cycle,
        "memory": loads * busy / rate,
    }


def _last(plan: Plan) -> float:
    """Return the cycles from the last product to the result in memory."""
    p, t, chip = plan.problem, plan.tiles, plan.chip
    result = t.rows * p.value_dim
    scaled = 3 * 4 * result / chip.pe.simd.bytes_per_cycle + 5 * chip.pe.simd.startup_cycles
    return scaled + result * p.kind.bytes / chip.pe.dma.bytes_per_cycle


def _panel_cycles(plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """Return the cycles that a panel takes of the matrix unit, of SIMD and of the core that issues.

    Up to its largest score, and from its powers on.
    """
    p, t, chip = plan.problem, plan.tiles, plan.chip
    matrix, simd, issue = chip.pe.matrix, chip.pe.simd, chip.pe.core.issue_cycles
    scores, narrow = t.rows * t.width, p.kind.bytes
    # the tape and the largest; then the difference, its power (2 passes), their sum in fp32, scaled results
    early = (scores * (4 * p.passes + narrow) + t.rows * narrow) / simd.bytes_per_cycle
    block = 2 * 4 * t.rows * p.value_dim + 6 * 4 * t.rows  # and columns: the maximum, what it scales
    late = (scores * (3 * narrow + 4) + 4 * t.rows + block / plan.block) / simd.bytes_per_cycle
    late += STALLS * simd.startup_cycles / plan.block
    if matrix.supports(p.kind.name):
        product = float(matrix.busy(t.rows, p.dim, t.width, p.kind.name))
        weighted = float(matrix.busy(t.rows, t.width, p.value_dim, p.kind.name))
    else:
        product = weighted = 0.0
        early += scores * p.dim / simd.macs_per_cycle(FP32)
        late += scores * p.value_dim / simd.macs_per_cycle(FP32)
    return (
        {"array": product, "simd": early, "issue": (3 + p.passes) * issue},
        {"array": weighted, "simd": late, "issue": (5 + 6 / plan.block) * issue},
    )
