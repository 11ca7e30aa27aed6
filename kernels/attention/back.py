"""The way back of attention with scores in local memory alone: they are made again, tile by tile.

A PE holds units of rows of one side and streams panels of the other: units of queries meet panels of keys for
the gradient of the queries, units of keys meet panels of queries for those of keys and values. So each
result is summed by one PE, in the order of the panels, and no two PEs add to the same memory: the bits do not
depend on the grid. Method: Dao et al., FlashAttention, 2022 (arXiv 2205.14135); two walks as the TPU kernels
of JAX have it. Of each tile, with p = exp(tape(q k^T) - total): ds = p (do v^T - delta) tape'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtia_emu.program.isa import FIRST, FUNCTION_NAMES, IMMEDIATE, VECTOR, Block, Opcode, Operand, Shape
from mtia_emu.types import FP32

from ..builder import Builder
from ..matmul.plan import RINGS
from ..phases import Phases
from ..rows.emit_tape import PeTiles, TapeSite, allocate, elements, emit_steps, reserve
from ..rows.tape import Tape, finish
from .back_plan import BackPlan, BackWalk

Array = np.ndarray[Any, Any]
TWO = 2  # accumulators: one is filled while the other is read

# Rounds are steps: a panel's tile with one unit. Panels and units are loaded while those before are used.
ISSUE = Phases(scores=0, shares=0, tape=0, sums=1, out=1, store=1, vectors=0, still=0, stream=0)


@dataclass(frozen=True)
class BackSide:
    """What one walk takes: `still` [rows] is held, `turned` and `straight` are its panels, in both ways.

    The two products of a tile are of `still` and `turned`, one each; what the tape makes of them, the rows'
    two vectors and the extras is multiplied by `straight` and summed into `results`, one for each.
    """

    still: tuple[Operand, Operand]
    turned: tuple[Operand, Operand]
    straight: tuple[Operand, ...]
    vectors: tuple[Operand, Operand]
    extras: tuple[Operand, ...]
    results: tuple[Operand, ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Return all of them, in the order of the block."""
        columns = (replace(x, by_column=True) for x in (*self.turned, *self.straight))
        return (*self.still, *columns, *self.vectors, *self.extras, *self.results)


def turned(x: Operand) -> Operand:
    """Return an operand with its last two dimensions exchanged."""
    (*lead, a, b), (*steps, s, t) = x.shape, x.strides
    return replace(x, shape=(*lead, b, a), strides=(*steps, t, s))


@dataclass(frozen=True)
class BackTapes:
    """What is done to a tile: `plain` where the mask hides nothing; results are `factors` of the sums."""

    masked: Tape
    plain: Tape
    factors: tuple[float, ...]


def emit_back(plan: BackPlan, side: BackSide, tapes: BackTapes) -> Block:
    """Return the block of one walk."""
    return _Emitter(plan, side, tapes).block()


