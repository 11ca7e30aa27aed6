"""Attention as a kernel: see `emit_attention`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Block

from ..builder import NoRoom
from ..halves import Portion, cut_at, part
from ..kernel import Kernel, KernelCall, Memoise
from ..rows.tape import parse
from ..spelling import numbers, words_of
from .fused import emit_attention
from .operands import AttentionOperands, ScoreTape
from .plan import AttentionPlan, AttentionProblem, AttentionTiling
from .search import Tilings

T = TypeVar("T")
WORDS = {"lane": 1, "rows": 2, "keys": 2}


class AttentionKernel(Kernel):
    """softmax(tape(q k^T, extras)) v. Inputs are q, k, v and the extras; with parts of keys, two results.

    Parameters are `problem`, as the sizes are known before operands are placed, and the parts of a
    `ScoreTape`.
    """

    name = "attention"
    summary = "attention by tiles, scores in local memory alone"
    reads_views = writes_views = shares_launch = slow_search = True

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Put the result behind q, k and v: what follows is optional."""
        return [*inputs[:3], *outputs, *inputs[3:]]

    def problem(self, call: KernelCall) -> AttentionProblem:
        """Return the sizes, with the memory that keys lie in."""
        return replace(call.params["problem"], space=call.inputs[1].space)

    def candidates(
        self, problem: AttentionProblem, chip: Chip, count: int, memoise: Memoise
    ) -> list[AttentionTiling]:
        """Return tilings by their estimated time."""
        ranked = tilings(problem, chip, memoise).ranked(problem.space, chip, count)
        return [tiles for tiles, _ in ranked]

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> AttentionTiling:
        """Return the tiling that a text spells, checked by the plan that follows from it."""
        words = words_of(text, WORDS, "lane rows keys")
        (lane,), (rows, stack), (width, panels) = (numbers(words, name, "") for name in WORDS)
        if lane not in (1, chip.grid.cols):
            raise UserError(f"mapping {text!r}: lane={lane} is not right (right: 1, or {chip.grid.cols})")
        tiles, problem = AttentionTiling(lane, rows, width, panels, stack), self.problem(call)
        if rows > problem.heads * problem.queries or width > problem.keys:
            most = f"rows={problem.heads * problem.queries} and keys={problem.keys}"
            raise UserError(f"mapping {text!r}: it has more than there is (right: up to {most})")
        plan = AttentionPlan(problem, tiles, chip)
        if plan.score_rings < 1 or plan.local_bytes > chip.pe.local.bytes:
            raise NoRoom(
                f"mapping {text!r}: {plan.local_bytes} bytes and a tile of {rows}x{width} scores do not fit "
                f"a PE of {chip.pe.local.bytes} bytes and {chip.pe.reduce.bytes} of accumulators"
            )
        return tiles

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: AttentionTiling) -> Block:
        """Return the commands of the planned attention."""
        (q, k, v, *extras), (out, *total), p = call.inputs, call.outputs, call.params
        operands = AttentionOperands(q, k, v, out, tuple(extras), total[0] if total else None)
        scores = ScoreTape(parse(p["tape"]), p["mask"], p["guarded"])
        return emit_attention(AttentionPlan(self.problem(call), mapping, chip), operands, scores)

    def macs(self, params: Mapping[str, Any]) -> int:
        """Return one for each score."""
        p = params["problem"]
        return int(p.groups * p.heads * p.queries * p.keys)

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the batch, else the groups of heads."""
        problem, shape = call.params["problem"], call.inputs[0].shape
        dim = next((i for i in (0, 1) if shape[i] > 1), None)
        if dim is None:
            return []

        def cut(s: int, n: int) -> Portion | None:
            sides = ([part(x, dim, s, n) for x in side] for side in (call.inputs, call.outputs))
            return call.of(*sides, problem=replace(problem, groups=problem.groups * n // shape[dim]))

        return cut_at(-(-shape[dim] // 2), shape[dim], cut)


def tilings(problem: AttentionProblem, chip: Chip, memoise: Memoise) -> Tilings:
    """Return a problem's tilings, whatever memory its keys are in; raise `NoRoom` where none fits."""
    anywhere = replace(problem, space=Memory.SRAM)  # what is asked of the chip is the same in any memory
    return cast(Tilings, memoise("tilings", anywhere, chip, lambda c: Tilings(anywhere, c)))
