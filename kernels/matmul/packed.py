"""Products with weights of few bits: codes and scales are loaded, SIMD expands them, the array multiplies.

Weights come as codes [plane_rows, n], one or two to an element: of two, the low halves are the first rows of
the matrix, the high halves the rest. A step of the grid loads one panel of codes and multiplies a panel for
each plane; every panel lies within one block of rows, whose scales are one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import FIRST, FUNCTION_NAMES, NO_SLOT, VECTOR, Block, Cast, Opcode, Operand, Shape
from mtia_emu.sums import add_up
from mtia_emu.types import DType

from ..builder import LINE, NoRoom, ceil_div
from ..rows.tape import Tape, finish
from .dense import LOADS, MATMUL, STEP, _Emitter
from .plan import RINGS, MatmulMapping, MatmulPlan, MatmulProblem

Array = np.ndarray[Any, Any]
EXPAND = 5.0  # in the order of issue: after the product of the step before, and before this step's
PANELS = (256, 64, 16)  # most rows of a panel of codes that are tried
DEPTH = 3  # panels of codes on their way, beside the one that is read
SLACK = 0.02  # share of the work on resources that do not bound which still shows (estimate)


@dataclass(frozen=True)
class Weights:
    """How weights lie: rows of the matrix, rows to a scale, codes an element, and whether zeros are given."""

    k: int
    block: int
    planes: int
    plane_rows: int
    zeros: bool
    scale: DType

    @property
    def plane_blocks(self) -> int:
        """Return the rows of scales that one plane has."""
        return ceil_div(self.plane_rows, self.block)

    @property
    def passes(self) -> int:
        """Return the SIMD commands that expand a panel."""
        return 3 if self.zeros else 2


def plan_packed(problem: MatmulProblem, weights: Weights, chip: Chip) -> MatmulPlan:
    """Return the plan with the least estimated time of a product whose k is that of one plane.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    return MatmulPlan(problem, ranked_packed(problem, weights, chip, 1)[0], chip)


def ranked_packed(problem: MatmulProblem, weights: Weights, chip: Chip, count: int) -> list[MatmulMapping]:
    """Return up to `count` different mappings, that of the least estimated time first; errors as above."""
    found: dict[MatmulMapping, float] = {}
    for plan in _candidates(problem, weights, chip):
        cost = _cost(plan, weights)
        if cost is not None:
            found.setdefault(plan.mapping, cost)
    if not found:
        raise NoRoom(f"matmul_packed: no tile fits {chip.pe.local.bytes} bytes of local memory")
    return sorted(found, key=found.__getitem__)[:count]


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


def _cost(plan: MatmulPlan, w: Weights) -> float | None:
    """Return the estimated cycles of a plan; None where local memory does not hold its panels.

    Each resource's cycles are its work over its rate; the slowest sets the pace, part of the others shows.
    What no buffer hides comes on top: the way of the first panels, that of panels which replace held ones,
    and the last tile's sums along a chain of PEs.
    """
    p, t, chip = plan.problem, plan.mapping, plan.chip
    panel, wide, tile = _panel_bytes(plan, w), t.tn * t.kp * p.a.bytes, t.tm * t.tn
    slots = {x: plan.hold if x == plan.outer_operand and plan.hold else t.depth for x in "ab"}
    need = sum(panel[x] * slots[x] for x in "ab") + wide * (RINGS + w.passes - 1)
    need += tile * (RINGS * p.out.bytes + p.epilogue.local_bytes) + LINE * (8 + 6 * max(slots.values()))
    if need > chip.pe.local.bytes or 4 * tile > chip.pe.reduce.bytes:
        return None
    work = plan.steps * w.planes
    multiply, expand = _panel_cycles(plan, w)
    way = chip.cycles(chip.dram.latency_s) + chip.pe.dma.startup_cycles
    streamed, held = _moves(plan, w, panel)
    use = [
        work * multiply,
        work * expand + plan.steps // plan.local["k"] * tile * 4 / chip.pe.simd.bytes_per_cycle,
        work * (w.passes + 1) * chip.pe.core.issue_cycles,
        plan.steps * way / t.depth,
        *streamed,
    ]
    first = 1 / plan.local[plan.inner]  # of the tiles that share held panels, which come with it
    paced = max(map(sum, zip((u * first for u in use), (0, 0, 0, 0, *held), strict=True)))
    paced += max(use) * (1 - first)
    refill = 0.0
    if plan.hold:  # slots are filled again when the product that last reads them is done
        hidden = (plan.local["k"] - 2) * max(multiply, expand) * w.planes
        refill = max(way + panel[plan.outer_operand] / chip.pe.dma.bytes_per_cycle - hidden, 0)
    refills = plan.local[t.outer] - 1
    edges = way + (panel["a"] + panel["b"]) / chip.pe.dma.bytes_per_cycle + multiply + expand
    return paced + SLACK * (add_up(use) + add_up(held)) + edges + refills * refill + _chain(plan)


