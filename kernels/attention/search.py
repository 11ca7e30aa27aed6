"""The choice of attention's tiling: what each asks of the chip is counted once, every cost estimated at once.

The busiest resource sets the pace. A PE's first unit meets a block of keys as it comes, its other units meet
it in local memory, while the next block is on its way. Of the first block of a unit only scores are computed,
of the last only what follows them: there the two halves of the work do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.sums import add_up
from mtia_emu.types import FP32

from ..builder import NoRoom, ceil_div
from .plan import AttentionPlan, AttentionProblem, AttentionTiling

Array = np.ndarray[Any, Any]
PANELS = (16, 8, 6, 4, 3, 2)  # in a block; beyond that the scaling of results is a small share of the work
STACKS = (1, 2, 4, 8)
OVERLAP_LOSS = 0.05  # share of the work on resources that do not bound which still shows (estimate)
STALLS = 2  # of a block's columns each waits for the one before
BEHIND = 4  # panels by which values come behind keys


class TilingWork(NamedTuple):
    """What a tiling asks of a chip, in cycles of one PE or lane unless said; or, of many tilings, arrays.

    `port` and `links` pass the keys and values, of `bytes` in all, over `panels` panels; `before` and `after`
    are those of a panel's scores and of what follows them, each on its busiest unit, `pace` of both together,
    `every` on all units. `worked` panels are a PE's, in `blocks` blocks of `block`, for `stack` units.
    """

    panels: Any
    blocks: Any
    block: Any
    stack: Any
    worked: Any
    port: Any
    links: Any
    bytes: Any
    before: Any
    after: Any
    pace: Any
    every: Any
    last: Any


class Tilings:
    """The tilings of a problem that fit a chip, and what each asks of it: all but the keys' own memory."""

    def __init__(self, problem: AttentionProblem, chip: Chip) -> None:
        """Raise `NoRoom` where no tiling fits the chip's memories."""
        plans = [AttentionPlan(problem, tiles, chip) for tiles in _candidates(problem, chip)]
        fitting = [p for p in plans if p.score_rings >= 1 and p.local_bytes <= chip.pe.local.bytes]
        if not fitting:
            raise NoRoom(
                f"attention: no tile of {problem.dim} + {problem.value_dim} columns of {problem.kind} fits "
                f"{chip.pe.local.bytes} bytes of local memory and {chip.pe.reduce.bytes} of accumulators"
            )
        self.problem = problem
        self.tiles = tuple(p.tiles for p in fitting)
        self.work = TilingWork(*np.array([_work(p) for p in fitting], np.float64).T)

    def ranked(self, rate: float, count: int) -> list[tuple[AttentionTiling, float]]:
        """Return up to `count` tilings and their estimated cycles, the least first.

        `rate` is `memory_rate` of the problem.
        """
        cycles = estimate(self.problem, self.work, rate)
        order = np.argsort(cycles, kind="stable")[:count].tolist()
        return [(self.tiles[i], float(cycles[i])) for i in order]


def plan_attention(problem: AttentionProblem, chip: Chip) -> AttentionPlan:
    """Return the plan with the least estimated time; raise `NoRoom` where none fits the chip's memories."""
    ((tiles, _),) = Tilings(problem, chip).ranked(memory_rate(problem, chip), 1)
    return AttentionPlan(problem, tiles, chip)


def memory_rate(problem: AttentionProblem, chip: Chip) -> float:
    """Return the bytes a cycle at which keys and values come out of the memory that they are in."""
    if problem.space != "dram":
        return chip.sram_bytes_per_cycle
    run = np.asarray(problem.dim * problem.kind.bytes)
    return chip.dram_bytes_per_cycle * float(chip.dram_efficiency(run))


