"""Random blocks of every kernel on random small chips, and what their operands are read and written.

Strategies of blocks draw the chip as well, unless they are given one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from harness import chips, packed
from hypothesis import strategies as st
from mtia_emu.kernels.bags.gather import emit_gather
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulPlan, MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand
from mtia_emu.types import FP16, FP32, INT8, INT32, INT64

Array = np.ndarray[Any, Any]
SIZE = st.integers(1, 40)
SPACE = st.sampled_from(["dram", "sram"])
SOFTMAX = "1 -> t4 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1); t3 = fold_sum(t2); t4 = div(t2, t3)"
SCALED = "2 -> t1 | t0 = mul(x0, x1); t1 = add(t0, 1.0)"


@st.composite
def matmuls(draw: st.DrawFn, chip: Chip | None = None) -> tuple[Chip, Block]:
    """Return planned and forced products."""
    chip = chip or draw(chips())
    kind = draw(st.sampled_from([FP16, INT8, FP32]))
    batch, m, k, n = draw(st.integers(1, 2)), draw(SIZE), draw(SIZE), draw(SIZE)
    a_space, b_space = draw(SPACE), draw(SPACE)
    p = MatmulProblem(
        batch, m, k, n, kind, kind, FP32 if kind.is_float else INT32, a_space, b_space, b_batched=False
    )
    over = draw(st.sampled_from([(r, c) for r in "bmnk" for c in "bmnk" if (r, c) != ("k", "k")]))
    plan = plan_matmul(p, chip)
    if draw(st.booleans()):
        plan = MatmulPlan(
            p, MatmulMapping(*over, 4, 4, draw(st.sampled_from([2, 8])), draw(st.sampled_from("mn"))), chip
        )
        staged = MatmulPlan(p, replace(plan.mapping, stage=True), chip)
        if (a_space if staged.mapping.outer == "m" else b_space) == "dram" and staged.local[staged.inner] > 1:
            plan = staged
    b = Operand(kind, (k, n), (1, k) if draw(st.booleans()) else (n, 1), b_space)
    return chip, emit_matmul(
        plan, packed(kind, (batch, m, k), a_space), b, packed(p.out, (batch, m, n), "sram", written=True)
    )


@st.composite
def rowwises(draw: st.DrawFn, chip: Chip | None = None) -> tuple[Chip, Block]:
    """Return elementwise tapes, folds and turned copies."""
    chip, shape = chip or draw(chips()), (draw(SIZE), draw(SIZE))
    x, out = packed(FP16, shape, draw(SPACE)), packed(FP16, shape, draw(SPACE), written=True)
    which = draw(st.integers(0, 3))
    if which == 0:
        return chip, emit_rowwise(chip, "row", parse(SOFTMAX), [x], [out])
    if which == 1:
        scale = Operand(FP32, shape, draw(st.sampled_from([(0, 1), (1, 0), (0, 0)])), "dram")
        return chip, emit_rowwise(chip, "map", parse(SCALED), [x, scale], [out])
    if which == 2:  # each row of x again and again: (outer, again, inner)
        cube = (draw(st.integers(1, 5)), draw(st.integers(1, 9)), shape[1])
        again = Operand(FP16, cube, (cube[2], 0, 1), draw(SPACE))
        return chip, emit_rowwise(
            chip, "map", parse(SCALED), [again, packed(FP16, cube)], [packed(FP16, cube, written=True)]
        )
    turned = Operand(FP16, shape, (1, shape[0]), draw(SPACE))
    return chip, emit_rowwise(chip, "copy", parse("1 -> x0 | "), [turned], [out])


@st.composite
def indexed(draw: st.DrawFn, chip: Chip | None = None) -> tuple[Chip, Block]:
    """Return gathers and embedding bags."""
    chip, rows, dim, count = chip or draw(chips()), draw(SIZE), draw(SIZE), draw(SIZE)
    if draw(st.booleans()):
        out = packed(FP16, (count, dim), "sram", written=True)
        return chip, emit_gather(chip, packed(FP16, (1, rows, dim)), packed(INT64, (1, count)), out)
    weights = packed(FP32, (1, 3 * count)) if draw(st.booleans()) else None
    tables = [
        BagOperands(
            packed(FP16, (rows + extra, dim)),
            packed(INT64, (1, 3 * count)),
            packed(INT64, (1, count + 1)),
            packed(FP32, (count, dim), "sram", written=True),
            weights,
        )
        for extra in range(1 + count % 3)
    ]
    return chip, emit_embedding_bags(chip, tables, "sum")


BLOCKS = st.one_of(matmuls(), rowwises(), indexed())


def reads(block: Block) -> dict[int, Array]:
    """Return how often commands read each element of each operand that they name by tiles."""
    return _touched(block, (Opcode.LOAD, Opcode.STAGE))


def writes(block: Block) -> dict[int, Array]:
    """Return how often commands write each element of each output."""
    return _touched(block, (Opcode.STORE,))


def _touched(block: Block, ops: tuple[Opcode, ...]) -> dict[int, Array]:
    times = {i: np.zeros((x.rows, x.cols), int) for i, x in enumerate(block.operands)}
    for c in block.commands[np.isin(block.commands["op"], ops)]:
        times[int(c["operand"])][c["row"] : c["row"] + c["rows"], c["col"] : c["col"] + c["cols"]] += 1
    return times