def _panel_bytes(plan: MatmulPlan, w: Weights) -> dict[str, float]:
    """Return the bytes of a step's panels of both operands, scales and zero points with the codes."""
    p, t = plan.problem, plan.mapping
    k, n = min(t.kp, p.k), min(t.tn, p.n)
    rows = w.planes * w.scale.bytes + w.zeros
    return {"a": min(t.tm, p.m) * k * p.a.bytes * w.planes, "b": n * (k + rows)}


def _moves(plan: MatmulPlan, w: Weights, panel: dict[str, float]) -> tuple[list[float], list[float]]:
    """Return the cycles of what moves panels that are streamed, and that are held.

    They are those of a PE's port and issue, links, SRAM and DRAM.
    """
    p, t, chip = plan.problem, plan.mapping, plan.chip
    streamed, kept = [0.0] * 5, [0.0] * 5
    k, n = min(t.kp, p.k), min(t.tn, p.n)
    together = {"a": k * p.a.bytes, "b": k * n if p.b_tiled else n}  # bytes of a run
    spaces = {"a": p.a_space, "b": p.b_space}
    commands = {"a": w.planes, "b": 1 + w.planes + w.zeros}
    runs = {"a": w.planes * min(t.tm, p.m), "b": commands["b"] + (0 if p.b_tiled else k)}
    for x in "ab":
        held = x == plan.outer_operand and plan.hold
        loads = plan.steps // plan.local[plan.inner] if held else plan.steps
        rows, cols = _leaders(plan, x)
        rate = chip.dram_bytes_per_cycle * float(chip.dram_efficiency(np.asarray(together[x])))
        dram, read = spaces[x] == "dram", panel[x] * rows * cols
        use = (
            float(chip.pe.dma.cost(panel[x], runs[x])[0]),
            panel[x] * cols / chip.noc.row_bytes_per_cycle,
            commands[x] * chip.pe.core.issue_cycles,
            0.0 if dram else read / chip.sram_bytes_per_cycle,
            read / rate if dram else 0.0,
        )
        into = kept if held else streamed
        into[:] = [have + loads * more for have, more in zip(into, use, strict=True)]
    return streamed, kept


def _leaders(plan: MatmulPlan, operand: str) -> tuple[int, int]:
    """Return over how many rows, and columns of each, loads of an operand are spread that have work."""
    across, rows, cols = dict(plan.cols), 1, 1
    for d in "mnk":
        used = ceil_div(plan.tiles[d], plan.local[d])
        along = min(across.get(d, 1), used)
        rows, cols = rows * ceil_div(used, along), cols * along
    cast = plan.cast(operand)
    return 1 if cast in (Cast.COL, Cast.ALL) else rows, 1 if cast in (Cast.ROW, Cast.ALL) else cols


def _chain(plan: MatmulPlan) -> float:
    """Return the cycles in which the last tile's sums pass along the PEs that share k."""
    t, chip = plan.mapping, plan.chip
    parts = ceil_div(plan.tiles["k"], plan.local["k"])
    if parts < 2:
        return 0.0
    added = t.tm * t.tn * 4 / chip.pe.reduce.bytes_per_cycle
    return (parts - 2) * (added / chip.pe.reduce.banks + chip.noc.hop_cycles) + added


def _panel_cycles(plan: MatmulPlan, w: Weights) -> tuple[float, float]:
    """Return the cycles in which a panel of one plane is multiplied and is expanded."""
    p, t, pe = plan.problem, plan.mapping, plan.chip.pe
    m, k, n = min(t.tm, p.m), min(t.kp, p.k), min(t.tn, p.n)
    if pe.matrix.supports(p.a.name):
        multiply = float(pe.matrix.busy(m, k, n, p.a.name))
    else:
        multiply = m * k * n / pe.simd.macs_per_cycle(p.a)
    commands = w.passes + w.zeros  # each waits for the one before
    expand = float(pe.simd.cost(k * n, p.a.bytes, w.passes)[0])
    return multiply, expand + commands * pe.simd.startup_cycles


def emit_matmul_packed(
    plan: MatmulPlan,
    weights: Weights,
    a: Operand,
    operands: tuple[Operand, Operand, Operand | None],
    out: Operand,
    epilogue: Tape | None = None,
    extras: Sequence[Operand] = (),
) -> Block:
    """Return the block of a planned product a[m, k] x weights[k, n]; the plan's k is that of one plane.

    `operands` are codes [plane_rows, n], scales [blocks, n] and zero points [plane_blocks, n], or None. The
    block's operands are a, codes, out, the extras, scales and zero points; epilogue and extras as in
    `emit_matmul`.
    """
    codes, scales, zeros = operands
    tape = finish(epilogue or Tape(1, (), (0,)), [out.dtype])
    emitter = _PackedEmitter(plan, a, codes, out, tape, tuple(extras))
    return emitter.unpack(weights, scales, zeros).block()