class _Emitter:
    """The commands of all tiles."""

    def __init__(self, plan: BackPlan, side: BackSide, tapes: BackTapes) -> None:
        self.plan, self.side, self.t, self.tapes = plan, side, plan.tiles, tapes
        self.kind = side.still[0].dtype
        self.build = Builder(plan.chip, "attention_back", side.operands, str(self.t))
        self.vector = 0 if plan.chip.pe.matrix.supports(self.kind.name) else VECTOR
        self.s = BackWalk(plan)
        self.pieces = [
            (index, at, min(self.t.chunk, x.cols - at))
            for index, x in enumerate(side.results)
            for at in range(0, x.cols, self.t.chunk)
        ]
        self.build.limit(len(self.s.pe))
        self.before = len(side.still) + len(side.turned) + len(side.straight)
        self.first = len(side.operands) - len(side.results)
        self._reserve()

    def _reserve(self) -> None:
        t, slot, side = self.t, self.build.slot, self.side
        self.accumulator = slot(FP32, t.rows * max(t.width, t.chunk), TWO, accumulator=True)
        self.still = [slot(self.kind, t.rows * x.cols, RINGS * t.stack) for x in side.still]
        self.turned = [slot(self.kind, x.shape[-2] * t.width, RINGS) for x in side.turned]
        self.straight = [slot(self.kind, t.width * cols, RINGS) for _, _, cols in self.pieces]
        self.shapes = [_meets(x) for x in (*side.vectors, *side.extras)]
        kinds = [x.dtype for x in (*side.vectors, *side.extras)]
        self.vectors = [
            slot(kind, elements(shape, t.rows, t.width), RINGS * t.stack)
            for kind, shape in zip(kinds, self.shapes, strict=True)
        ]
        self.made = [slot(self.kind, t.rows * t.width, RINGS) for _ in side.results]
        self.total = [slot(FP32, t.rows * cols, t.stack) for _, _, cols in self.pieces]
        self.out = [slot(side.results[i].dtype, t.rows * cols, RINGS) for i, _, cols in self.pieces]

    def block(self) -> Block:
        """Emit everything and return the block."""
        self._load()
        self._products()
        bare, tape, plain = self.s.plain, self.tapes.masked, self.tapes.plain
        for where, each in ((~bare, tape), (bare, plain)) if tape != plain else [(bare | ~bare, tape)]:
            if where.any():
                self._tape(np.flatnonzero(where), each)
        self._sums()
        self._store()
        return self.build.block()

    def _load(self) -> None:
        """Load what is held for a bundle of units, and each panel a panel's steps ahead."""
        s = self.s
        at = np.flatnonzero(s.begins)
        for index, x in enumerate(self.side.still):
            self.build.add(
                Opcode.LOAD, ISSUE.at("still", s.bundle_ahead[at]), pe=s.pe[at], operand=index,
                dst=self.still[index] + s.held[at], row=s.row[at], rows=s.rows[at], cols=x.cols,
            )  # fmt: skip
        at = np.flatnonzero(s.streams)
        ring, behind = s.panel[at] % RINGS, len(self.still) + len(self.turned)
        common = {"order": ISSUE.at("stream", s.panel_ahead[at]), "pe": s.pe[at]}
        for index, x in enumerate(self.side.turned):
            long = x.shape[-2]
            self.build.add(
                Opcode.LOAD, operand=len(self.still) + index, dst=self.turned[index] + ring, **common,
                row=s.lead[at] * long, rows=long, col=s.col[at], cols=s.cols[at],
            )  # fmt: skip
        for place, (index, start, cols) in enumerate(self.pieces):
            self.build.add(
                Opcode.LOAD, operand=behind + index, dst=self.straight[place] + ring, **common,
                row=s.lead[at] * self.side.straight[index].shape[-2] + s.col[at], rows=s.cols[at],
                col=start, cols=cols,
            )  # fmt: skip

    def _vectors(self, index: int, at: Array) -> None:
        """Load an extra's part that tiles at[n] meet."""
        s, shape = self.s, self.shapes[index]
        down, across = shape in (Shape.FULL, Shape.COL), shape in (Shape.FULL, Shape.ROW)
        operand = (*self.side.vectors, *self.side.extras)[index]
        long = operand.shape[-2]
        row = s.pair[at] * long + np.where(long > 1, s.unit_row[at], 0)
        self.build.add(
            Opcode.LOAD, ISSUE.at("vectors", s.step[at] - self.t.stack), pe=s.pe[at],
            operand=self.before + index, dst=self.vectors[index] + s.step[at] % (RINGS * self.t.stack),
            row=row, rows=s.rows[at] if down else 1,
            col=s.col[at] if across else 0, cols=s.cols[at] if across else 1,
        )  # fmt: skip

    def _products(self) -> None:
        """Make the scores and the shares' gradients of each tile."""
        s = self.s
        for index, phase in enumerate(("scores", "shares")):
            self.build.add(
                Opcode.MATMUL, ISSUE.at(phase, s.step), pe=s.pe, flags=FIRST | self.vector, rows=s.rows,
                cols=s.cols, k=self.side.still[index].cols, dst=self.accumulator + index,
                src0=self.still[index] + s.held, src1=self.turned[index] + s.panel % RINGS,
            )  # fmt: skip

    def _tape(self, at: Array, tape: Tape) -> None:
        """Apply a tape to tiles at[n]: scores, shares' gradients, the two vectors, extras."""
        s, t = self.s, self.t
        done = finish(tape, [self.kind] * len(self.made))
        shapes = [Shape.FULL, Shape.FULL, *self.shapes]
        whole = {~int(x): Shape.FULL for x in done.results if not isinstance(x, float)}
        held = allocate(done, shapes, whole)
        slots = reserve(self.build, held, t.rows, t.width)
        used = {x for step in done.steps for x in step.sources if not isinstance(x, float) and x > 1}
        for source in sorted(used):
            self._vectors(int(source) - 2, at)
        ring = s.step[at] % (RINGS * t.stack)
        products = (self.accumulator, self.accumulator + 1)
        inputs: list[Array | int] = [*products, *(x + ring for x in self.vectors)]
        into = {
            ~int(x): self.made[i] + s.step[at] % RINGS
            for i, x in enumerate(done.results)
            if not isinstance(x, float)
        }
        site = TapeSite(inputs, shapes, held, slots, into, whole)
        emit_steps(
            self.build, done, site, ISSUE.at("tape", s.step[at]), PeTiles(s.pe[at], s.rows[at], s.cols[at])
        )

    def _sums(self) -> None:
        """Multiply what the tape made by the panel and add it to the unit's results, a piece at a time."""
        s = self.s
        for place, (index, _, cols) in enumerate(self.pieces):
            into, source = self.total[place] + s.unit, self.accumulator + place % TWO
            self.build.add(
                Opcode.MATMUL, ISSUE.at("sums", s.step) + place / 64, pe=s.pe, flags=FIRST | self.vector,
                rows=s.rows, cols=cols, k=s.cols, dst=source,
                src0=self.made[index] + s.step % RINGS, src1=self.straight[place] + s.panel % RINGS,
            )  # fmt: skip
            # before the accumulator takes its next product
            order = ISSUE.at("sums", s.step) + place / 64 + 1 / 128
            self._simd("copy", order, s.begins, cols, into, source)
            self._simd("add", order, ~s.begins, cols, into, into, source)

    def _simd(
        self, name: str, order: Array, at: Array, cols: int, dst: Array, *sources: Any, imm: float = 0.0
    ) -> None:
        """Add a SIMD function of the tiles at[n]: a mask or places."""
        every = {f"src{i}": np.broadcast_to(x, dst.shape)[at] for i, x in enumerate(sources)}
        self.build.add(
            Opcode.SIMD, order[at], pe=self.s.pe[at], fn=FUNCTION_NAMES.index(name), dst=dst[at],
            rows=self.s.rows[at], cols=cols, imm=imm, **every,
        )  # fmt: skip

    def _store(self) -> None:
        """Store each unit's results behind its last panel."""
        s, at = self.s, np.flatnonzero(self.s.ends)
        for place, (index, start, cols) in enumerate(self.pieces):
            out = self.out[place] + s.step % RINGS
            sources = (self.total[place] + s.unit, np.full(len(out), IMMEDIATE))
            factor = self.tapes.factors[index]
            self._simd("mul", ISSUE.at("out", s.step), at, cols, out, *sources, imm=factor)
            self.build.add(
                Opcode.STORE, ISSUE.at("store", s.step[at]), pe=s.pe[at], operand=self.first + index,
                src0=out[at], row=s.row[at], rows=s.rows[at], col=start, cols=cols,
            )  # fmt: skip


def _meets(extra: Operand) -> Shape:
    """Return how an operand meets a tile."""
    down, across = (extra.strides[i] != 0 and extra.shape[i] > 1 for i in (-2, -1))
    shapes = {(True, True): Shape.FULL, (False, True): Shape.ROW, (True, False): Shape.COL}
    return shapes.get((down, across), Shape.ONE)


def sides(inputs: Sequence[Operand], results: Sequence[Operand]) -> BackSide:
    """Return the walk that makes results of q, k, v, the result's gradient, two vectors and extras.

    One result is the gradient of q, two those of k and v. q and the gradient are [.., heads, queries, ..],
    k and v [.., keys, ..], vectors [.., heads, queries, 1], extras [.., heads, queries, keys].
    """
    q, k, v, do, total, delta = inputs[:6]
    rest = tuple(inputs[6:])
    if len(results) == 1:
        return BackSide((q, do), (turned(k), turned(v)), (k,), (total, delta), rest, tuple(results))
    rows = (turned(total), turned(delta))
    dk, dv = results
    return BackSide((k, v), (turned(q), turned(do)), (do, q), rows, tuple(map(turned, rest)), (dv, dk))
