"""One small block of each kernel as text. UPDATE_GOLDEN=1 rewrites the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import packed, program_of
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.attention.back import emit_back, sides
from mtia_emu.kernels.attention.back_plan import BackPlan, BackProblem, BackTiling
from mtia_emu.kernels.attention.back_tape import back_tapes
from mtia_emu.kernels.attention.fused import emit_attention
from mtia_emu.kernels.attention.operands import AttentionOperands, ScoreTape
from mtia_emu.kernels.attention.plan import AttentionPlan, AttentionProblem, AttentionTiling
from mtia_emu.kernels.bags.gather import emit_gather
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags
from mtia_emu.kernels.kernel import KernelCall
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.experts import ExpertMatmulKernel, emit_rows_to_turns
from mtia_emu.kernels.matmul.packed import PackedMatrix, emit_matmul_packed
from mtia_emu.kernels.matmul.packed_experts import PackedExpertMatmulKernel
from mtia_emu.kernels.matmul.packed_search import plan_packed
from mtia_emu.kernels.matmul.packing import Weights
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.scalar import emit_scalar
from mtia_emu.kernels.rows.scan import ScanKernel
from mtia_emu.kernels.rows.tape import parse
from mtia_emu.kernels.turns import Turns

from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Block, Operand
from mtia_emu.program.text import dump
from mtia_emu.types import FP16, FP32, INT32, INT64, UINT8

CHIP = load_chip("tiny")
FOLDER = Path(__file__).parent / "golden"
SOFTMAX = "1 -> t4 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1); t3 = fold_sum(t2); t4 = div(t2, t3)"
ROTARY = (
    "6 -> t2, t5 | t0 = mul(x0, x2); t1 = mul(x1, x4); t2 = sub(t0, t1); "
    "t3 = mul(x1, x3); t4 = mul(x0, x5); t5 = add(t3, t4)"
)


def matmul() -> Block:
    """Return a staged product, k split over the columns of the grid, with a bias row and relu."""
    problem = MatmulProblem(1, 20, 32, 24, FP16, FP16, FP16, "dram", "dram", b_batched=False)
    plan = plan_matmul(problem, CHIP, MatmulMapping("m", "k", 8, 8, 8, "m", stage=True))
    tape = parse("2 -> t1 | t0 = add(x0, x1); t1 = relu(t0)")
    weights = Operand(FP16, (32, 24), (1, 32), "dram")
    return emit_matmul(
        plan,
        packed(FP16, (20, 32)),
        weights,
        packed(FP16, (20, 24), "sram", written=True),
        tape,
        [packed(FP32, (1, 24))],
    )


def expert_matmul() -> Block:
    """Return five rows of two experts among four, in turns of two rows; k is split over the rows."""
    turns = Turns(4, 5, 2)
    inputs = (
        packed(FP16, (turns.count, 2, 32), "sram"),
        Operand(FP16, (4, 32, 24), (768, 1, 32), "dram"),
        packed(INT32, (turns.count, 2), "sram"),
    )
    out = packed(FP16, (turns.count, 2, 24), "sram", written=True)
    named = {"rows": 2, "routed": 5, "loads": (3, 0, 2, 0), "k": 32, "n": 24}
    call = KernelCall(inputs, (out,), tuple(sorted(named.items())))
    kernel = ExpertMatmulKernel()
    mapping = kernel.fixed("rows=k cols=n tile=2x8x16 outer=n", call, CHIP)
    return kernel.emit_mapping(CHIP, call, mapping)


def expert_matmul_packed() -> Block:
    """Return the same with weights of 4 bits in blocks of 8 rows, which have zero points."""
    turns = Turns(4, 5, 2)
    inputs = (
        packed(FP16, (turns.count, 2, 32), "sram"),
        Operand(UINT8, (4, 16, 24), (384, 1, 16), "dram"),
        packed(INT32, (turns.count, 2), "sram"),
        packed(FP16, (4, 4, 24)),
        packed(UINT8, (4, 2, 24)),
    )
    out = packed(FP16, (turns.count, 2, 24), "sram", written=True)
    named = {"rows": 2, "routed": 5, "loads": (3, 0, 2, 0), "k": 32, "n": 24, "block": 8, "zeros": True}
    call = KernelCall(inputs, (out,), tuple(sorted(named.items())))
    kernel = PackedExpertMatmulKernel()
    return kernel.emit_mapping(CHIP, call, kernel.fixed("rows=n cols=m tile=2x8x8 outer=n", call, CHIP))


def rows_to_turns() -> Block:
    """Return five rows of two experts among four, put in turns of two rows."""
    turns = Turns(4, 5, 2)
    operands = (
        packed(FP16, (5, 32)),
        packed(INT32, (1, 2 * turns.count), "sram"),
        packed(FP16, (2 * turns.count, 32), "sram", written=True),
        packed(INT32, (turns.count, 2), "sram"),
    )
    return emit_rows_to_turns(CHIP, turns, operands, (3, 0, 2, 0))


def matmul_packed() -> Block:
    """Return a product with 4-bit weights in blocks of 8 rows, which have zero points, and a bias row."""
    problem = MatmulProblem(1, 4, 16, 24, FP16, UINT8, FP16, "dram", "dram", b_batched=False, b_tiled=True)
    weights = Weights(k=32, block=8, planes=2, zeros=True, scale=FP16)
    codes = Operand(UINT8, (16, 24), (24, 1), "dram", tiled=True)
    return emit_matmul_packed(
        plan_packed(problem, weights, CHIP),
        packed(FP16, (4, 32)),
        PackedMatrix(weights, codes, packed(FP16, (4, 24)), packed(UINT8, (2, 24))),
        packed(FP16, (4, 24), "sram", written=True),
        parse("2 -> t0 | t0 = add(x0, x1)"),
        [packed(FP32, (1, 24))],
    )


def elementwise() -> Block:
    rows = Operand(FP16, (6, 40), (0, 1), "dram")
    out = packed(FP16, (6, 40), "sram", written=True)
    return emit_rowwise(
        CHIP,
        "map",
        parse("2 -> t1 | t0 = mul(x0, 0.5); t1 = add(t0, x1)"),
        [packed(FP16, (6, 40)), rows],
        [out],
    )


def row() -> Block:
    return emit_rowwise(
        CHIP, "row", parse(SOFTMAX), [packed(FP16, (6, 40))], [packed(FP16, (6, 40), "sram", written=True)]
    )


def copy() -> Block:
    turned = Operand(FP16, (8, 12), (1, 8), "dram")
    return emit_rowwise(
        CHIP, "copy", parse("1 -> x0 | "), [turned], [packed(FP16, (8, 12), "sram", written=True)]
    )


def attention() -> Block:
    """Return causal attention of two heads on one group of keys, the mask read on the diagonal alone."""
    problem = AttentionProblem(1, 2, 8, 16, 8, 8, FP16, "sram", 8, 12)
    plan = AttentionPlan(problem, AttentionTiling(2, 4, 8, 2), CHIP)
    keys = Operand(FP16, (1, 8, 16), (128, 1, 8), "sram")
    q, out = packed(FP16, (1, 2, 8, 8)), packed(FP16, (1, 2, 8, 8), "sram", written=True)
    mask = Operand(FP16, (1, 2, 8, 16), (0, 0, 16, 1), "dram")
    scores = ScoreTape(parse("2 -> t1 | t0 = mul(x0, 0.25); t1 = add(t0, x1)"), mask=1, guarded=True)
    operands = AttentionOperands(q, keys, packed(FP16, (1, 16, 8)), out, (mask,))
    return emit_attention(plan, operands, scores)


def attention_back() -> Block:
    """Return the walk for the gradients of keys and values of causal attention, two heads on one group."""
    problem = BackProblem(True, 1, 2, 8, 16, 8, 8, FP16, 8, 2)
    heads, keys, rows = (
        packed(x, s) for x, s in ((FP16, (1, 2, 8, 8)), (FP16, (1, 16, 8)), (FP32, (1, 2, 8, 1)))
    )
    mask = Operand(FP16, (1, 2, 8, 16), (0, 0, 16, 1), "dram")
    results = [packed(FP16, (1, 16, 8), "sram", written=True)] * 2
    tapes = back_tapes(parse("2 -> t1 | t0 = mul(x0, 0.25); t1 = add(t0, x1)"), 1)
    assert tapes is not None
    side = sides([heads, keys, keys, heads, rows, rows, mask], results)
    return emit_back(BackPlan(problem, BackTiling(4, 8, 8, 1), CHIP), side, tapes)


def rotary() -> Block:
    halves = [packed(FP16, (4, 8)) for _ in range(6)]
    return emit_rowwise(CHIP, "rotary", parse(ROTARY), halves, [packed(FP16, (4, 8), written=True)] * 2)


def gather() -> Block:
    return emit_gather(
        CHIP, packed(FP16, (2, 9, 8)), packed(INT32, (1, 5)), packed(FP16, (10, 8), "sram", written=True)
    )


def scan() -> Block:
    """Return a decaying sum over three steps of 40 columns."""
    inputs = [packed(FP16, (n, 40)) for n in (1, 3, 3)]
    tape = {"tape": "3 -> t1 | t0 = mul(x1, x0); t1 = add(t0, x2)"}
    return ScanKernel().emit(CHIP, tape, inputs, [packed(FP16, (3, 40), "sram", written=True)])


def scatter() -> Block:
    operands = [packed(INT32, (1, 5)), packed(FP16, (5, 8))]
    out = [packed(FP16, (9, 8), "sram", written=True)]
    return KERNELS["scatter"].emit(CHIP, {"reduction": "add"}, operands, out)


def group() -> Block:
    out = [packed(INT64, (5, 1), "sram", written=True)]
    return KERNELS["group"].emit(CHIP, {"rows": 9}, [packed(INT32, (1, 5))], out)


def words(indices: int, runs: int) -> list[Operand]:
    """Return the operands of runs: sources, starts and rows."""
    return [packed(INT32, (1, n), "sram", written=True) for n in (indices, runs + 1, runs)]


def update() -> Block:
    """Return row-wise work on a table and a state of one element a row, with places and a rate."""
    steps = "t0 = mul(x0, x0); t1 = fold_sum(t0); t2 = add(x2, t1); t3 = mul(x0, x3); t4 = div(t3, t2)"
    tape = f"4 -> t4, t1 | {steps}"
    inputs = [
        packed(INT32, (1, 9)),
        packed(FP16, (3, 8), "sram"),
        packed(INT32, (1, 9)),
        packed(FP32, (1, 1)),
    ]
    tables = [packed(FP32, (20, n), written=True) for n in (8, 1)]
    return KERNELS["update"].emit(CHIP, {"tape": tape, "placed": True}, inputs, [*tables, *words(9, 9)])


def partial_sums() -> Block:
    inputs = [packed(INT32, (1, 64)), packed(FP16, (64, 8), "sram")]
    sums = packed(FP32, (10, 8), "sram", written=True)
    return KERNELS["partial_sums"].emit(CHIP, {"rows": 2, "most": 8}, inputs, [sums, *words(64, 10)])


def top() -> Block:
    outputs = [packed(FP16, (6, 2), written=True), packed(INT64, (6, 2), "sram", written=True)]
    return KERNELS["top"].emit(CHIP, {"largest": True, "nan_least": False}, [packed(FP16, (6, 9))], outputs)


def embedding_bag() -> Block:
    bags = BagOperands(
        packed(FP16, (50, 8)),
        packed(INT32, (1, 30)),
        packed(INT32, (1, 7)),
        packed(FP16, (6, 8), "sram", written=True),
        packed(FP32, (1, 30)),
    )
    return emit_embedding_bags(CHIP, [bags], "mean")


def scalar() -> Block:
    return emit_scalar(
        CHIP, "cumsum", {"axis": 1}, [packed(FP32, (3, 4))], [packed(FP32, (3, 4), written=True)]
    )


BLOCKS: dict[str, Callable[[], Block]] = {
    "attention": attention,
    "attention_back": attention_back,
    "matmul": matmul,
    "matmul_packed": matmul_packed,
    "expert_matmul": expert_matmul,
    "expert_matmul_packed": expert_matmul_packed,
    "rows_to_turns": rows_to_turns,
    "map": elementwise,
    "row": row,
    "copy": copy,
    "rotary": rotary,
    "scan": scan,
    "gather": gather,
    "scatter": scatter,
    "group": group,
    "update": update,
    "partial_sums": partial_sums,
    "top": top,
    "embedding_bag": embedding_bag,
    "scalar": scalar,
}


def test_every_kernel_has_a_golden_block() -> None:
    assert set(BLOCKS) == set(KERNELS)
    assert all(build().kernel == name for name, build in BLOCKS.items())


@pytest.mark.parametrize("name", BLOCKS)
def test_block_text(name: str) -> None:
    text = dump(program_of(BLOCKS[name](), CHIP))
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; UPDATE_GOLDEN=1 rewrites it"
