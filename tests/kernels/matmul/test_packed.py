"""Products with weights of few bits: the values of the reference, bytes moved as codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import packed
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.ops.dequantise import pack
from mtia_emu.compiler.pipeline import compile_lowered
from mtia_emu.compiler.reference import evaluate
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.matmul.packed import PackedMatrix, emit_matmul_packed
from mtia_emu.kernels.matmul.packed_search import plan_packed, ranked_packed
from mtia_emu.kernels.matmul.packing import Weights
from mtia_emu.kernels.matmul.plan import MatmulPlan, MatmulProblem

from mtia_emu import api
from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.program.isa import Program
from mtia_emu.study.tuning import cycles
from mtia_emu.types import FP16, INT8, UINT8

TINY = load_chip("tiny")
GRAPH = """graph g {{
  in %x : fp16[{m},{k}]
  const %codes : {codes}[{rows},{n}] = absent
  const %scales : fp16[{blocks},{n}] = absent
{zeros}  const %bias : fp16[{n}] = absent
  %y : fp16[{m},{n}] = matmul_packed(%x, %codes, %scales, {points}, %bias) {{{attrs}}}
  out %y
}}
"""
TAIL = 'tape="2 -> t1 | t0 = add(x0, x1) : fp32; t1 = relu(t0) : fp32", to="fp16"'


def graph(m: int, k: int, n: int, block: int, *, bits: int = 4, zeros: bool = False, seed: int = 0) -> Any:
    """Return a product with random weights, then a bias and relu, and its input."""
    rng = np.random.default_rng(seed)
    block = min(block, k)
    blocks = -(-k // block)
    low, high = (-8, 8) if bits == 4 else (-128, 128)
    codes, points = (rng.integers(low, high, (r, n)).astype(np.int8) for r in (k, blocks))
    if bits == 4:
        codes, points = pack(codes, block), pack(points, 1)
    kind = "uint8" if bits == 4 else "int8"
    line = f"  const %zeros : {kind}[{len(points)},{n}] = absent\n" if zeros else ""
    attrs = f"k={k}, block={block}, shape=[{m},{n}], {TAIL}"
    body = GRAPH.format(
        m=m, k=k, n=n, codes=kind, rows=len(codes), blocks=blocks, zeros=line, attrs=attrs,
        points="%zeros" if zeros else "_",
    )  # fmt: skip
    made = text.parse(body)
    data = {"codes": codes, "scales": rng.uniform(0.01, 0.1, (blocks, n)).astype(np.float16), "zeros": points}
    data["bias"] = rng.standard_normal(n).astype(np.float16)
    consts = {name: type(c)(c.type, data[name]) for name, c in made.consts.items()}
    return made.with_nodes(made.nodes, consts=consts), {"x": rng.standard_normal((m, k)).astype(np.float16)}


def executed(program: Program, inputs: dict[str, Any]) -> Any:
    return execute(program, TINY, inputs, api.core_library()).outputs["y"]


@given(
    st.integers(1, 70), st.integers(1, 150), st.integers(1, 70), st.sampled_from([1, 3, 16, 32, 48, 512]),
    st.sampled_from([4, 8]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40)
def test_any_shape_gives_the_values_of_the_reference(
    m: int, k: int, n: int, block: int, bits: int, zeros: bool, seed: int
) -> None:
    made, inputs = graph(m, k, n, block, bits=bits, zeros=zeros, seed=seed)
    program = compile_lowered(made, TINY, dtype="fp16")
    assert program.blocks[0].kernel == "matmul_packed"
    expected = evaluate(made, inputs)["y"].astype(np.float32)
    error = np.abs(executed(program, inputs).astype(np.float32) - expected).max()
    assert error <= 4e-3 * max(np.abs(expected).max(), 1.0)


@pytest.mark.parametrize("chip", ["mtia-1", "mtia-2i", "mtia-300", "systolic"])
def test_every_chip_runs_it(chip: str) -> None:
    made, inputs = graph(5, 96, 40, 32, zeros=True)
    machine = load_chip(chip)
    program = compile_lowered(made, machine, dtype="fp16")
    got = execute(program, machine, inputs, api.core_library()).outputs["y"]
    np.testing.assert_allclose(
        got.astype(np.float32), evaluate(made, inputs)["y"].astype(np.float32), atol=0.05
    )


def test_weights_leave_dram_as_codes_and_scales() -> None:
    made, _ = graph(1, 512, 256, 32)
    chip = load_chip("mtia-2i")
    (block,) = compile_lowered(made, chip, dtype="fp16", options=Options(state="cold")).blocks
    counts = events(block, chip)
    codes, scales, others = 512 * 256 / 2, 2 * 512 * 256 / 32, 2 * (512 + 256 + 256)
    moved = counts.dram_read_bytes.sum() + counts.dram_write_bytes.sum()
    assert codes + scales <= moved <= codes + scales + 64 * others / 2
    expanded = 512 * 256
    assert expanded * 2 <= counts.simd_passes.sum() <= expanded * 2 + 4096


FARTHEST = {(100, 256, 320, True): 1.08}  # short runs with code of their own: the estimate sees less of it


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize(("m", "k", "n"), [(24, 384, 1152), (24, 384, 384), (1, 1024, 512), (100, 256, 320)])
def test_the_estimate_finds_a_mapping_near_the_fastest(m: int, k: int, n: int, tiled: bool) -> None:
    chip, rows = load_chip("mtia-2i"), k // 2
    problem = MatmulProblem(1, m, rows, n, FP16, UINT8, FP16, "sram", "dram", b_batched=False, b_tiled=tiled)
    weights = Weights(k, 32, 2, False, FP16)
    a, out = packed(FP16, (m, k), "sram"), packed(FP16, (m, n), "sram", written=True)
    codes, scales = replace(packed(UINT8, (rows, n)), tiled=tiled), packed(FP16, (k // 32, n))
    times = [
        cycles(
            emit_matmul_packed(
                MatmulPlan(problem, mapping, chip), a, PackedMatrix(weights, codes, scales), out
            ),
            chip,
        )
        for mapping, _ in ranked_packed(problem, weights, chip, 64)
    ]
    assert times[0] <= FARTHEST.get((m, k, n, tiled), 1.05) * min(times)


def test_what_no_local_memory_holds_is_refused() -> None:
    small = TINY.model_copy(
        update={"pe": TINY.pe.model_copy(update={"local": TINY.pe.local.model_copy(update={"bytes": 1024})})}
    )
    problem = MatmulProblem(1, 64, 64, 64, FP16, UINT8, FP16, "sram", "dram", b_batched=False)
    with pytest.raises(NoRoom, match="no tile fits 1024 bytes of local memory"):
        plan_packed(problem, Weights(128, 32, 2, False, FP16), small)


def test_codes_of_eight_bits_lie_one_in_an_element() -> None:
    made, _ = graph(1, 64, 16, 64, bits=8)
    (block,) = compile_lowered(made, TINY, dtype="fp16").blocks
    assert block.operands[1].dtype == INT8 and block.operands[1].shape == (64, 16)
