"""Kernels of matrix products: with weights as they are, and with weights of few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.geometry import in_line
from mtia_emu.program.isa import Block, Operand

from ..builder import NoRoom
from ..halves import Portion, cut_at, in_two, part, rows
from ..kernel import Kernel, KernelCall, Memoise
from ..rows.tape import parse
from ..spelling import numbers, words_of
from .dense import emit_matmul
from .epilogue import epilogue_of
from .packed import PackedMatrix, emit_matmul_packed
from .packed_search import ranked_packed
from .packing import Weights, packing_of
from .plan import RINGS, MatmulMapping, MatmulPlan, MatmulProblem
from .search import demand_of, ranked_matmul
from .space import stage_room

T = TypeVar("T")


WORDS = {"rows": 0, "cols": 0, "tile": 3, "outer": 0, "hold": 2, "depth": 1, "staged": -1, "slabs": 1}


def mapping_of(text: str) -> MatmulMapping:
    """Return the mapping that a text spells; raise `UserError` for one that spells none."""
    words = words_of(text, WORDS, "rows cols tile outer")
    if words["outer"] not in ("m", "n"):
        raise UserError(f"mapping {text!r}: outer={words['outer']} is not right (right: outer=m or outer=n)")
    hold, rings = numbers(words, "hold", "0x1")
    (depth,), (slabs,) = numbers(words, "depth", str(RINGS)), numbers(words, "slabs", "0")
    (tm, tn, kp), staged = numbers(words, "tile", ""), "staged" in words
    over_rows, over_cols, outer = (words[name] for name in ("rows", "cols", "outer"))
    return MatmulMapping(over_rows, over_cols, tm, tn, kp, outer, staged, hold, rings, depth, slabs)


class ProductKernel(Kernel):
    """What all products have in common: a and b, operands of the epilogue, the result m x n.

    Parameters are m, k, n, maybe batch, and `epilogue`, a tape's text, or "".
    """

    shares_launch = True
    weight = 1
    overwrites = 2  # of what the epilogue takes a tile is read before that tile is stored

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Put the result behind a and b: what follows is optional."""
        return [*inputs[:2], *outputs, *inputs[2:]]

    def macs(self, params: Mapping[str, Any]) -> int:
        """Return those of the whole product."""
        return int(params.get("batch", 1) * params["m"] * params["k"] * params["n"])

    def rights(self, params: Mapping[str, Any]) -> int:
        """Return how many inputs at the end belong to b."""
        return 0

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> MatmulMapping:
        """Return the mapping that a text spells, checked by the plan that follows from it."""
        mapping, problem = mapping_of(text), self.product(call)
        plan = MatmulPlan(problem, mapping, chip)
        lanes = chip.pe.matrix.lanes(problem.a.name) if chip.pe.matrix.supports(problem.a.name) else 1
        if mapping.kp % lanes and mapping.kp < problem.k:
            raise UserError(
                f"mapping {text!r}: panels of {mapping.kp} do not fill the array's {lanes} lanes of "
                f"{problem.a} (right: a multiple of {lanes}, or all {problem.k})"
            )
        spaces = {"a": problem.a_space, "b": problem.b_space}
        inner = "b" if plan.outer_operand == "a" else "a"
        for word, given, operand in (
            ("staged", mapping.stage, plan.outer_operand),
            ("slabs", mapping.slabs, inner),
        ):
            if given and not spaces[operand].off_chip:
                raise UserError(f"mapping {text!r}: {word} is of an operand in DRAM, {operand} is not there")
        if mapping.rings > RINGS or mapping.hold > plan.local["k"]:
            right = f"hold={plan.local['k']}x{RINGS}"
            raise UserError(f"mapping {text!r}: it holds more panels than there are (right: up to {right})")
        if plan.stage_bytes() > (most := stage_room(problem, chip)):
            raise NoRoom(f"mapping {text!r}: it stages {plan.stage_bytes()} bytes, SRAM has {most} for that")
        return mapping

    def product(self, call: KernelCall) -> MatmulProblem:
        """Return the sizes of the product, and where its operands lie."""
        raise NotImplementedError

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the batch, else the longer side of the result."""
        p = call.params
        a, b, *rest = call.inputs
        (out,), edges = call.outputs, rest[: len(rest) - self.rights(p)]
        behind = rest[len(edges) :]
        if p.get("batch", 1) > 1:
            return _batches(call, edges)
        if p["m"] >= p["n"] and p["m"] > 1:

            def tall(s: int, n: int) -> Portion | None:
                cut = (rows(x, p["m"], s, n) for x in edges)
                return call.of([part(a, -2, s, n), b, *cut, *behind], [rows(out, p["m"], s, n)], m=n)

            return in_two(p["m"], tall)

        def wide(s: int, n: int) -> Portion | None:
            return call.of([a, *(part(x, -1, s, n) for x in (b, *rest))], [part(out, -1, s, n)], n=n)

        return in_two(p["n"], wide) if p["n"] > 1 else []


def _batches(call: Portion, edges: Sequence[Any]) -> list[Portion]:
    """Cut the first dimension of batches."""
    (a, b), (out,), p = call.inputs[:2], call.outputs, call.params
    dim = next(i for i, n in enumerate(a.shape) if n > 1)
    total, size = p["batch"] * p["m"], a.shape[dim]

    def cut(s: int, n: int) -> Portion | None:
        span = (s * (total // size), n * (total // size))
        factors = [part(x, dim, s, n) for x in (a, b)]
        result = rows(out, total, *span)
        return call.of(
            [*factors, *(rows(x, total, *span) for x in edges)], [result], batch=p["batch"] * n // size
        )

    return cut_at(-(-size // 2), size, cut)


class MatmulKernel(ProductKernel):
    """out = epilogue(a b): see `emit_matmul`.

    Where `across` is given, so many dimensions at the end of a are its k: a row of a is the window of a
    convolution, read where it lies.
    """

    name = "matmul"
    summary = "tiled matrix product with an epilogue on each output tile"
    reads_views = writes_views = stages_both = True

    def problem(self, call: KernelCall) -> MatmulProblem:
        """Return the sizes, and where the operands lie."""
        (a, b, *extras), (out,), p = call.inputs, call.outputs, call.params
        across = p.get("across", 1)
        return MatmulProblem(
            p["batch"],
            p["m"],
            p["k"],
            p["n"],
            a.dtype,
            b.dtype,
            out.dtype,
            a.space,
            b.space,
            b_batched=len(b.shape) > 2,
            epilogue=epilogue_of(parse(p["epilogue"]) if p["epilogue"] else None, extras),
            out_space=out.space,
            b_tiled=b.tiled,
            a_line=in_line(a.shape[-across:], a.strides[-across:]) if across > 1 else 0,
            stage_bytes=call.stage_bytes,
        )

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the batch, else the longer side; of windows the first dimension of rows that has several."""
        p, (a, b, *edges), (out,) = call.params, call.inputs, call.outputs
        if p.get("across", 1) == 1 or p["batch"] > 1 or p["n"] > p["m"] or p["m"] == 1:
            return super().halves(call)
        dim = next(i for i, n in enumerate(out.shape) if n > 1)
        size = out.shape[dim]

        def cut(s: int, n: int) -> Portion | None:
            sides = [part(x, dim, s, n) if len(x.shape) == len(out.shape) else x for x in edges]
            return call.of([part(a, dim, s, n), b, *sides], [part(out, dim, s, n)], m=p["m"] // size * n)

        return cut_at(-(-size // 2), size, cut)

    def product(self, call: KernelCall) -> MatmulProblem:
        """Return the sizes, and where the operands lie."""
        return self.problem(call)

    def candidates(
        self, problem: MatmulProblem, chip: Chip, count: int, memoise: Memoise
    ) -> list[MatmulMapping]:
        """Return mappings by their estimated time; what each asks of the chip is counted once.

        More room to stage in than usual is used where in the usual room the inner operand is not one slab:
        with one, each operand is read from DRAM once already, and larger ones would only cost SRAM traffic.
        """

        def ranked(p: MatmulProblem) -> list[tuple[MatmulMapping, float]]:
            demand = memoise("demand", p, chip, lambda c: demand_of(p, c))
            return ranked_matmul(p, chip, count, demand)

        usual = replace(problem, stage_bytes=0)
        found = ranked(usual)
        if stage_room(problem, chip) > stage_room(usual, chip) and found[0][0].slabs != 1:
            found = ranked(problem)
        return [mapping for mapping, _ in found]

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: MatmulMapping) -> Block:
        """Return the commands of the planned product."""
        a, b, *extras = call.inputs
        a = replace(a, across=call.params.get("across", 1))
        text = call.params["epilogue"]
        plan = MatmulPlan(self.problem(call), mapping, chip)
        return emit_matmul(plan, a, b, call.outputs[0], parse(text) if text else None, extras)


@dataclass(frozen=True)
class PackedProblem:
    """A product whose k is that of one plane, and how its weights lie."""

    product: MatmulProblem
    weights: Weights


class PackedMatmulKernel(ProductKernel):
    """out = epilogue(a weights): see `emit_matmul_packed`.

    Inputs are a, codes, those of the epilogue, scales, and zero points where `zeros`.
    """

    name = "matmul_packed"
    summary = "tiled matrix product with weights of few bits, expanded by SIMD before the array"

    def rights(self, params: Mapping[str, Any]) -> int:
        """Return how many belong to the weights: scales, maybe zero points."""
        return 1 + bool(params["zeros"])

    def problem(self, call: KernelCall) -> PackedProblem:
        """Return the sizes, where the operands lie, and how the weights lie in them."""
        p, a, out, (matrix, extras) = call.params, call.inputs[0], call.outputs[0], self._weights(call)
        codes, form = matrix.codes, matrix.form
        product = MatmulProblem(
            1,
            p["m"],
            form.plane_rows,
            p["n"],
            a.dtype,
            codes.dtype,
            out.dtype,
            a.space,
            codes.space,
            b_batched=False,
            epilogue=epilogue_of(parse(p["epilogue"]), extras),
            out_space=out.space,
            b_tiled=codes.tiled,
        )
        return PackedProblem(product, form)

    def product(self, call: KernelCall) -> MatmulProblem:
        """Return the sizes of one plane's product."""
        return self.problem(call).product

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> MatmulMapping:
        """Return the mapping that a text spells; raise `UserError` for panels of several scales, too."""
        mapping = super().fixed(text, call, chip)
        self.problem(call).weights.check_panel(text, mapping.kp)
        return mapping

    def _weights(self, call: KernelCall) -> tuple[PackedMatrix, list[Operand]]:
        """Return the weights, and the operands of the epilogue."""
        (_, codes, *rest), p = call.inputs, call.params
        zeros = rest.pop() if p["zeros"] else None
        scales, form = rest.pop(), packing_of(p["k"], p["block"], codes.dtype)
        weights = Weights(form.k, form.block, form.planes, zeros is not None, scales.dtype)
        return PackedMatrix(weights, codes, scales, zeros), rest

    def candidates(
        self, problem: PackedProblem, chip: Chip, count: int, memoise: Memoise
    ) -> list[MatmulMapping]:
        """Return mappings by their estimated time."""
        return [mapping for mapping, _ in ranked_packed(problem.product, problem.weights, chip, count)]

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: MatmulMapping) -> Block:
        """Return the commands of the planned product."""
        matrix, extras = self._weights(call)
        plan = MatmulPlan(self.problem(call).product, mapping, chip)
        tape = parse(call.params["epilogue"])
        return emit_matmul_packed(plan, call.inputs[0], matrix, call.outputs[0], tape, extras)
