"""Attention with the scores in local memory alone: tiled, with a running maximum and sum (online softmax).

Of each unit of queries the PE keeps, in fp32, the largest score of each row so far, the sum of the powers
and the weighted sum of the values. Method: Milakov and Gimelshein, Online normalizer calculation for softmax,
2018 (arXiv 1805.02867); Dao et al., FlashAttention, 2022 (arXiv 2205.14135). Scores are rounded to the
operands' type, as a graph of separate nodes rounds them.

The commands of one panel and unit are issued over many steps, each a panel's work after the one that it waits
for, so that no unit of the machine stands still for another's latency.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mtia_emu.program.isa import (
    FIRST,
    FUNCTION_NAMES,
    IMMEDIATE,
    REDUCTION_NAMES,
    VECTOR,
    Block,
    Opcode,
    Shape,
)
from mtia_emu.types import FP32

from ..builder import Builder
from ..matmul.plan import RINGS
from ..phases import Phases
from ..rows.emit_tape import PeTiles, Registers, TapeSite, allocate, emit_steps, reserve
from ..rows.tape import Tape, finish
from .extras import ExtraLoads
from .operands import AttentionOperands, ScoreTape
from .plan import AttentionPlan
from .walk import Walk

Array = np.ndarray[Any, Any]
LOWEST = float(np.finfo(np.float32).min)  # stands for a maximum before there is one: no power of it is NaN
LEAST = float(np.finfo(np.float32).tiny)  # a row whose keys are all hidden then gives 0, not 0/0
LONG = 3  # slots of what is used two blocks after it is known
LONGEST = 4  # and of what is used some rounds later still

# In a round a unit takes one panel. Work on several is under way at a time, so that array, SIMD and DMA all
# find their operands there: scores of one panel; powers of one of the block before, whose largest score is
# known by then; and the results of the block before that. Rounds count from the step that `at` is given.
ISSUE = Phases(
    # loads, a block of keys ahead of their step: `_load`
    queries=0,
    # how far the largest score so far rose with the block, and the factor for what was summed before it
    rise=3,
    factor=4,  # waits for the rise
    keys=0,
    extras=-1,  # the round before the tape that reads them
    # the array: scores of this panel, then values of one whose powers were done in the round before
    scores=0,
    weighted=4,
    values=4,  # loads: as much later than keys as they are needed later
    # SIMD: the tape, on scores as they come from the array, then a round later their largest,
    logits=0,
    largest=1,
    larger=2,  # and one more for each command that waits for the one before it
    most=2,
    logarithm=5,  # of the total, with the largest score that it is of
    guarded=5,
    # from here on powers of a panel, a round for each of difference, power, sum and total; between them the
    # quotient of a unit that is done, whose commands wait for one another as well
    difference=2,
    inverse=5,
    power=3,
    quotient=5,
    summed=4,
    totalled=5,
    scaled=4,  # of the total before the block: behind the factor, and before the block's first sum is added
    # results last: all weighted values of the block have left the array
    result=3,
    store=5,  # of the quotient
    added=3,
)


def emit_attention(plan: AttentionPlan, operands: AttentionOperands, scores: ScoreTape) -> Block:
    """Return the block of planned attention; the block's operands stand in the order of the record."""
    return _Emitter(plan, operands, scores).block()


