"""Attention: every tiling gives softmax(q k^T) v, hidden keys cost nothing, scores stay in local memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from harness import Array, chips, packed, run, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.attention.fused import emit_attention
from mtia_emu.kernels.attention.operands import AttentionOperands, ScoreTape
from mtia_emu.kernels.attention.plan import ALWAYS, AttentionPlan, AttentionProblem, AttentionTiling
from mtia_emu.kernels.attention.search import Tilings, plan_attention
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.engine.events import events
from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Opcode, Operand
from mtia_emu.types import BF16, FP16, FP32, DType

SCALED = "1 -> t0 | t0 = mul(x0, 0.25)"
ADDED = "2 -> t1 | t0 = mul(x0, 0.25); t1 = add(t0, x1)"
CHOSEN = "2 -> t1 | t0 = mul(x0, 0.25); t1 = where(x1, t0, -65504.0)"
TOLERANCE = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 4e-2}


@dataclass(frozen=True)
class Case:
    """A problem, how its scores are masked, and whether it is guarded."""

    problem: AttentionProblem
    mask: str = ""  # "": none; "row": over keys alone; "added", "chosen": causal; "whole": of any kind
    guarded: bool = False

    @property
    def scores(self) -> ScoreTape:
        """Return what is done to scores."""
        tape: Tape = parse({"": SCALED, "chosen": CHOSEN}.get(self.mask, ADDED))
        return ScoreTape(tape, int(self.mask in ("added", "chosen")), self.guarded)

    def operands(self) -> list[Operand]:
        """Return q, k, v, out, with parts the logarithms, and the mask."""
        p = self.problem
        q = packed(p.kind, (p.groups, p.heads, p.queries, p.dim), p.space)
        k = packed(p.kind, (p.groups, p.dim, p.keys), p.space)
        k = replace(k, strides=(p.dim * p.keys, 1, p.dim))
        v = packed(p.kind, (p.groups, p.keys, p.value_dim), p.space)
        parts = (p.groups, p.parts) if p.parts > 1 else (p.groups,)
        out = [packed(p.kind, (*parts, p.heads, p.queries, p.value_dim), "sram", written=True)]
        if p.parts > 1:
            out.append(packed(FP32, (*parts, p.heads, p.queries, 1), "sram", written=True))
        kind = FP32 if self.mask != "chosen" else DTYPE_BOOL
        shape = (p.groups, p.heads, p.queries, p.keys)
        views = {
            "": [],
            "row": [Operand(kind, shape, (p.keys, 0, 0, 1), "dram")],
            "whole": [packed(kind, shape)],
        }
        causal = [Operand(kind, shape, (0, 0, p.keys, 1), p.space)]
        return [q, k, v, *out, *views.get(self.mask, causal)]

    def data(self, seed: int) -> list[Array]:
        """Return arrays for q, k, v and the mask."""
        p, rng = self.problem, np.random.default_rng(seed)
        q, k, v, *rest = self.operands()
        extra = rest[1 + (p.parts > 1) :]
        arrays = [values(x.dtype, x.shape, seed + i) for i, x in enumerate((q, k, v))]
        if not extra:
            return arrays
        hidden = rng.random(extra[0].shape) < 0.3
        if self.mask in ("added", "chosen"):
            hidden = np.arange(p.keys)[None, :] > np.arange(p.queries)[:, None] + p.diagonal
            hidden = np.broadcast_to(hidden, extra[0].shape)
        if self.mask == "row":
            hidden = np.broadcast_to(hidden[:, :1, :1], extra[0].shape)
        if self.mask == "chosen":
            return [*arrays, ~hidden]
        return [*arrays, np.where(hidden, -np.inf, np.float32(0.0)).astype(np.float32)]

    def expected(self, arrays: list[Array]) -> Array:
        """Return what the arrays come to, in fp64."""
        q, k, v, *extra = (np.asarray(x).astype(np.float64) for x in arrays)
        raw = np.einsum("ghmd,gdn->ghmn", q, k) * 0.25
        if self.mask == "chosen":
            raw = np.where(extra[0] != 0, raw, -np.inf)
        elif extra:
            raw = raw + extra[0]
        with np.errstate(invalid="ignore"):
            powers = np.exp(raw - raw.max(axis=-1, keepdims=True))
            weights = powers / powers.sum(axis=-1, keepdims=True)
        if self.guarded:
            weights = np.where(np.isnan(weights), 0, weights)
        return np.einsum("ghmn,gne->ghme", weights, v)


DTYPE_BOOL = DType("bool", np.dtype(bool), 8)


def emitted(case: Case, plan: AttentionPlan) -> Block:
    """Return the block of a case under a plan."""
    q, k, v, out, *extras = case.operands()
    total = extras.pop(0) if case.problem.parts > 1 else None
    return emit_attention(plan, AttentionOperands(q, k, v, out, tuple(extras), total), case.scores)


def joined(case: Case, outputs: list[Array]) -> Array:
    """Return the results of all keys: of parts, their mean by the softmax of the logarithms."""
    if case.problem.parts == 1:
        return outputs[0]
    out, total = (x.astype(np.float64) for x in outputs)
    with np.errstate(invalid="ignore"):
        powers = np.exp(total - total.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True) * out).sum(axis=1)


def holds(case: Case, plan: AttentionPlan, seed: int = 0) -> Block:
    """Execute a case under a plan and hold it to its definition; return the block."""
    block = emitted(case, plan)
    arrays = case.data(seed)
    got = joined(case, run(block, plan.chip, arrays, views=case.operands()).outputs)
    right = case.expected(arrays)
    assert got.shape == right.shape
    assert (np.isnan(got.astype(np.float64)) == np.isnan(right)).all()
    far = np.nan_to_num(np.abs(got.astype(np.float64) - right)).max(initial=0.0)
    assert far <= TOLERANCE[case.problem.kind.name] * max(1.0, np.nan_to_num(np.abs(right)).max(initial=0.0))
    return block


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return small problems of every mask and type."""
    size = st.integers(1, 9)
    queries, keys = draw(st.integers(1, 20)), draw(st.integers(1, 50))
    mask = draw(st.sampled_from(["", "row", "whole", "added", "chosen"]))
    diagonal = draw(st.integers(0, keys)) if mask in ("added", "chosen") else ALWAYS
    problem = AttentionProblem(
        draw(st.integers(1, 5)), draw(st.integers(1, 3)), queries, keys, draw(size), draw(size),
        draw(st.sampled_from([FP16, BF16, FP32])), draw(st.sampled_from(["dram", "sram"])), diagonal, 24,
    )  # fmt: skip
    if diagonal == ALWAYS:
        least = -(-keys // draw(st.integers(1, 6)))  # of a part
        problem = replace(problem, parts=-(-keys // least))
    return Case(problem, mask, draw(st.booleans()))


@settings(max_examples=30)
@given(cases(), chips(), st.integers(0, 99))
def test_the_planned_kernel_computes_attention(case: Case, chip: Chip, seed: int) -> None:
    try:
        plan = plan_attention(case.problem, chip)
        holds(case, plan, seed)
    except NoRoom:
        assume(False)


@settings(max_examples=30)
@given(
    cases(),
    st.integers(1, 6),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(2, 5),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_tiling_computes_attention(
    case: Case, rows: int, width: int, panels: int, stack: int, row: bool
) -> None:
    chip = load_chip("tiny", {"pe.local.bytes": 65536})
    plan = AttentionPlan(
        case.problem, AttentionTiling(chip.grid.cols if row else 1, rows, width, panels, stack), chip
    )
    assume(plan.score_rings > 0)
    holds(case, plan)


def causal(queries: int = 64, keys: int = 64, **more: Any) -> Case:
    """Return a causal case, of two groups of two heads."""
    return Case(
        AttentionProblem(2, 2, queries, keys, 16, 16, FP16, "sram", keys - queries, 16, **more), "added"
    )


def test_hidden_tiles_are_not_computed() -> None:
    chip = load_chip("tiny")
    plan = AttentionPlan(causal().problem, AttentionTiling(2, 8, 8, 4), chip)
    block = holds(causal(), plan)
    c = block.commands[block.commands["op"] == Opcode.MATMUL]
    tiles = (64 // 8) * (64 // 8 + 1) // 2  # of each head, the diagonal and what is left of it
    assert len(c) == 2 * tiles * 2 * 2
    masks = block.commands[(block.commands["op"] == Opcode.LOAD) & (block.commands["operand"] == 4)]
    assert len(masks) == 64 // 8 * 2 * 2  # the diagonal alone reads the mask


def test_a_mask_that_heads_share_is_read_from_dram_once() -> None:
    chip = load_chip("tiny", {"sram.bytes": 1 << 20})
    problem = replace(causal().problem, space="dram")
    case = Case(problem, "added")
    plan = AttentionPlan(problem, AttentionTiling(2, 8, 8, 4), chip)
    block = holds(case, plan)
    found = events(block, chip)
    staged = block.commands["op"] == Opcode.STAGE
    tiles = 8 * 8 * 8 * 4  # those on the diagonal, of fp32
    assert found.sram_write_bytes[staged].sum() == block.scratch_bytes == tiles
    assert found.sram_read_bytes.sum() == 2 * 2 * tiles  # for each head


def test_scores_reach_no_shared_memory_and_keys_are_loaded_once_for_a_row() -> None:
    chip = load_chip("tiny")
    problem = replace(causal().problem, diagonal=ALWAYS)
    plan = AttentionPlan(problem, AttentionTiling(2, 8, 8, 4), chip)
    found = events(emitted(Case(problem), plan), chip)
    qo = 2 * problem.groups * problem.heads * problem.queries * problem.dim * 2
    kv = problem.groups * problem.keys * (problem.dim + problem.value_dim) * 2
    assert found.sram_write_bytes.sum() == qo / 2
    assert found.sram_read_bytes.sum() == qo / 2 + kv * plan.passes


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_row_that_sees_nothing_is_zero_where_guarded(guarded: bool, parts: int) -> None:
    chip = load_chip("tiny")
    problem = AttentionProblem(1, 1, 4, 20, 4, 4, FP32, "sram", extra_bytes=24, parts=parts)
    case = Case(problem, "whole", guarded)
    plan = AttentionPlan(problem, AttentionTiling(2, 2, 8, 2), chip)
    arrays = [*case.data(0)[:3], np.full((1, 1, 4, 20), -np.inf, np.float32)]
    got = joined(case, run(emitted(case, plan), chip, arrays, views=case.operands()).outputs)
    assert (got == 0).all() if guarded else np.isnan(got).all()


def test_the_plan_is_near_the_best_of_all_tilings() -> None:
    chip = load_chip("mtia-2i")
    sizes = [(8, 4, 256, 512), (32, 1, 64, 1024), (8, 4, 1, 2048), (64, 1, 128, 128)]
    for groups, heads, queries, keys in sizes:
        problem = AttentionProblem(groups, heads, queries, keys, 128, 128, FP16, "sram", extra_bytes=4)
        chosen = plan_attention(problem, chip)
        cycles = best = timeline(emitted(Case(problem), chosen), chip).cycles
        for lane, rows, width, panels, stack in (
            (8, 16, 64, 4, 4), (8, 16, 64, 4, 1), (8, 16, 64, 3, 2), (8, 16, 32, 8, 4), (8, 8, 64, 2, 8),
            (1, 16, 64, 4, 2), (1, 4, 64, 4, 1), (8, 4, 64, 8, 1),
        ):  # fmt: skip
            plan = AttentionPlan(
                problem, AttentionTiling(lane, min(rows, heads * queries), width, panels, stack), chip
            )
            if plan.score_rings > 0 and plan.local_bytes <= chip.pe.local.bytes:
                best = min(best, timeline(emitted(Case(problem), plan), chip).cycles)
        assert cycles <= 1.1 * best, f"{chosen.tiles}: {cycles} cycles, {best} are possible"
        ((_, estimated),) = Tilings(problem, chip).ranked(problem.space, chip, 1)
        assert 0.5 < estimated / cycles < 2


def test_what_does_not_fit_is_refused() -> None:
    problem = AttentionProblem(1, 1, 8, 64, 4096, 4096, FP16, "sram")
    with pytest.raises(NoRoom, match="attention: no tile of 4096 \\+ 4096 columns of fp16 fits 16384 bytes"):
        plan_attention(problem, load_chip("tiny"))
