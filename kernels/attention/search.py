"""The choice of attention's tiling: what each asks of the chip is counted once, every cost estimated at once.

The busiest resource sets the pace. A PE's first unit meets a block of keys as it comes, its other units meet
it in local memory, while the next block is on its way. Of the first block of a unit only scores are computed,
of the last only what follows them: there the two halves of the work do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip, Pe
from mtia_emu.machine.memories import Memory
from mtia_emu.machine.ways import Transfer
from mtia_emu.program.isa import Cast

from ..builder import NoRoom
from ..estimates import exposed
from .plan import AttentionPlan, AttentionProblem, AttentionTiling

Array = np.ndarray[Any, Any]
PANELS = (16, 8, 6, 4, 3, 2)  # in a block; beyond that the scaling of results is a small share of the work
STACKS = (1, 2, 4, 8)
STALLS = 2  # of a block's columns each waits for the one before
BEHIND = 4  # panels by which values come behind keys


class TilingWork(NamedTuple):
    """What tilings ask of a chip, an element each, in cycles of one PE or lane unless said.

    `port` and `links` pass the keys and values, of `bytes` in all, over `panels` panels; `before` and `after`
    are those of a panel's scores and of what follows them, each on its busiest unit, `pace` of both together,
    `every` on all units. `worked` panels are a PE's, in `blocks` blocks of `block`, for `stack` units.
    """

    panels: Array
    blocks: Array
    block: Array
    stack: Array
    worked: Array
    port: Array
    links: Array
    bytes: Array
    before: Array
    after: Array
    pace: Array
    every: Array
    last: Array


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
        self.work = _work(fitting)

    def ranked(self, space: Memory, chip: Chip, count: int) -> list[tuple[AttentionTiling, float]]:
        """Return up to `count` tilings and their estimated cycles but `first_cycles`, the least first.

        `space` is the memory of keys and values.
        """
        widths = np.array([t.width for t in self.tiles])
        rate = memory_rate(replace(self.problem, space=space), chip, widths)
        cycles = estimate(self.problem, self.work, rate)
        order = np.argsort(cycles, kind="stable")[:count].tolist()
        return [(self.tiles[i], float(cycles[i])) for i in order]


def plan_attention(problem: AttentionProblem, chip: Chip) -> AttentionPlan:
    """Return the plan with the least estimated time; raise `NoRoom` where none fits the chip's memories."""
    ((tiles, _),) = Tilings(problem, chip).ranked(problem.space, chip, 1)
    return AttentionPlan(problem, tiles, chip)


def memory_rate(problem: AttentionProblem, chip: Chip, widths: Array) -> Array:
    """Return the bytes a cycle, [tiling], at which panels of `widths` keys come out of their memory.

    The keys of a head are taken to lie one behind another, so that a panel is one run.
    """
    if not problem.space.off_chip:
        return np.full(len(widths), chip.sram_bytes_per_cycle)
    runs = problem.dim * problem.kind.bytes * np.minimum(widths, problem.part_keys)
    return np.asarray(runs / chip.run_cycles(runs, 1))