class _Emitter:
    """The commands of all panels."""

    def __init__(self, plan: AttentionPlan, operands: AttentionOperands, scores: ScoreTape) -> None:
        self.plan, self.p, self.t, self.scores = plan, plan.problem, plan.tiles, scores
        x = operands
        self.kind, self.extras = x.q.dtype, x.extras
        columns = (replace(side, by_column=True) for side in (x.k, x.v))
        results = (x.out,) if x.total is None else (x.out, x.total)
        self.build = Builder(plan.chip, "attention", (x.q, *columns, *results, *x.extras), str(self.t))
        self.vector = 0 if plan.chip.pe.matrix.supports(self.kind.name) else VECTOR
        self.w, self.totals = Walk(plan, self.build), x.total is not None
        self._reserve()
        self._reserve_tapes()

    def _reserve(self) -> None:
        p, t, plan, slot = self.p, self.t, self.plan, self.build.slot
        tile = t.rows * t.width
        self.q_slot = slot(self.kind, t.rows * p.dim, RINGS * t.stack)
        self.k_slot = slot(self.kind, p.dim * t.width, RINGS * t.panels)
        self.v_slot = slot(self.kind, t.width * p.value_dim, RINGS * t.panels)
        self.score = slot(FP32, tile, plan.score_rings, accumulator=True)
        self.sums = slot(FP32, t.rows * p.value_dim, accumulator=True)
        self.logit = slot(self.kind, tile, plan.logit_rings)
        self.partial_most, self.block_most = slot(self.kind, t.rows, RINGS), slot(self.kind, t.rows, RINGS)
        self.partial_sum, self.most = slot(FP32, t.rows, RINGS), slot(FP32, t.rows, RINGS * t.stack)
        self.factor, self.total = slot(FP32, t.rows, LONG), slot(FP32, t.rows, LONG * t.stack)
        self.inverse = slot(FP32, t.rows, RINGS)
        self.result = slot(FP32, t.rows * p.value_dim, t.stack)
        self.out = slot(self.build.operands[3].dtype, t.rows * p.value_dim, RINGS)
        self.level = slot(FP32, t.rows, LONGEST * self.totals)  # the largest score of all
        self.logarithm = slot(FP32, t.rows, RINGS * self.totals)

    def _reserve_tapes(self) -> None:
        """Reserve slots for the extras, and for the registers of the tape with and without its mask."""
        t = self.t
        self.loads = ExtraLoads(self.build, self.w, self.extras)
        self.shapes = [Shape.FULL, *self.loads.shapes]
        self.tapes: list[tuple[Array, Tape, Registers, list[int]]] = []
        kinds = [(self.w.works & ~self.w.plain, self.scores.tape), (self.w.plain, self.scores.plain())]
        for where, tape in kinds if self.scores.mask else [(self.w.works, self.scores.tape)]:
            finished = finish(tape, [self.kind])
            held = allocate(finished, self.shapes, _whole(finished))
            self.tapes.append((where, finished, held, reserve(self.build, held, t.rows, t.width)))

    def block(self) -> Block:
        """Emit everything and return the block."""
        self._load()
        self._multiply()
        for where, tape, held, slots in self.tapes:
            self._logits(where, tape, held, slots)
        self.loads.emit(ISSUE)
        self._largest()
        self._maximum()
        self._powers()
        self._weighted()
        self._results()
        self._final()
        return self.build.block(scratch_bytes=self.loads.scratch_bytes, stages=self.loads.stages)

    def _load(self) -> None:
        """Load queries, keys and values a block of keys before their scores, in the order of their use."""
        w, p, t = self.w, self.p, self.t
        ahead = w.step - t.stack * t.panels
        at, pe = np.nonzero(w.works & (w.panel == 0)[:, None])
        self.build.add(
            Opcode.LOAD, ISSUE.at("queries", ahead[at]), pe=w.pe[at, pe], operand=0, dst=self._queries(at),
            row=w.row[at, pe], rows=w.rows[at, pe], cols=p.dim,
        )  # fmt: skip
        at = w.load
        common = {"pe": w.pe[at, 0], "cast": self.plan.cast}
        self.build.add(
            Opcode.LOAD, ISSUE.at("keys", ahead[at]), operand=1, dst=self.k_slot + self._panel(at),
            row=w.group[at] * p.dim, rows=p.dim, col=w.key[at], cols=w.keys[at], **common,
        )  # fmt: skip
        self.build.add(
            Opcode.LOAD, ISSUE.at("values", ahead[at]), operand=2, dst=self.v_slot + self._panel(at),
            row=w.group[at] * p.keys + w.key[at], rows=w.keys[at], cols=p.value_dim, **common,
        )  # fmt: skip

    def _queries(self, at: Array) -> Array:
        return self.q_slot + self.w.turn[at] % RINGS * self.t.stack + self.w.unit[at]

    def _panel(self, at: Array) -> Array:
        return self.w.odd[at] * self.t.panels + self.w.place[at]

    def _most(self, at: Array, odd: Array) -> Array:
        return self.most + odd * self.t.stack + self.w.unit[at]

    def _total(self, at: Array) -> Array:
        return self.total + self.w.turn[at] % LONG * self.t.stack + self.w.unit[at]

    def _multiply(self) -> None:
        """Multiply queries by keys."""
        w = self.w
        at, pe = np.nonzero(w.works)
        self.build.add(
            Opcode.MATMUL, ISSUE.at("scores", w.step[at]), pe=w.pe[at, pe], flags=FIRST | self.vector,
            rows=w.rows[at, pe], cols=w.keys[at], k=self.p.dim, dst=self._score(at),
            src0=self._queries(at), src1=self.k_slot + self._panel(at),
        )  # fmt: skip

    def _score(self, at: Array) -> Array:
        return self.score + self.w.ordinal[at] % self.plan.score_rings

    def _logit(self, at: Array) -> Array:
        return self.logit + self.w.ordinal[at] % self.plan.logit_rings

    def _logits(self, where: Array, tape: Tape, held: Registers, slots: list[int]) -> None:
        """Apply a tape to scores, where[step, PE], on the way from the accumulators to local memory."""
        w = self.w
        at, pe = np.nonzero(where)
        used = {s for step in tape.steps for s in step.sources if not isinstance(s, float) and s > 0}
        for source in sorted(used):
            self.loads.ask(int(source) - 1, at, pe)
        inputs = [self._score(at), *(s + w.step[at] % RINGS for s in self.loads.slots)]
        whole = _whole(tape)
        site = TapeSite(inputs, self.shapes, held, slots, dict.fromkeys(whole, self._logit(at)), whole)
        emit_steps(self.build, tape, site, ISSUE.at("logits", w.step[at]), self._tiles(at, pe, w.keys[at]))

    def _tiles(self, at: Array, pe: Array, cols: Any = 1) -> PeTiles:
        """Return tiles of the rows of units, at[n] and pe[n], so many columns wide."""
        return PeTiles(self.w.pe[at, pe], self.w.rows[at, pe], cols)

    def _simd(
        self, name: str, order: Array, tiles: PeTiles, dst: Any, *sources: Any, imm: float = 0.0
    ) -> None:
        """Add a SIMD function of tiles or columns [n], any further sources being columns (or the number)."""
        flags = sum(int(Shape.COL) << (2 * i) for i in range(1, len(sources)))
        slots = {f"src{i}": s for i, s in enumerate(sources)}
        self.build.add(
            Opcode.SIMD, order, pe=tiles.pe, fn=FUNCTION_NAMES.index(name), flags=flags, dst=dst,
            rows=tiles.rows, cols=tiles.cols, imm=imm, **slots,
        )  # fmt: skip

    def _fold(self, name: str, order: Array, at: Array, pe: Array, dst: Any) -> None:
        """Add a reduction of panels' scores or powers, [n]."""
        self.build.add(
            Opcode.FOLD, order, pe=self.w.pe[at, pe], fn=REDUCTION_NAMES.index(name), dst=dst,
            src0=self._logit(at), rows=self.w.rows[at, pe], cols=self.w.keys[at],
        )  # fmt: skip

    def _largest(self) -> None:
        """Find each block's largest score."""
        w, opens = self.w, (self.w.place == 0)[:, None]
        at, pe = np.nonzero(w.works & opens)
        self._fold("max", ISSUE.at("largest", w.step[at]), at, pe, self.block_most + w.block[at] % RINGS)
        at, pe = np.nonzero(w.works & ~opens)
        mine, partial = self.block_most + w.block[at] % RINGS, self.partial_most + w.step[at] % RINGS
        self._fold("max", ISSUE.at("largest", w.step[at]), at, pe, partial)
        self._simd("max", ISSUE.at("larger", w.step[at]), self._tiles(at, pe), mine, mine, partial)

    def _maximum(self) -> None:
        """Find the largest score so far after each block, and how much that scales what there is."""
        w, early = self.w, (self.w.panel < self.t.panels)[:, None]  # a unit's first block
        at, pe = np.nonzero(w.closes & early)
        here, now = self.block_most + w.block[at] % RINGS, self._most(at, w.odd[at])
        most = ISSUE.at("most", w.step[at])
        self._simd("max", most, self._tiles(at, pe), now, here, IMMEDIATE, imm=LOWEST)
        at, pe = np.nonzero(w.closes & ~early)
        column, here = self._tiles(at, pe), self.block_most + w.block[at] % RINGS
        before, now = self._most(at, 1 - w.odd[at]), self._most(at, w.odd[at])
        factor = self.factor + w.block[at] % LONG
        self._simd("max", ISSUE.at("most", w.step[at]), column, now, before, here)
        self._simd("sub", ISSUE.at("rise", w.step[at]), column, factor, before, now)
        self._simd("exp", ISSUE.at("factor", w.step[at]), column, factor, factor)
        if self.totals:  # kept, for a later block takes its slot before the total is known
            at, pe = np.nonzero(w.ends)
            level, now = self.level + w.block[at] % LONGEST, self._most(at, w.odd[at])
            self._simd("copy", ISSUE.at("most", w.step[at]), self._tiles(at, pe), level, now)

    def _powers(self) -> None:
        """Turn scores into powers, in place, and add them up."""
        w, begins = self.w, (self.w.panel == 0)[:, None]
        step = w.step + self.t.panels  # a block later
        at, pe = np.nonzero(w.works & (w.place == 0)[:, None] & ~begins)
        total, factor = self._total(at), self.factor + w.block[at] % LONG
        self._simd("mul", ISSUE.at("scaled", step[at]), self._tiles(at, pe), total, total, factor)
        at, pe = np.nonzero(w.works)
        logit, tile, most = self._logit(at), self._tiles(at, pe, w.keys[at]), self._most(at, w.odd[at])
        self._simd("sub", ISSUE.at("difference", step[at]), tile, logit, logit, most)
        self._simd("exp", ISSUE.at("power", step[at]), tile, logit, logit)
        at, pe = np.nonzero(w.works & begins)
        self._fold("sum", ISSUE.at("summed", step[at]), at, pe, self._total(at))
        at, pe = np.nonzero(w.works & ~begins)
        total, partial = self._total(at), self.partial_sum + w.step[at] % RINGS
        self._fold("sum", ISSUE.at("summed", step[at]), at, pe, partial)
        self._simd("add", ISSUE.at("totalled", step[at]), self._tiles(at, pe), total, total, partial)

    def _weighted(self) -> None:
        """Multiply powers by values."""
        w = self.w
        at, pe = np.nonzero(w.works)
        self.build.add(
            Opcode.MATMUL, ISSUE.at("weighted", w.step[at] + self.t.panels), pe=w.pe[at, pe],
            flags=np.where(w.place[at] == 0, FIRST, 0) | self.vector,
            rows=w.rows[at, pe], cols=self.p.value_dim, k=w.keys[at], dst=self.sums,
            src0=self._logit(at), src1=self.v_slot + self._panel(at),
        )  # fmt: skip

    def _results(self) -> None:
        """Scale each unit's results to the new maximum and add the block's."""
        w, t, cols = self.w, self.t, self.p.value_dim
        step, early = (w.block + 2) * t.panels, (w.panel < t.panels)[:, None]
        at, pe = np.nonzero(w.closes & early)
        result = self.result + w.unit[at]
        self._simd("copy", ISSUE.at("result", step[at]), self._tiles(at, pe, cols), result, self.sums)
        at, pe = np.nonzero(w.closes & ~early)
        tile, result, factor = (
            self._tiles(at, pe, cols), self.result + w.unit[at], self.factor + w.block[at] % LONG
        )  # fmt: skip
        self._simd("mul", ISSUE.at("result", step[at]), tile, result, result, factor)
        self.build.add(
            Opcode.SIMD, ISSUE.at("added", step[at]), pe=tile.pe, fn=FUNCTION_NAMES.index("add"), dst=result,
            src0=result, src1=self.sums, rows=tile.rows, cols=cols,
        )  # fmt: skip

    def _final(self) -> None:
        """Divide each unit's results by the sum of its powers, and store them."""
        w, t, cols = self.w, self.t, self.p.value_dim
        at, pe = np.nonzero(w.ends)
        step, ring, column = (w.block[at] + 2) * t.panels, w.block[at] % RINGS, self._tiles(at, pe)
        total, inverse, out = self._total(at), self.inverse + ring, self.out + ring
        if self.totals:
            self._logarithms(at, pe, step)
        if self.scores.guarded or self.p.parts > 1:
            self._simd("max", ISSUE.at("guarded", step), column, total, total, IMMEDIATE, imm=LEAST)
        self._simd("reciprocal", ISSUE.at("inverse", step), column, inverse, total)
        tile = self._tiles(at, pe, cols)
        self._simd("mul", ISSUE.at("quotient", step), tile, out, self.result + w.unit[at], inverse)
        self.build.add(
            Opcode.STORE, ISSUE.at("store", step), pe=tile.pe, operand=3, src0=out,
            row=w.out_row[at, pe], rows=tile.rows, cols=cols,
        )  # fmt: skip

    def _logarithms(self, at: Array, pe: Array, step: Array) -> None:
        """Store the logarithm of each row's sum of powers; a row with all its keys hidden has log(0).

        A guarded one has the least there is instead, so that rows hidden in all parts give 0 and not NaN.
        """
        w, column, order = self.w, self._tiles(at, pe), ISSUE.at("logarithm", step)
        into = self.logarithm + w.block[at] % RINGS
        least = LEAST if self.scores.guarded else 0.0
        self._simd("max", order, column, into, self._total(at), IMMEDIATE, imm=least)
        self._simd("log", order, column, into, into)
        self._simd("add", order, column, into, into, self.level + w.block[at] % LONGEST)
        self.build.add(
            Opcode.STORE, order, pe=column.pe, operand=4, src0=into, row=w.out_row[at, pe],
            rows=column.rows, cols=1,
        )  # fmt: skip


def _whole(tape: Tape) -> dict[int, Shape]:
    """Return which step gives a tape's result, which fills the tile whatever it is made of."""
    return {~int(tape.results[0]): Shape.FULL}