def estimate(p: AttentionProblem, w: TilingWork, rate: float) -> Array:
    """Return about the cycles of tilings, keys and values coming at `rate` bytes a cycle.

    An example: 8 panels of keys come in 4 blocks of 2, to a PE that holds 2 units of queries. A panel takes a
    unit 20 cycles up to its scores and 25 from its powers on; together 30, since different parts of the PE
    do the two. So a unit takes 60 a block, the PE 2 * 60 = 120, and all work 4 * 120 = 480. If all keys and
    values take the port 400, a block comes in 100: the first unit waits 100 - 60 = 40 for the first block,
    later blocks come while both units work. At the first and the last block the two halves of the work do not
    overlap: 2 panels * (20 + 25 - 30) = 30 (`edge`). In all 480 + 40 + 30 = 550. If the keys take 560, a
    block comes in 140: the first wait is 80, and each of the 3 later blocks is 140 - 120 = 20 late: 650.
    """
    moved = np.maximum(np.maximum(w.port, w.links), w.bytes / rate)
    come, unit = moved / w.blocks, w.pace * w.worked / (w.blocks * w.stack)
    waits = np.maximum(come - unit, 0) + (w.blocks - 1) * np.maximum(come - w.stack * unit, 0)
    panel, keys = moved / w.panels, p.dim / (p.dim + p.value_dim)
    edge = np.minimum(w.block, w.worked) * (w.before + w.after - w.pace)
    # the last keys come before the last values; powers wait for the whole block's keys
    late = w.block * w.after - np.minimum(BEHIND, w.block) * panel * (1 - keys)
    edge = np.where(waits > 0, np.maximum(edge, late), edge + panel * keys)
    rest = w.port + w.links + w.bytes / rate + w.worked * w.every - np.maximum(w.pace * w.worked, moved)
    return w.pace * w.worked + waits + edge + OVERLAP_LOSS * rest + w.last


def _candidates(problem: AttentionProblem, chip: Chip) -> Iterator[AttentionTiling]:
    """Return tilings worth estimating: tiles of accumulators, blocks as long as they may be."""
    unit, whole = chip.pe.matrix, problem.heads * problem.queries
    widest = min(problem.keys, chip.pe.reduce.bank_cols * 2)
    rows = {min(whole, max(1, chip.pe.reduce.bank_rows >> i)) for i in range(4)}
    widths = {max(1, widest >> i) for i in range(3)} | {min(widest, unit.cols)}
    lanes = {chip.grid.cols, 1} if problem.groups * whole else {1}
    return (
        AttentionTiling(lane, r, w, panels, stack)
        for lane in sorted(lanes, reverse=True)
        for r in sorted(rows, reverse=True)
        for w in sorted(widths, reverse=True)
        for panels in PANELS
        for stack in STACKS
        if (panels == PANELS[-1] or (panels - 1) * w < problem.keys) and (stack - 1) * r < whole
    )


def _work(plan: AttentionPlan) -> TilingWork:
    """Return what a plan asks of its chip."""
    p, t, chip = plan.problem, plan.tiles, plan.chip
    needs = plan.needs()
    panels = int(needs.sum(axis=0).max()) * plan.rounds  # that the longest lane streams
    loads = t.width * (p.dim + p.value_dim) * p.kind.bytes * panels
    turned = chip.pe.layout.bytes_per_cycle  # values are turned on their way
    lanes = min(plan.lanes, p.groups * int(np.count_nonzero(needs[0])))  # that have work
    before, after = _panel_cycles(plan)
    both = {name: cycles + after[name] for name, cycles in before.items()}
    return TilingWork(
        panels,
        ceil_div(panels, plan.block),
        plan.block,
        t.stack,
        plan.worked() * plan.rounds,
        loads / min(chip.pe.dma.bytes_per_cycle, 2 * turned),
        loads * (chip.grid.cols // t.lane) / chip.noc.row_bytes_per_cycle,
        loads * lanes,
        max(before.values()),
        max(after.values()),
        max(both.values()),
        add_up(both.values()),
        _last(plan),
    )


def _last(plan: AttentionPlan) -> float:
    """Return the cycles from the last product to the result in memory."""
    p, t, chip = plan.problem, plan.tiles, plan.chip
    result = t.rows * p.value_dim
    scaled = 3 * 4 * result / chip.pe.simd.bytes_per_cycle + 5 * chip.pe.simd.startup_cycles
    return scaled + result * p.kind.bytes / chip.pe.dma.bytes_per_cycle


def _panel_cycles(plan: AttentionPlan) -> tuple[dict[str, float], dict[str, float]]:
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
