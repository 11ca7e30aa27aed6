"""Loads of what a tape of scores reads besides them, once from DRAM where heads share it: masks, biases."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Opcode, Operand, Shape

from ..builder import LINE, Builder, round_up
from ..matmul.plan import RINGS
from ..matmul.space import STAGE_SHARE
from ..phases import Phases
from ..rows.emit_tape import elements
from .walk import Walk

Array = np.ndarray[Any, Any]


class ExtraLoads:
    """The extras of a walk: their slots, and the tiles that are asked for, which `emit` loads.

    Tiles in DRAM that several heads read are copied to SRAM once, if a share of it holds them all.
    """

    def __init__(self, build: Builder, walk: Walk, extras: tuple[Operand, ...]) -> None:
        self.build, self.w, self.extras, t = build, walk, extras, walk.plan.tiles
        self.first = len(build.operands) - len(extras)
        self.shapes = [_meets(x) for x in extras]
        self.slots = [
            build.slot(x.dtype, elements(s, t.rows, t.width), RINGS)
            for x, s in zip(extras, self.shapes, strict=True)
        ]
        self.asked: list[list[tuple[Array, Array]]] = [[] for _ in extras]
        self.stages = self.scratch_bytes = 0

    def ask(self, index: int, at: Array, pe: Array) -> None:
        """Have an extra's tiles loaded in steps at[n] for PEs of the lane, pe[n]."""
        self.asked[index].append((at, pe))

    def emit(self, issue: Phases) -> None:
        """Emit all loads that were asked for, and what is staged for them."""
        for index in np.flatnonzero([bool(x) for x in self.asked]).tolist():
            at, pe = (np.concatenate(x) for x in zip(*self.asked[index], strict=True))
            w, shape = self.w, self.shapes[index]
            down, across = shape in (Shape.FULL, Shape.COL), shape in (Shape.FULL, Shape.ROW)
            fields: dict[str, Any] = {
                "operand": self.first + index, "row": w.row[at, pe], "rows": w.rows[at, pe] if down else 1,
                "col": w.key[at] if across else 0, "cols": w.keys[at] if across else 1,
            }  # fmt: skip
            order = issue.at("extras", w.step[at])
            fields = self._staged(index, fields, order) or fields
            dst = self.slots[index] + w.step[at] % RINGS
            self.build.add(Opcode.LOAD, order, pe=w.pe[at, pe], dst=dst, **fields)

    def _staged(self, index: int, fields: dict[str, Any], order: Array) -> dict[str, Any] | None:
        """Emit copies of an extra's tiles to SRAM, each once; return the fields of the loads from there.

        None where they are near already, where no two are the same, or where SRAM has no room for them.
        """
        extra, plan = self.extras[index], self.w.plan
        t, p = plan.tiles, plan.problem
        if self.shapes[index] is not Shape.FULL or not extra.space.off_chip or p.queries < t.rows:
            return None
        row, col = fields["row"], fields["col"]
        begin = np.tensordot(extra.strides[:-1], np.unravel_index(row, extra.shape[:-1]), 1)
        by_time = np.argsort(order, kind="stable")
        _, first, tile = np.unique(
            (begin + col * extra.strides[-1])[by_time], return_index=True, return_inverse=True
        )
        size = t.rows * t.width * extra.dtype.bytes
        before = -(-self.scratch_bytes // size)
        end = (before + len(first)) * size
        if 2 * len(first) > len(row) or end > plan.chip.sram.bytes // STAGE_SHARE:
            return None
        once, place = by_time[first], np.empty_like(tile)
        place[by_time] = tile
        shape, scratch = (before + len(first), t.rows, t.width), len(self.build.operands)
        strides = (t.rows * t.width, t.width, 1)
        self.build.operands += (Operand(extra.dtype, shape, strides, Memory.SCRATCH, True),)
        source = {name: np.broadcast_to(x, row.shape)[once] for name, x in fields.items()}
        at, stage = (before + place) * t.rows, self.stages + place
        self.build.add(
            Opcode.STAGE, order[once] - 1, operand2=scratch, row2=at[once], stage=stage[once], **source
        )
        self.stages, self.scratch_bytes = self.stages + len(first), round_up(end, LINE)
        return fields | {"operand": scratch, "row": at, "col": 0, "stage": stage}


def _meets(extra: Operand) -> Shape:
    """Return how an extra meets a tile of scores of one group."""
    rows = any(s and n > 1 for s, n in zip(extra.strides[-3:-1], extra.shape[-3:-1], strict=True))
    cols = extra.strides[-1] != 0 and extra.cols > 1
    shapes = {(True, True): Shape.FULL, (False, True): Shape.ROW, (True, False): Shape.COL}
    return shapes.get((rows, cols), Shape.ONE)