class _PackedEmitter(_Emitter):
    """The step grid of a product, each step with a panel for each plane of its codes."""

    def unpack(self, weights: Weights, scales: Operand, zeros: Operand | None) -> _PackedEmitter:
        """Add the operands and slots of what expands codes; return the emitter."""
        self.w, p, t = weights, self.p, self.t
        self.build.kernel = "matmul_packed"
        self.scales = len(self.build.operands)
        self.build.operands += (scales, *([zeros] if zeros is not None else []))
        more = weights.planes - 1
        self.a_panels = [self.panels["a"], *(self._panels("a", p.a, t.tm * t.kp) for _ in range(more))]
        self.scale_slots = [self._panels("b", scales.dtype, t.tn) for _ in range(weights.planes)]
        self.zero_slots = self._panels("b", zeros.dtype, t.tn) if zeros is not None else None
        self.points = self.build.slot(p.a, t.tn, RINGS)
        self.work = self.build.slot(p.a, t.tn * t.kp, weights.passes - 1)
        self.wide = self.build.slot(p.a, t.tn * t.kp, RINGS)
        self.first = {"k0": self.k0, "k": self.k, "valid": self.valid}
        return self

    def _at(self, plane: int) -> None:
        """Let panels of a, their lengths and what is there to do be those of a plane."""
        base = self.first["k0"]
        left = self.w.k - plane * self.w.plane_rows - base
        self.k0 = base + plane * self.w.plane_rows
        self.k = np.minimum(self.first["k"], np.maximum(left, 0))
        self.valid = self.first["valid"] & (self.k > 0)
        self.panels["a"] = self.a_panels[plane]

    def _load(self, operand: str) -> None:
        for plane in range(self.w.planes if operand == "a" else 1):
            self._at(plane)
            super()._load(operand)
            self._at(0)
        if operand == "b":
            for plane in range(self.w.planes):
                self._rows(self.scales, plane * self.w.plane_blocks, self.scale_slots[plane], plane)
            if self.zero_slots is not None:
                self._rows(self.scales + 1, 0, self.zero_slots, 0)

    def _rows(self, operand: int, first: int, slots: Array, plane: int) -> None:
        """Emit the loads of the row of scales or zero points that goes with each panel of codes."""
        self._at(plane)
        cast = self.plan.cast("b")
        leaders, work = self._groups(cast)
        fresh = ~self._holds("b") | (self.inner[:, 0] == 0)
        step, group = np.nonzero(work & fresh[:, None])
        at = (step, leaders[group])
        self.build.add(
            Opcode.LOAD,
            self._when("b", step) + LOADS + 1 / 64,
            pe=at[1],
            cast=cast,
            dst=slots[step],
            operand=operand,
            row=first + self.first["k0"][at] // self.w.block,
            rows=1,
            col=self.n0[at],
            cols=self.n[at],
        )
        self._at(0)

    def _multiply(self) -> None:
        vector = 0 if self.plan.chip.pe.matrix.supports(self.p.a.name) else VECTOR
        for plane in range(self.w.planes):
            self._at(plane)
            step, pe = np.nonzero(self.valid)
            order = step * STEP + EXPAND + plane / 2
            wide = self._expand(plane, step, pe, order)
            fresh = FIRST if plane == 0 else 0
            self.build.add(
                Opcode.MATMUL,
                order + (MATMUL - EXPAND) / 4,
                pe=pe,
                rows=self.m[step, pe],
                cols=self.n[step, pe],
                k=self.k[step, pe],
                dst=self.acc_slot + step // self.plan.local["k"] % self.accumulators,
                src0=self.a_panels[plane][step],
                src1=wide,
                flags=np.where(self.kk[step, 0] == 0, fresh, 0) | vector,
            )
        self._at(0)

    def _expand(self, plane: int, step: Array, pe: Array, order: Array) -> Array:
        """Emit the SIMD commands that expand panels of codes; return the slots that hold the result."""
        k, n = self.k[step, pe], self.n[step, pe]
        turn = (step * self.w.planes + plane) % RINGS
        name = "copy" if self.w.planes == 1 else ("bit_low4", "bit_high4")[plane]
        self._simd(name, order, pe, k, n, self.work, self.panels["b"][step])
        value = self.work
        if self.zero_slots is not None:
            self._simd(name, order, pe, np.ones_like(k), n, self.points + turn, self.zero_slots[step])
            value = self.work + 1
            self._simd("sub", order, pe, k, n, value, self.work, self.points + turn)
        self._simd("mul", order, pe, k, n, self.wide + turn, value, self.scale_slots[plane][step])
        return np.asarray(self.wide + turn)

    def _simd(
        self,
        name: str,
        order: Array,
        pe: Array,
        rows: Array,
        cols: Array,
        dst: Any,
        src0: Any,
        src1: Any = NO_SLOT,
    ) -> None:
        """Emit one function over panels; its second operand is one row."""
        flags = 0 if isinstance(src1, int) and src1 == NO_SLOT else Shape.ROW << 2
        self.build.add(
            Opcode.SIMD,
            order,
            pe=pe,
            fn=FUNCTION_NAMES.index(name),
            rows=rows,
            cols=cols,
            dst=dst,
            src0=src0,
            src1=src1,
            flags=int(flags),
        )
