"""Matrix products: every mapping gives the product, in the order in which the array sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from harness import Array, chips, packed, run, values
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.builder import Builder, NoRoom, TooLarge, at_most
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.epilogue import epilogue_of
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulPlan, MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul
from mtia_emu.kernels.rows.tape import Tape, TapeBuilder

from mtia_emu.engine.events import events
from mtia_emu.engine.timing import timeline
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.numerics import tile_matmul
from mtia_emu.program.isa import Block, Opcode, Operand
from mtia_emu.types import BF16, FP16, FP32, INT8, INT32, UINT8, DType

PAIRS = [(FP16, FP16), (BF16, BF16), (FP32, FP32), (INT8, INT8), (UINT8, INT8)]
EPILOGUES = ("", "bias", "scale", "scale bias relu", "silu", "column", "whole")


def operands(p: MatmulProblem, *, turned: bool) -> tuple[Operand, Operand, Operand]:
    """Return a, b and out of a problem; `turned` says that b lies in memory as [n, k]."""
    a = packed(p.a, (p.batch, p.m, p.k), p.a_space)
    if not p.a_batched:
        a = replace(a, strides=(0, p.k, 1))
    shape = (p.batch, p.k, p.n) if p.b_batched else (p.k, p.n)
    b = packed(p.b, shape, p.b_space)
    if turned:
        b = replace(b, strides=(*(p.k * p.n for _ in shape[:-2]), 1, p.k))
    return a, b, packed(p.out, (p.batch, p.m, p.n), "sram", written=True)


def epilogue(name: str, p: MatmulProblem) -> tuple[Tape | None, list[Operand]]:
    """Return a tape and the extras that it reads."""
    if not name:
        return None, []
    extras = {
        "bias": packed(FP32, (1, p.n)),
        "scale": packed(FP32, (1, p.n), "sram"),
        "column": packed(FP32, (p.batch * p.m, 1)),
        "whole": packed(FP16, (p.batch * p.m, p.n)),
    }
    words = [w for w in name.split() if w in extras]
    tape = TapeBuilder(1 + len(words))
    value = 0
    for word in name.split():
        if word in extras:
            value = tape.call("add" if word == "bias" else "mul", value, words.index(word) + 1)
        else:
            value = tape.call(word, value)
    return tape.done(value), [extras[w] for w in words]


@st.composite
def problems(draw: st.DrawFn, most: int = 40) -> MatmulProblem:
    """Return small problems of every kind of operand."""
    a, b = draw(st.sampled_from(PAIRS))
    batch = draw(st.integers(1, 3))
    space, size = st.sampled_from(["dram", "sram"]), st.integers(1, most)
    out = draw(st.sampled_from([FP32, FP16])) if a.is_float else draw(st.sampled_from([INT32, FP32]))
    return MatmulProblem(
        batch,
        draw(size),
        draw(size),
        draw(size),
        a,
        b,
        out,
        draw(space),
        draw(space),
        b_batched=batch > 1 and draw(st.booleans()),
    )


def inputs(block: Block, seed: int) -> list[Array]:
    """Return values for the operands that a block reads."""
    found = []
    for i, x in enumerate(block.operands):
        if not x.written and x.space != "scratch":
            data = values(x.dtype, x.shape, seed + i)
            found.append(np.broadcast_to(data[:1], x.shape) if x.strides[0] == 0 else data)
    return found


def expected(block: Block, tape: Tape | None, p: MatmulProblem, given: list[Array]) -> Array:
    """Return the product in fp64 with the epilogue in fp32."""
    wide = np.float64 if p.a.is_float else np.int64
    product = given[0].astype(wide) @ given[1].astype(wide)
    if tape is None:
        return product.astype(p.out.numpy)
    flat = product.reshape(p.batch * p.m, p.n).astype(np.float32 if p.a.is_float else np.int32)
    (out,) = tape.evaluate([flat, *given[2:]], [p.out])
    return out.reshape(product.shape)


def check(plan: MatmulPlan, *, turned: bool = False, name: str = "", seed: int = 0) -> Block:
    """Emit, run and compare a plan; return its block."""
    p = plan.problem
    tape, extras = epilogue(name, p)
    block = emit_matmul(plan, *operands(p, turned=turned), tape, extras)
    given = inputs(block, seed)
    (found,) = run(block, plan.chip, given).outputs
    want = expected(block, tape, p, given)
    if p.out.is_float:
        tolerance = {"fp16": 4e-3, "fp32": 2e-5}[p.out.name]
        scale = max(1.0, float(np.abs(want.astype(np.float64)).max()))
        assert np.abs(found.astype(np.float64) - want).max() <= tolerance * scale
    else:
        np.testing.assert_array_equal(found, want)
    assert int(events(block, plan.chip).macs.sum()) == p.batch * p.m * p.k * p.n
    with at_most(max(len(block.commands), plan.steps * plan.chip.pes)):  # no more are counted ahead
        emit_matmul(plan, *operands(p, turned=turned), tape, extras)
    return block


@settings(max_examples=150)
@given(
    chip=chips(), p=problems(), turned=st.booleans(), name=st.sampled_from(EPILOGUES), seed=st.integers(0, 99)
)
def test_the_planned_product_is_right(
    chip: Chip, p: MatmulProblem, turned: bool, name: str, seed: int
) -> None:
    if not p.a.is_float and "silu" in name:
        name = ""
    p = replace(p, epilogue=epilogue_of(*epilogue(name, p)))
    check(plan_matmul(p, chip), turned=turned, name=name, seed=seed)


@st.composite
def mappings(draw: st.DrawFn) -> MatmulMapping:
    """Return mappings of every split, order, holding and staging, tiles small enough for any chip."""
    over = draw(st.sampled_from([(r, c) for r in "bmnk" for c in "bmnk" if (r, c) != ("k", "k")]))
    tile = st.sampled_from([1, 3, 4, 8])
    return MatmulMapping(
        *over,
        draw(st.sampled_from([1, 2, 4])),
        draw(st.sampled_from([1, 3, 4])),
        draw(tile),
        draw(st.sampled_from("mn")),
        draw(st.booleans()),
        draw(st.integers(0, 3)),
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([2, 3])),
        draw(st.integers(0, 3)),
    )


@settings(max_examples=200)
@given(
    chip=chips(), p=problems(14), mapping=mappings(), turned=st.booleans(), name=st.sampled_from(EPILOGUES)
)
def test_every_mapping_gives_the_product(
    chip: Chip, p: MatmulProblem, mapping: MatmulMapping, turned: bool, name: str
) -> None:
    if not p.a.is_float and "silu" in name:
        name = ""
    if (p.b_space if mapping.outer == "m" else p.a_space) != "dram":
        mapping = replace(mapping, slabs=0)
    plan = MatmulPlan(p, mapping, chip)
    staged_space = p.a_space if mapping.outer == "m" else p.b_space
    if mapping.stage and (staged_space != "dram" or plan.local[plan.inner] == 1):
        plan = MatmulPlan(p, replace(mapping, stage=False), chip)
    try:
        check(plan, turned=turned, name=name)
    except NoRoom:
        assert plan.chip.pe.local.bytes < 8192 or plan.chip.pe.reduce.bytes < 256


@settings(max_examples=80)
@given(chip=chips(), p=problems(20), mapping=mappings())
def test_sums_have_the_bits_of_the_array(chip: Chip, p: MatmulProblem, mapping: MatmulMapping) -> None:
    over = tuple("m" if d == "k" else d for d in (mapping.over_rows, mapping.over_cols))
    p = replace(p, out=p.accumulator)
    unit = chip.pe.matrix
    lanes = unit.lanes(p.a.name) if unit.supports(p.a.name) else 1
    mapping = replace(
        mapping,
        over_rows=over[0],
        over_cols=over[1],
        kp=-(-mapping.kp // lanes) * lanes,
        stage=False,
        slabs=0,
    )
    block = emit_matmul(MatmulPlan(p, mapping, chip), *operands(p, turned=False))
    given = inputs(block, 1)
    (found,) = run(block, chip, given).outputs
    stepped = unit.supports(p.a.name) and unit.dataflow != "os"
    chunk = lanes if stepped else mapping.kp
    for i in range(p.batch):
        want = np.zeros((p.m, p.n), p.accumulator.numpy)
        right = given[1][i] if p.b_batched else given[1]
        tile_matmul(given[0][i], right, want, chunk)
        np.testing.assert_array_equal(found[i], want)


def test_too_many_commands_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = load_chip("tiny")
    p = MatmulProblem(1, 64, 64, 64, FP16, FP16, FP16, "dram", "dram")
    plan = plan_matmul(p, chip, MatmulMapping("m", "n", 8, 8, 8, "m"))
    ops = Counter(emit_matmul(plan, *operands(p, turned=True)).commands["op"].tolist())
    moved = ops[Opcode.MATMUL] + ops[Opcode.LOAD] + ops[Opcode.STORE]
    assert plan.steps * chip.pes < moved

    def add(*given: object, **fields: object) -> None:
        raise AssertionError("a command was made")

    monkeypatch.setattr(Builder, "add", add)
    with at_most(moved - 1), pytest.raises(TooLarge, match=f"takes {moved} commands"):
        emit_matmul(plan, *operands(p, turned=True))
    with at_most(moved), pytest.raises(AssertionError, match="was made"):
        emit_matmul(plan, *operands(p, turned=True))


def test_a_product_that_both_sides_split_is_refused() -> None:
    chip = load_chip("tiny")
    problem = MatmulProblem(1, 8, 8, 8, FP16, FP16, FP16, "dram", "dram", b_batched=False)
    with pytest.raises(UserError, match="k cannot be split over both"):
        plan_matmul(problem, chip, MatmulMapping("k", "k", 8, 8, 8, "m"))


def test_a_forced_mapping_that_does_not_fit_says_so() -> None:
    chip = load_chip("tiny")
    problem = MatmulProblem(1, 512, 512, 512, FP16, FP16, FP16, "dram", "dram", b_batched=False)
    plan = plan_matmul(problem, chip, MatmulMapping("m", "n", 8, 8, 4096, "m"))
    with pytest.raises(NoRoom, match=r"needs .* bytes of local memory, a PE has 16384"):
        emit_matmul(plan, *operands(problem, turned=False))


@pytest.mark.parametrize("kind", [FP16, INT8])
def test_one_load_feeds_a_row_of_pes(kind: DType) -> None:
    chip = load_chip("tiny")
    out = FP16 if kind.is_float else INT32
    problem = MatmulProblem(1, 16, 8, 16, kind, kind, out, "sram", "sram", b_batched=False)
    block = check(plan_matmul(problem, chip, MatmulMapping("m", "n", 8, 8, 8, "m")))
    casts = block.commands["cast"][block.commands["op"] == 0]
    assert sorted(casts.tolist()) == [1, 1, 2, 2]  # two rows of a, two columns of b


@pytest.mark.parametrize("seed", range(24))
def test_operands_in_dram_take_little_longer_than_what_bounds_them(seed: int) -> None:
    """Neither is read many times: DRAM moves at most half as much again as it must.

    Stores of narrow tiles make DRAM slower than a stream would be: it is asked at the runs that there are.
    """
    rng = np.random.default_rng(seed)
    chip, kind = load_chip(("mtia-1", "mtia-2i")[seed % 2]), (FP16, INT8)[seed // 2 % 2]
    m, k, n = (int(np.exp(rng.uniform(np.log(32), np.log(3000)))) for _ in range(3))
    p = MatmulProblem(
        1, m, k, n, kind, kind, FP16 if kind.is_float else INT32, "dram", "dram",
        b_batched=False, out_space="dram",
    )  # fmt: skip
    block = emit_matmul(plan_matmul(p, chip), *operands(p, turned=True))
    counts = events(block, chip)
    times, read = timeline(block, chip, counts=counts), counts.dram_read_bytes.sum()
    least, moved = kind.bytes * (m + n) * k + p.out.bytes * m * n, read + counts.dram_write_bytes.sum()
    assert moved <= 1.5 * least + 65536  # what is short is bound by latency
    assert times.cycles <= 1.45 * max(times.busy.values()) + 1200