def estimate(p: AttentionProblem, w: TilingWork, rate: Array) -> Array:
    """Return about the cycles of tilings, [tiling], keys and values coming at `rate` bytes a cycle.

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
    every = w.port + w.links + w.bytes / rate + w.worked * w.every
    rest = exposed(every, np.maximum(w.pace * w.worked, moved), "attention")
    return w.pace * w.worked + waits + edge + rest + w.last


def _candidates(problem: AttentionProblem, chip: Chip) -> Iterator[AttentionTiling]:
    """Return tilings worth estimating: tiles of accumulators, blocks as long as they may be."""
    unit, whole = chip.pe.matrix, problem.heads * problem.queries
    widest = min(problem.part_keys, chip.pe.reduce.bank_cols * 2)
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
        if (panels == PANELS[-1] or (panels - 1) * w < problem.part_keys) and (stack - 1) * r < whole
    )


def _work(plans: Sequence[AttentionPlan]) -> TilingWork:
    """Return what plans of one problem ask of their chip, an element each."""
    p, chip = plans[0].problem, plans[0].chip
    rows, width, lane, stack, block, worked, panels, lanes = np.array([_sizes(x) for x in plans], np.int64).T
    keys, values = (panels * width * dim * p.kind.bytes for dim in (p.dim, p.value_dim))
    sizes = ((keys, 0), (values, values))  # values are turned on their way
    k, v = (ways.load(Transfer(size, panels, 0, turned=turned), chip) for size, turned in sizes)
    before, after = _panel_cycles(p, chip.pe, rows, width, block)
    both = [x + y for x, y in zip(before, after, strict=True)]
    return TilingWork(
        panels,
        -(-panels // block),
        block,
        stack,
        worked,
        k.busy + v.busy,
        (k.on_link + v.on_link) * (chip.grid.cols // lane),
        (keys + values) * lanes,
        np.maximum.reduce(before),
        np.maximum.reduce(after),
        np.maximum.reduce(both),
        np.asarray(sum(both)),
        _last(p, rows, chip),
    )


def _sizes(plan: AttentionPlan) -> tuple[int, ...]:
    """Return rows, keys a panel, PEs a lane, units a PE, panels a block, and what that comes to.

    That is the panels that the busiest PE takes, those that the longest lane streams, and lanes with work.
    """
    t, needs = plan.tiles, plan.needs()
    lanes = min(plan.lanes, plan.problem.streams * int(np.count_nonzero(needs[0])))
    worked, panels = (count * plan.rounds for count in (plan.worked(), int(needs.sum(axis=0).max())))
    return t.rows, t.width, t.lane, t.stack, plan.block, worked, panels, lanes


def _last(p: AttentionProblem, rows: Array, chip: Chip) -> Array:
    """Return the cycles, [tiling], from the last product to the result on its way to memory."""
    result = rows * p.value_dim
    scaled, late = chip.pe.simd.cost(result, 4, 3)
    store = ways.store(Transfer(result * p.kind.bytes, rows, 0), chip)
    return np.asarray(scaled + 5 * late + store.busy)


def first_cycles(problem: AttentionProblem, chip: Chip) -> float:
    """Return the cycles before the first keys are there, and after the last result has left its PE."""
    furthest = chip.grid.hops(chip.grid.cols - 1, Cast.ROW)
    come = ways.read_latency(furthest, float(problem.space.off_chip), chip)
    return float(chip.pe.core.issue(1) + come + ways.write_latency(furthest, chip))


def _panel_cycles(
    p: AttentionProblem, pe: Pe, rows: Array, width: Array, block: Array
) -> tuple[list[Array], list[Array]]:
    """Return the cycles, [tiling], that a panel takes of the matrix unit, of SIMD and of the issuing core.

    Up to its largest score, and from its powers on.
    """
    scores, narrow = rows * width, p.kind.bytes
    # the tape and the largest; then the difference, its power (2 passes), their sum in fp32, scaled results
    early = _passed(pe, (scores, 4, p.passes), (scores, narrow, 1), (rows, narrow, 1))
    late = _passed(pe, (scores, narrow, 3), (scores, 4, 1), (rows, 4, 1))
    ends = _passed(pe, (rows * p.value_dim, 4, 2), (rows, 4, 6))  # and columns: the maximum, what it scales
    _, wait = pe.simd.cost(scores, 4, 1)
    late = late + (ends + STALLS * wait) / block
    product, _ = pe.product_cost(rows, p.dim, width, p.kind)
    weighted, _ = pe.product_cost(rows, width, p.value_dim, p.kind)
    first, then = pe.core.issue(np.full(len(rows), 3.0 + p.passes)), pe.core.issue(5 + 6 / block)
    if pe.matrix.supports(p.kind.name):
        return [product, early, first], [weighted, late, then]
    return [early + product, first], [late + weighted, then]


def _passed(pe: Pe, *passes: tuple[Array, int, int]) -> Array:
    """Return the cycles of SIMD, [tiling], for (elements, bytes each, passes) of several commands."""
    return np.asarray(sum(pe.simd.cost(*each)[0] for each in passes))
