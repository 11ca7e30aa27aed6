"""The choice of a mapping of a product with weights of few bits, by what each is estimated to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import Transfer, load, read_latency
from mtia_emu.program.isa import Cast
from mtia_emu.sums import add_up

from ..builder import LINE, NoRoom, ceil_div
from ..estimates import chain, exposed
from .packing import Weights
from .plan import RINGS, MatmulMapping, MatmulPlan, MatmulProblem

Array = np.ndarray[Any, Any]
PANELS = (256, 64, 16)  # most rows of a panel of codes that are tried
DEPTH = 3  # panels of codes on their way, beside the one that is read


def plan_packed(problem: MatmulProblem, weights: Weights, chip: Chip) -> MatmulPlan:
    """Return the plan with the least estimated time of a product whose k is that of one plane.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    return MatmulPlan(problem, ranked_packed(problem, weights, chip, 1)[0][0], chip)


def ranked_packed(
    problem: MatmulProblem, weights: Weights, chip: Chip, count: int
) -> list[tuple[MatmulMapping, float]]:
    """Return up to `count` different mappings and their estimated cycles, the least first; raise as above."""
    cycles: dict[MatmulMapping, float] = {}
    estimate = _Estimate(problem, weights, chip)
    for plan in _candidates(problem, weights, chip):
        cost = estimate.cycles(plan)
        if cost is not None:
            cycles.setdefault(plan.mapping, cost)
    if not cycles:
        raise NoRoom(f"matmul_packed: no tile fits {chip.pe.local.bytes} bytes of local memory")
    return sorted(cycles.items(), key=lambda pair: pair[1])[:count]


