"""Products of rows with the experts that they are routed to: weights of other experts are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand

from ..bags.gather import ISSUE
from ..builder import ceil_div
from ..estimates import RINGS
from ..halves import Portion, in_two, part
from ..kernel import Kernel, KernelCall, Memoise
from ..rows.tape import Tape, finish
from ..turns import Turns, TurnsBuilder
from .dense import MatmulEmitter
from .kernel import mapping_of
from .plan import MatmulMapping, MatmulPlan, MatmulProblem
from .search import demand_of, ranked_matmul

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class ExpertProblem:
    """A product of turns, with as many of them as `loads` need, and the turns that there may be."""

    product: MatmulProblem
    turns: Turns
    loads: tuple[int, ...]


class ExpertMatmulKernel(Kernel):
    """out[turn] = a[turn] x b[expert of the turn]: see `emit_expert_matmul`.

    Inputs are a [turns, rows, k], b [experts, k, n] and the table int32[turns, 2]. Parameters: `rows` of a
    turn, `routed` rows in all, `loads`, the rows of each expert by which mappings are chosen and times told.
    """

    name = "expert_matmul"
    summary = "products of rows with the experts that they are routed to"
    reads_views = True
    weight = 1

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Put the result behind a and b; the table stands last."""
        return [*inputs[:2], *outputs, *inputs[2:]]

    def macs(self, params: Mapping[str, Any]) -> int:
        """Return those of all rows that go to these experts."""
        return int(sum(params["loads"]) * params["k"] * params["n"])

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return all but the weights, of which some experts are read."""
        return [inputs[0], *inputs[2:]]

    def problem(self, call: KernelCall) -> ExpertProblem:
        """Return the sizes, with a batch for each turn that the loads need, as long as the longest."""
        (a, b, *_), (out,), p = call.inputs, call.outputs, call.params
        turns = Turns(b.shape[0], p["routed"], p["rows"])
        needed = max(1, sum(ceil_div(x, turns.rows) for x in p["loads"]))
        product = MatmulProblem(
            needed,
            min(turns.rows, max(1, *p["loads"])),
            p["k"],
            p["n"],
            a.dtype,
            b.dtype,
            out.dtype,
            a.space,
            b.space,
            out_space=out.space,
            b_tiled=b.tiled,
            turns=True,
        )
        return ExpertProblem(product, turns, tuple(p["loads"]))

    def candidates(
        self, problem: ExpertProblem, chip: Chip, count: int, memoise: Memoise
    ) -> list[MatmulMapping]:
        """Return mappings by their estimated time for the turns that the loads need."""
        product = problem.product
        demand = memoise("demand", product, chip, lambda c: demand_of(product, c))
        return [mapping for mapping, _ in ranked_matmul(product, chip, count, demand)]

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> MatmulMapping:
        """Return the mapping that a text spells; raise `UserError` for what turns cannot have."""
        mapping = mapping_of(text)
        over = mapping.over_rows + mapping.over_cols
        if mapping.stage or mapping.slabs or "b" in over:
            raise UserError(
                f"mapping {text!r}: turns of experts are neither staged nor spread over the grid (right: m, "
                "n and k over rows and cols, no staged, no slabs)"
            )
        return mapping

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: MatmulMapping) -> Block:
        """Return the commands of all turns there may be, and those for the loads."""
        problem = self.problem(call)
        room = replace(problem.product, batch=problem.turns.count, m=problem.turns.rows)
        plan = MatmulPlan(room, mapping, chip)
        a, b, table = call.inputs
        return emit_expert_matmul(plan, problem, (a, b, call.outputs[0], table))

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the columns of the weights and of the result."""
        n, (a, b, table), (out,) = call.params["n"], call.inputs, call.outputs
        if n < 2:
            return []
        return in_two(
            n, lambda s, size: call.of([a, part(b, -1, s, size), table], [part(out, -1, s, size)], n=size)
        )


def emit_expert_matmul(
    plan: MatmulPlan, problem: ExpertProblem, operands: tuple[Operand, Operand, Operand, Operand]
) -> Block:
    """Return the block of a planned product of turns, for the problem's loads.

    Operands are a [turns, rows, k], b [experts, k, n], out [turns, rows, n] and the table, which the block
    follows: a turn's rows meet the weights of its expert; rows that it does not have are not computed.
    """
    return TurnsEmitter(plan, *operands).following(problem)


