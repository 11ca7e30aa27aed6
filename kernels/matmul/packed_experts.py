"""Products of rows with the experts that they are routed to, whose weights are of few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Operand

from ..halves import Portion, in_two, part
from ..kernel import KernelCall, Memoise
from .experts import ExpertMatmulKernel, ExpertProblem, TurnsEmitter
from .packed import PackedEmitter, PackedMatrix
from .packed_search import ranked_packed
from .packing import Weights, packing_of
from .plan import MatmulMapping, MatmulPlan


@dataclass(frozen=True)
class PackedExpertProblem(ExpertProblem):
    """A product of turns whose k is that of one plane, and how an expert's weights lie."""

    weights: Weights


class PackedExpertMatmulKernel(ExpertMatmulKernel):
    """out[turn] = a[turn] x the weights of the turn's expert: see `emit_packed_experts`.

    Inputs are a [turns, rows, k], codes [experts, plane_rows, n], the table int32[turns, 2], scales
    [experts, blocks, n], and zero points where `zeros`. Parameters are those of `ExpertMatmulKernel`, `block`
    and `zeros`.
    """

    name = "expert_matmul_packed"
    summary = "products of rows with the experts that they are routed to, with weights of few bits"

    def streamed(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Return all but the weights, of which some experts are read."""
        return [inputs[0], inputs[2]]

    def problem(self, call: KernelCall) -> PackedExpertProblem:
        """Return the sizes, with a batch for each turn that the loads need, and how the weights lie."""
        plain, matrix = super().problem(call), _matrix(call)
        product = replace(plain.product, k=matrix.form.plane_rows)
        return PackedExpertProblem(product, plain.turns, plain.loads, matrix.form)

    def candidates(
        self, problem: ExpertProblem, chip: Chip, count: int, memoise: Memoise
    ) -> list[MatmulMapping]:
        """Return mappings by their estimated time for the turns that the loads need."""
        assert isinstance(problem, PackedExpertProblem)
        return [mapping for mapping, _ in ranked_packed(problem.product, problem.weights, chip, count)]

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> MatmulMapping:
        """Return the mapping that a text spells; raise `UserError` for what turns or codes cannot have."""
        mapping, form = super().fixed(text, call, chip), _matrix(call).form
        form.check_panel(text, mapping.kp)
        return mapping

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: MatmulMapping) -> Block:
        """Return the commands of all turns there may be, and those for the loads."""
        problem = self.problem(call)
        room = replace(problem.product, batch=problem.turns.count, m=problem.turns.rows)
        a, _, table, *_ = call.inputs
        return emit_packed_experts(
            MatmulPlan(room, mapping, chip), problem, (a, call.outputs[0], table), _matrix(call)
        )

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the columns of the weights and of the result."""
        n, (a, codes, table, *more), (out,) = call.params["n"], call.inputs, call.outputs
        if n < 2:
            return []

        def cut(s: int, size: int) -> Portion | None:
            weights = (part(x, -1, s, size) for x in (codes, *more))
            first, *rest = weights
            return call.of([a, first, table, *rest], [part(out, -1, s, size)], n=size)

        return in_two(n, cut)


def _matrix(call: KernelCall) -> PackedMatrix:
    """Return the weights of all experts, as one matrix of an expert under that of another."""
    (_, codes, _, scales, *zeros), p = call.inputs, call.params
    form = packing_of(p["k"], p["block"], codes.dtype)
    weights = Weights(form.k, form.block, form.planes, bool(zeros), scales.dtype)
    return PackedMatrix(weights, codes, scales, zeros[0] if zeros else None)


def emit_packed_experts(
    plan: MatmulPlan,
    problem: ExpertProblem,
    operands: tuple[Operand, Operand, Operand],
    weights: PackedMatrix,
) -> Block:
    """Return the block of a planned product of turns with weights of few bits, for the problem's loads.

    Operands are a [turns, rows, k], out [turns, rows, n] and the table, which the block follows as that of
    `emit_expert_matmul` does. The block's own are a, codes, out, the table, scales and zero points.
    """
    a, out, table = operands
    emitter = _Emitter(plan, a, weights.codes, out, table)
    emitter.unpack(weights)
    return emitter.following(problem)


class _Emitter(PackedEmitter, TurnsEmitter):
    """The step grid of a product whose batches are turns, each step with a panel for each plane of codes."""

    kernel = "expert_matmul_packed"

    def __init__(self, plan: MatmulPlan, a: Operand, codes: Operand, out: Operand, table: Operand) -> None:
        TurnsEmitter.__init__(self, plan, a, codes, out, table)

    def strides(self) -> tuple[tuple[int, int], ...]:
        """Return codes, scales and zero points, and the rows that an expert has of each."""
        zeros = ((self.scales + 1, self.w.plane_blocks),) if self.zero_slots is not None else ()
        return (*super().strides(), (self.scales, self.w.blocks), *zeros)
