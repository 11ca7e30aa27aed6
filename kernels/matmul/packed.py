"""Products with weights of few bits: codes and scales are loaded, SIMD expands them, the array multiplies.

Weights come as codes [plane_rows, n], one or two to an element: of two, the low halves are the first rows of
the matrix, the high halves the rest. A step of the grid loads one panel of codes and multiplies a panel for
each plane; every panel lies within one block of rows, whose scales are one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtia_emu.program.isa import FIRST, FUNCTION_NAMES, VECTOR, Block, Opcode, Operand, Shape

from ..rows.emit_tape import PeTiles
from ..rows.tape import Tape, finish
from .dense import ISSUE, MatmulEmitter
from .packing import Weights
from .plan import RINGS, MatmulPlan

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix of few bits in memory: codes [plane_rows, n], scales [blocks, n], zeros [plane_blocks, n]."""

    form: Weights
    codes: Operand
    scales: Operand
    zeros: Operand | None = None


def emit_matmul_packed(
    plan: MatmulPlan,
    a: Operand,
    weights: PackedMatrix,
    out: Operand,
    epilogue: Tape | None = None,
    extras: Sequence[Operand] = (),
) -> Block:
    """Return the block of a planned product a[m, k] x weights[k, n]; the plan's k is that of one plane.

    The block's operands are a, codes, out, the extras, scales and zero points; epilogue and extras as in
    `emit_matmul`.
    """
    tape = finish(epilogue or Tape(1, (), (0,)), [out.dtype])
    emitter = PackedEmitter(plan, a, weights.codes, out, tape, tuple(extras))
    emitter.unpack(weights)
    return emitter.block()


class PackedEmitter(MatmulEmitter):
    """The step grid of a product, each step with a panel for each plane of its codes."""

    kernel = "matmul_packed"

    def unpack(self, weights: PackedMatrix) -> None:
        """Add the operands and slots of what expands codes."""
        self.w, p, t, zeros = weights.form, self.p, self.t, weights.zeros
        self.scales = len(self.build.operands)
        self.build.operands += (weights.scales, *([zeros] if zeros is not None else []))
        more = self.w.planes - 1
        self.a_panels = [self.panels["a"], *(self._panels("a", p.a, t.tm * t.kp) for _ in range(more))]
        self.scale_slots = [self._panels("b", weights.scales.dtype, t.tn) for _ in range(self.w.planes)]
        self.zero_slots = self._panels("b", zeros.dtype, t.tn) if zeros is not None else None
        self.points = self.build.slot(p.a, t.tn, RINGS)
        self.work = self.build.slot(p.a, t.tn * t.kp, self.w.passes - 1)
        self.wide = self.build.slot(p.a, t.tn * t.kp, RINGS)
        self.first = {"k0": self.k0, "k": self.k, "valid": self.valid}

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
        """Emit the loads of the row of scales or zero points of each panel of codes, to slots[step]."""
        self._at(plane)
        cast = self.plan.cast("b")
        leaders, work = self._groups(cast, self.valid)
        fresh = ~self._holds("b") | (self.inner[:, 0] == 0)
        step, group = np.nonzero(work & fresh[:, None])
        at = (step, leaders[group])
        self._about(*at, "b")
        self.build.add(
            Opcode.LOAD,
            self._when("b", step) + 1 / 2,  # behind the panels of its step
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
            # a plane is expanded, then multiplied: the array works while SIMD expands the next one
            order = ISSUE.at("product", step) + plane / self.w.planes
            wide = self._expand(plane, step, pe, order)
            fresh = FIRST if plane == 0 else 0
            self._about(step, pe)
            self.build.add(
                Opcode.MATMUL,
                order + 1 / 4,
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
        """Emit the SIMD commands that expand panels of codes; return the slots of the result, [n]."""
        self._about(step, pe, "b")
        panels = PeTiles(pe, self.k[step, pe], self.n[step, pe])
        turn = (step * self.w.planes + plane) % RINGS
        name = "copy" if self.w.planes == 1 else ("bit_low4", "bit_high4")[plane]
        self._simd(name, order, panels, self.work, self.panels["b"][step])
        value = self.work
        if self.zero_slots is not None:
            self._simd(name, order, replace(panels, rows=1), self.points + turn, self.zero_slots[step])
            value = self.work + 1
            self._simd("sub", order, panels, value, self.work, self.points + turn)
        self._simd("mul", order, panels, self.wide + turn, value, self.scale_slots[plane][step])
        return np.asarray(self.wide + turn)

    def _simd(self, name: str, order: Array, panels: PeTiles, dst: Any, *sources: Any) -> None:
        """Emit one function over panels [n]; its second operand is one row."""
        self.build.add(
            Opcode.SIMD,
            order,
            pe=panels.pe,
            fn=FUNCTION_NAMES.index(name),
            rows=panels.rows,
            cols=panels.cols,
            dst=dst,
            flags=int(Shape.ROW << 2) if len(sources) > 1 else 0,
            **{f"src{i}": slot for i, slot in enumerate(sources)},
        )
