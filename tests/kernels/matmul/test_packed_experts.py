"""Products with routed experts of few bits: right for any routing, and only chosen experts are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Array, chips, packed, program_of, values
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from mtia_emu.compiler.ops import reference
from mtia_emu.compiler.ops.dequantise import store
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.kernel import KernelCall, unmemoised
from mtia_emu.kernels.matmul.packed_experts import PackedExpertMatmulKernel
from mtia_emu.kernels.matmul.packing import packing_of
from mtia_emu.kernels.turns import Turns, turns_of

from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.program.verify import verify_block
from mtia_emu.types import FP16, FP32, INT8, INT32, UINT8, DType

KERNEL = PackedExpertMatmulKernel()
TINY = load_chip("tiny")


def call_of(
    turns: Turns, sizes: tuple[int, int, int], loads: tuple[int, ...], codes: DType, zeros: bool, kind=FP32
) -> KernelCall:
    """Return a call of k rows, n columns and `block` rows to a scale, k innermost in memory."""
    k, n, block = sizes
    form, experts = packing_of(k, block, codes), turns.experts
    matrix = packed(codes, (experts, n, form.plane_rows))
    matrix = replace(
        matrix, shape=(experts, form.plane_rows, n), strides=(n * form.plane_rows, 1, form.plane_rows)
    )
    points = UINT8 if codes == UINT8 else INT8
    inputs = (
        packed(kind, (turns.count, turns.rows, k), "sram"),
        matrix,
        packed(INT32, (turns.count, 2), "sram"),
        packed(kind, (experts, form.blocks, n)),
        *([packed(points, (experts, form.plane_blocks, n))] if zeros else []),
    )
    out = packed(kind, (turns.count, turns.rows, n), "sram", written=True)
    named = {"rows": turns.rows, "routed": turns.routed, "loads": loads, "k": k, "n": n}
    more = {"block": form.block, "zeros": zeros}
    return KernelCall(inputs, (out,), tuple(sorted({**named, **more}.items())))


def block_of(chip: Chip, call: KernelCall, place: int = 0) -> Block:
    mappings = KERNEL.candidates(KERNEL.problem(call), chip, place + 1, unmemoised)
    return KERNEL.emit_mapping(chip, call, mappings[min(place, len(mappings) - 1)])


def run(block: Block, chip: Chip, operands: list[Array]) -> Array:
    """Return a block's result, flat, 0 where it writes nothing, of a, codes, the table, scales and zeros."""
    program = program_of(block, chip)
    a, codes, table, *more = operands
    out = np.zeros(program.outputs[0].type.shape, program.outputs[0].type.dtype.numpy)
    names = [b.name for b in program.inputs]
    given = dict(zip(names, (x.reshape(-1) for x in (a, codes, out, table, *more)), strict=True))
    (made,) = execute(program, chip, given, check=True).outputs.values()
    return made


@given(
    chips(), st.integers(1, 5), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(0, 1 << 30)
)
@settings(max_examples=60)
def test_any_routing_gives_the_products_of_the_op(
    chip: Chip, experts: int, tokens: int, each: int, zeros: bool, seed: int
) -> None:
    """Turns, codes in planes and blocks of scales against `expert_matmul_packed` as NumPy has it."""
    rng = np.random.default_rng(seed)
    each, n, bits = min(each, experts), int(rng.integers(1, 40)), int(rng.choice([4, 8]))
    k, block = int(rng.integers(1, 70)), int(rng.choice([4, 16, 32]))
    codes = UINT8 if bits == 4 else INT8
    form, turns = packing_of(k, block, codes), turns_of(experts, tokens * each, tokens * each)
    low = -(1 << (bits - 1))
    matrix = [store(rng.integers(low, -low, (k, n)), bits, block) for _ in range(experts)]
    points = [store(rng.integers(low, -low, (form.blocks, n)), bits, 1) for _ in range(experts)]
    x, scales = values(FP32, (tokens * each, k), seed), values(FP32, (experts, form.blocks, n), seed + 1)
    chosen = rng.integers(0, experts, (tokens, each))
    given = [x, np.stack(matrix), chosen, scales, *([np.stack(points)] if zeros else [])]
    (right,) = reference("expert_matmul_packed", given, {"k": k, "block": form.block})
    attrs = {"experts": experts, "rows": turns.rows, "turns": turns.count}
    table, _, choice, at = reference("route", [chosen], attrs)
    call = call_of(turns, (k, n, block), (tokens * each, *[0] * (experts - 1)), codes, zeros)
    try:
        block_ = block_of(chip, call, int(rng.integers(0, 4)))
    except NoRoom:
        reject()  # a local memory of few kB
    verify_block(block_, chip)
    operands = [x[choice[0]], given[1].transpose(0, 2, 1).copy(), table, *given[3:]]
    made = run(block_, chip, operands).reshape(-1, n)[at[0]]
    assert np.allclose(made, right, rtol=1e-4, atol=1e-4 * max(np.abs(right).max(), 1))


def test_codes_and_scales_of_experts_without_rows_are_not_read() -> None:
    turns, read, expanded = Turns(8, 4, 2), [], []
    for loads in ((4, 0, 0, 0, 0, 0, 0, 0), (2, 0, 2, 0, 0, 0, 0, 0), (1, 1, 1, 0, 1, 0, 0, 0)):
        ev = events(block_of(TINY, call_of(turns, (64, 48, 16), loads, UINT8, False, FP16)), TINY)
        assert ev.macs.sum() == 4 * 64 * 48
        read.append(float(ev.dram_read_bytes.sum()))
        expanded.append(float(ev.simd_passes.sum()))
    expert = 64 * 48 // 2 + 4 * 48 * 2
    assert 2 * expert <= read[0] == read[1] == read[2] / 2  # two turns of one expert read its weights twice
    more = 2 * 2 * 64 * 48  # two passes over two more experts
    assert expanded[2] - expanded[1] == pytest.approx(more, rel=0.05)


def test_a_panel_over_two_scales_is_refused() -> None:
    call = call_of(Turns(4, 4, 2), (64, 32, 16), (1, 1, 1, 1), UINT8, False)
    with pytest.raises(UserError, match="panels of 32 rows reach over blocks of 16 that share a scale"):
        KERNEL.fixed("rows=n cols=m tile=8x8x32 outer=n", call, TINY)
    mapping = KERNEL.fixed("rows=n cols=m tile=8x8x16 outer=n", call, TINY)
    assert KERNEL.emit_mapping(TINY, call, mapping).mapping == str(mapping)


def test_halves_are_the_columns() -> None:
    from mtia_emu.compiler.lower.views import whole
    from mtia_emu.kernels.halves import Portion

    from mtia_emu.types import TensorType

    shapes = (("a", FP32, (2, 2, 8)), ("c", UINT8, (3, 4, 6)), ("t", INT32, (2, 2)), ("s", FP32, (3, 2, 6)))
    views = [whole(name, TensorType(kind, shape)) for name, kind, shape in shapes]
    out = whole("o", TensorType(FP32, (2, 2, 6)))
    first, second = KERNEL.halves(Portion(tuple(views), (out,), {"n": 6}))
    assert [[x.shape for x in p.inputs] for p in (first, second)] == [
        [(2, 2, 8), (3, 4, 3), (2, 2), (3, 2, 3)]
    ] * 2
    assert second.outputs[0].offset == 3
    assert not KERNEL.halves(Portion(tuple(views), (out,), {"n": 1}))
