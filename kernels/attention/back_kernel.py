"""The way back of attention as a kernel: see `back`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block

from ..builder import NoRoom
from ..halves import Portion, cut_at, part
from ..kernel import Kernel, KernelCall, Memoise
from ..rows.tape import parse
from .back import BackTapes, emit_back, sides
from .back_plan import BackPlan, BackProblem, BackTiling, tilings

T = TypeVar("T")


class AttentionBackKernel(Kernel):
    """The gradient of q, or those of k and v, of q, k, v, the result's gradient, totals, deltas and extras.

    Parameters are `problem`, and of what is done to tiles `tape`, `plain` and `factors`.
    """

    name = "attention_back"
    summary = "the way back of attention by tiles, scores in local memory alone"
    reads_views = writes_views = True

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Return what is held, the panels in both ways, vectors and extras, and the results."""
        q, k, v, do, *rest = inputs
        if len(outputs) == 1:
            return [q, do, k, v, k, *rest, *outputs]
        return [k, v, q, do, do, q, *rest, *reversed(outputs)]

    def problem(self, call: KernelCall) -> BackProblem:
        """Return the sizes."""
        problem: BackProblem = call.params["problem"]
        return problem

    def candidates(
        self, problem: BackProblem, chip: Chip, count: int, memoise: Memoise
    ) -> Sequence[BackTiling]:
        """Return tilings that fit, the largest tiles and bundles first."""
        found = tilings(problem, chip)
        if not found:
            raise NoRoom(
                f"attention_back: no tile of {problem.dim} + {problem.value_dim} columns of {problem.kind} "
                f"fits {chip.pe.local.bytes} bytes of local memory"
            )
        return found[:count]

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: BackTiling) -> Block:
        """Return the commands of one walk."""
        p = call.params
        tapes = BackTapes(parse(p["tape"]), parse(p["plain"]), p["factors"])
        return emit_back(BackPlan(self.problem(call), mapping, chip), sides(call.inputs, call.outputs), tapes)

    def macs(self, params: Mapping[str, Any]) -> int:
        """Return one for each score."""
        p: BackProblem = params["problem"]
        return p.groups * p.heads * p.queries * p.keys

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the batch, else the groups of heads."""
        problem, shape = call.params["problem"], call.inputs[0].shape
        dim = next((i for i in (0, 1) if shape[i] > 1), None)
        if dim is None:
            return []

        def cut(s: int, n: int) -> Portion | None:
            both = ([part(x, dim, s, n) for x in side] for side in (call.inputs, call.outputs))
            return call.of(*both, problem=replace(problem, groups=problem.groups * n // shape[dim]))

        return cut_at(-(-shape[dim] // 2), shape[dim], cut)