def _candidates(p: MatmulProblem, w: Weights, chip: Chip) -> Iterator[MatmulPlan]:
    reduce = chip.pe.reduce
    most_m, most_n = reduce.bank_rows * max(1, reduce.banks // 2), reduce.bank_cols * min(2, reduce.banks)
    single = w.plane_blocks == 1 and w.planes * w.plane_rows >= w.k and w.block >= w.plane_rows
    longest = [_panel(w.plane_rows if single else w.block, most, single) for most in PANELS]
    dims = [d for d in "mnk" if p.size(d) > 1 or d == "n"]
    splits = [(r, c) for r in dims for c in dims if (r, c) != ("k", "k")]
    tall = sorted({min(p.m, most_m), min(p.m, max(most_m // 2, 1)), min(p.m, 8)}, reverse=True)
    wide = sorted({min(p.n, most_n), min(p.n, max(most_n // 2, 1))}, reverse=True)
    for (over_rows, over_cols), tm, tn, kp, outer in product(
        splits, tall, wide, dict.fromkeys(longest), "mn"
    ):
        plain = MatmulMapping(over_rows, over_cols, tm, tn, kp, outer, depth=RINGS + DEPTH)
        yield MatmulPlan(p, plain, chip)
        count = MatmulPlan(p, plain, chip).local["k"]
        if outer == "n" and ceil_div(p.m, tm) > 1:
            yield MatmulPlan(p, replace(plain, hold=count), chip)


def _panel(block: int, most: int, alone: bool) -> int:
    """Return the longest panel of at most `most` rows: it divides a block, unless that is the only one."""
    return next(size for size in range(min(block, most), 0, -1) if alone or block % size == 0)


@dataclass(frozen=True)
class _Panels:
    """What one step's panels take, in cycles: to multiply and to expand a plane, and by operand to load.

    `moves` are the port, the link, the issue, SRAM and DRAM of one PE's loads, of which there are `loads`.
    """

    multiply: float
    expand: float
    bytes: dict[str, float]
    loads: dict[str, int]
    moves: dict[str, tuple[float, float, float, float, float]]


class _Estimate:
    """The cycles that plans of a product are estimated to take; panels of one size are asked about once."""

    def __init__(self, problem: MatmulProblem, weights: Weights, chip: Chip) -> None:
        self.p, self.w, self.chip = problem, weights, chip
        self.spaces = {"a": problem.a_space, "b": problem.b_space}
        self._panels: dict[tuple[int, int, int, tuple[bool, bool]], _Panels] = {}
        self._ways: dict[tuple[str, Cast, int], float] = {}

    def cycles(self, plan: MatmulPlan) -> float | None:
        """Return the cycles of a plan; None where local memory does not hold its panels.

        The slowest resource sets the pace. What no buffer hides comes on top: the way of the first panels,
        that of panels which replace held ones, and the last tile's sums along a chain of PEs.
        """
        t = plan.mapping
        panels = self._of(plan)
        if not self._fits(plan, panels):
            return None
        ways = {x: self._way(plan, x) for x in "ab"}
        use, held = self._work(plan, panels, max(ways.values()))
        first = 1 / plan.local[plan.inner]  # of the tiles that share held panels, which come with it
        paced = max(map(sum, zip((u * first for u in use), (0, 0, 0, 0, 0, *held), strict=True)))
        paced += max(use) * (1 - first)
        ports = {x: panels.moves[x][0] for x in "ab"}
        refill = 0.0
        if plan.hold:  # slots are filled again when the product that last reads them is done
            outer = plan.outer_operand
            hidden = (plan.local["k"] - 2) * max(panels.multiply, panels.expand) * self.w.planes
            refill = max(ways[outer] + ports[outer] - hidden, 0)
        edges = max(ways.values()) + add_up(ports.values()) + panels.multiply + panels.expand
        parts = ceil_div(plan.tiles["k"], plan.local["k"])
        sums = float(chain(parts, t.tm * t.tn * 4, self.chip)) if parts > 1 else 0.0
        rest = exposed(add_up(use) + add_up(held), paced)
        return paced + rest + edges + (plan.local[t.outer] - 1) * refill + sums

    def _fits(self, plan: MatmulPlan, panels: _Panels) -> bool:
        """Return whether local memory and accumulators hold what a plan keeps there."""
        p, t, w, pe = self.p, plan.mapping, self.w, self.chip.pe
        tile = t.tm * t.tn
        slots = {x: plan.hold if x == plan.outer_operand and plan.hold else t.depth for x in "ab"}
        need = sum(panels.bytes[x] * slots[x] for x in "ab")
        need += t.tn * t.kp * p.a.bytes * (RINGS + w.passes - 1)
        need += tile * (RINGS * p.out.bytes + p.epilogue.local_bytes) + LINE * (8 + 6 * max(slots.values()))
        return need <= pe.local.bytes and 4 * tile <= pe.reduce.bytes

    def _work(self, plan: MatmulPlan, panels: _Panels, way: float) -> tuple[list[float], list[float]]:
        """Return the cycles of each resource, and of those that move panels also what held panels take.

        They are the array, SIMD, issue, waits for slots and for loads on their way; then, of what moves
        panels, a PE's port, link, issue, SRAM and DRAM.
        """
        t, w, pe = plan.mapping, self.w, self.chip.pe
        work, streamed, held = plan.steps * w.planes, [0.0] * 5, [0.0] * 5
        commands = 0
        for x in "ab":
            kept = x == plan.outer_operand and plan.hold
            loads = plan.steps // plan.local[plan.inner] if kept else plan.steps
            commands += loads * panels.loads[x]
            rows, cols = _leaders(plan, x)
            into, spread = held if kept else streamed, (1, cols, 1, rows * cols, rows * cols)
            into[:] = [
                have + loads * more * times
                for have, more, times in zip(into, panels.moves[x], spread, strict=True)
            ]
        copied, _ = pe.simd.cost(t.tm * t.tn, 4, 1)
        use = [
            work * panels.multiply,
            work * panels.expand + plan.steps // plan.local["k"] * float(copied),
            float(pe.core.issue(work * (w.passes + 1))),
            plan.steps * way / t.depth,
            float(pe.dma.flight_cycles(commands, way)),
        ]
        return [*use, *streamed], held

    def _way(self, plan: MatmulPlan, operand: str) -> float:
        """Return the cycles of a panel's way to the furthest PE that has work."""
        key = (operand, plan.cast(operand), _leaders(plan, operand)[1])
        if key not in self._ways:
            hops = self.chip.grid.hops(key[2] - 1, key[1])
            missed = float(self.spaces[operand].off_chip)
            self._ways[key] = float(read_latency(hops, missed, self.chip))
        return self._ways[key]

    def _of(self, plan: MatmulPlan) -> _Panels:
        """Return what the panels of a plan take."""
        p, t = self.p, plan.mapping
        by_col = (plan.cast("a") == Cast.COL, plan.cast("b") == Cast.COL)  # else over rows' links
        key = (min(t.tm, p.m), min(t.kp, p.k), min(t.tn, p.n), by_col)
        if key not in self._panels:
            self._panels[key] = self._asked(*key)
        return self._panels[key]

    def _asked(self, m: int, k: int, n: int, by_col: tuple[bool, bool]) -> _Panels:
        """Return what panels [m, k] and [k, n] of each plane take, by the units' rules."""
        p, w, pe = self.p, self.w, self.chip.pe
        loads = {  # (bytes, runs) of each command
            "a": [(m * k * p.a.bytes, m)] * w.planes,
            "b": [(k * n, 1 if p.b_tiled else k), *[(n * w.scale.bytes, 1)] * w.planes, *[(n, 1)] * w.zeros],
        }
        multiply, _ = pe.product_cost(m, k, n, p.a)
        expand, wait = pe.simd.cost(k * n, p.a.bytes, w.passes)
        late = (w.passes + w.zeros) * wait  # each command waits for the one before
        moves = {x: self._moved(loads[x], x, over) for x, over in zip("ab", by_col, strict=True)}
        sizes = {x: float(sum(size for size, _ in loads[x])) for x in "ab"}
        return _Panels(float(multiply), float(expand) + late, sizes, {x: len(loads[x]) for x in "ab"}, moves)

    def _moved(
        self, loads: Sequence[tuple[int, int]], operand: str, by_col: bool
    ) -> tuple[float, float, float, float, float]:
        """Return the cycles of port, link, issue, SRAM and DRAM for one PE's loads of a panel."""
        chip = self.chip
        data, runs = (np.array(x, float) for x in zip(*loads, strict=True))
        way = load(Transfer(data, runs, 0, by_col), chip)
        run = data / runs
        near, far = 0.0, 0.0
        if self.spaces[operand].off_chip:
            far = float(chip.run_cycles(run, runs).sum())
        else:
            near = float(chip.sram_cycles(data.sum()))
        issue = float(chip.pe.core.issue(len(loads)))
        return float(way.busy.sum()), float(np.sum(way.on_link)), issue, near, far


def _leaders(plan: MatmulPlan, operand: str) -> tuple[int, int]:
    """Return over how many rows, and columns of each, loads of an operand are spread that have work."""
    across, rows, cols = dict(plan.cols), 1, 1
    for d in "mnk":
        used = ceil_div(plan.tiles[d], plan.local[d])
        along = min(across.get(d, 1), used)
        rows, cols = rows * ceil_div(used, along), cols * along
    cast = plan.cast(operand)
    return 1 if cast in (Cast.COL, Cast.ALL) else rows, 1 if cast in (Cast.ROW, Cast.ALL) else cols