class TurnsEmitter(MatmulEmitter):
    """The step grid of a product whose batches are turns; the table stands where extras would."""

    kernel = "expert_matmul"

    def __init__(self, plan: MatmulPlan, a: Operand, b: Operand, out: Operand, table: Operand) -> None:
        self.table = table
        super().__init__(plan, a, b, out, finish(Tape(1, (), (0,)), [out.dtype]), ())

    def _builder(self, operands: tuple[Operand, ...]) -> TurnsBuilder:
        self.turns = TurnsBuilder(self.plan.chip, self.kernel, (*operands, self.table), str(self.t))
        return self.turns

    def _tile_of(self, dim: str, part: Array, nth: Array) -> Array:
        """Deal tiles of rows in turn: a turn has its rows at its beginning, so that all parts have some."""
        if dim == "m":
            return part + nth * self.plan.parts[dim]
        return super()._tile_of(dim, part, nth)

    def _about(self, step: Array, pe: Array, rows_of: str = "a") -> None:
        at = (step, pe)
        self.turns.about(self.tile["b"][at], self.m0[at], whole=rows_of == "b")

    def _tile(self, operand: str, step: Array, pe: Array) -> dict[str, Any]:
        """Return tiles as a product does; those of b lie in the first expert: the table says in which."""
        tile = super()._tile(operand, step, pe)
        return tile | ({"row": self.k0[step, pe]} if operand == "b" else {})

    def strides(self) -> tuple[tuple[int, int], ...]:
        """Return the operands that have something of every expert, and its rows in each."""
        return ((1, self.p.k),)

    def following(self, problem: ExpertProblem) -> Block:
        """Emit everything and return the block, for a problem's loads."""
        self.emit()
        return self.turns.following(problem.turns, self.strides(), problem.loads)


class RowsToTurnsKernel(Kernel):
    """out[turn] = rows of x by index: those that a turn has, see `emit_rows_to_turns`.

    Inputs are x [n, k], the numbers int32[1, turns * rows] of the rows of each turn and the table of turns.
    Parameters are those of `ExpertMatmulKernel`.
    """

    name = "rows_to_turns"
    summary = "rows, expert by expert"

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return the numbers and the table."""
        return inputs[1:]

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands for the loads."""
        turns = Turns(len(attrs["loads"]), attrs["routed"], attrs["rows"])
        return emit_rows_to_turns(chip, turns, (*inputs[:2], outputs[0], inputs[2]), attrs["loads"])

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Put the result before the table."""
        return [*inputs[:2], *outputs, *inputs[2:]]


def emit_rows_to_turns(
    chip: Chip, turns: Turns, operands: tuple[Operand, ...], loads: Sequence[int]
) -> Block:
    """Return the block that gathers the rows of each turn.

    Operands are x [n, k], numbers [1, turns * rows], out [turns * rows, k] and the table.
    """
    x = operands[0]
    build = TurnsBuilder(chip, "rows_to_turns", operands)
    room = chip.pe.local.bytes // 2 // RINGS // x.dtype.bytes
    cols = min(x.cols, room)
    rows = max(1, min(turns.rows, room // cols, ceil_div(turns.routed, chip.pes)))
    slot = build.slot(x.dtype, rows * cols, RINGS)
    pieces, across = ceil_div(turns.rows, rows), ceil_div(x.cols, cols)
    t = build.steps(turns.count * pieces * across)
    turn, first = t // across % turns.count, t // across // turns.count * rows  # first pieces first
    col, pe, j = t % across * cols, chip.grid.near(t), t // chip.pes
    tile = {
        "pe": pe,
        "rows": np.minimum(rows, turns.rows - first),
        "col": col,
        "cols": np.minimum(cols, x.cols - col),
    }
    at, ring = turn * turns.rows + first, slot + j % RINGS
    build.about(turn, first)
    named = {"operand": 0, "operand2": 1, "row": 0, "row2": at, "k": x.rows, "dst": ring}
    build.add(Opcode.GATHER, ISSUE.at("gather", j), **named, **tile)
    build.add(Opcode.STORE, ISSUE.at("store", j), operand=2, src0=ring, row=at, **tile)
    return build.following(turns, (), loads)
