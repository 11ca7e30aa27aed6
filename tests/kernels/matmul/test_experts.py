"""Products with routed experts: right for any routing, and no command for what nobody is routed to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Array, chips, packed, program_of, values
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.ops import reference
from mtia_emu.kernels.kernel import KernelCall, unmemoised
from mtia_emu.kernels.matmul.experts import ExpertMatmulKernel, emit_rows_to_turns
from mtia_emu.kernels.turns import Turns, turns_of

from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Opcode
from mtia_emu.program.verify import verify_block
from mtia_emu.types import FP16, FP32, INT32

KERNEL = ExpertMatmulKernel()


def call_of(turns: Turns, k: int, n: int, loads: tuple[int, ...], kind=FP32) -> KernelCall:
    b = packed(kind, (turns.experts, n, k))
    b = replace(b, shape=(turns.experts, k, n), strides=(n * k, 1, k))
    inputs = (packed(kind, (turns.count, turns.rows, k), "sram"), b, packed(INT32, (turns.count, 2), "sram"))
    out = packed(kind, (turns.count, turns.rows, n), "sram", written=True)
    named = {"rows": turns.rows, "routed": turns.routed, "loads": loads, "k": k, "n": n}
    return KernelCall(inputs, (out,), tuple(sorted(named.items())))


def block_of(chip: Chip, call: KernelCall, place: int = 0) -> Block:
    mappings = KERNEL.candidates(KERNEL.problem(call), chip, place + 1, unmemoised)
    return KERNEL.emit_mapping(chip, call, mappings[min(place, len(mappings) - 1)])


def run(block: Block, chip: Chip, operands: list[Array]) -> Array:
    """Return a block's result, flat, 0 where it writes nothing; its table stands behind the result."""
    program = program_of(block, chip)
    *some, table = operands
    out = np.zeros(program.outputs[0].type.shape, program.outputs[0].type.dtype.numpy)
    names = [b.name for b in program.inputs]
    given = dict(zip(names, (x.reshape(-1) for x in (*some, out, table)), strict=True))
    (made,) = execute(program, chip, given, check=True).outputs.values()
    return made


@given(
    chips(),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 1 << 30),
)
@settings(max_examples=60)
def test_any_routing_gives_its_products(
    chip: Chip, experts: int, tokens: int, each: int, place: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    each, k, n = min(each, experts), int(rng.integers(1, 40)), int(rng.integers(1, 40))
    turns = turns_of(experts, tokens * each, tokens * each)
    chosen = rng.integers(0, experts, (tokens, each))
    attrs = {"experts": experts, "rows": turns.rows, "turns": turns.count}
    table, _, choice, at = reference("route", [chosen], attrs)
    block = block_of(chip, call_of(turns, k, n, (tokens * each, *[0] * (experts - 1))), place)
    verify_block(block, chip)
    x, w = values(FP32, (tokens * each, k), seed), values(FP32, (experts, k, n), seed + 1)
    rows = x[choice[0]]
    made = run(block, chip, [rows, w.transpose(0, 2, 1).copy(), table]).reshape(-1, n)[at[0]]
    right = np.stack([row @ w[e] for row, e in zip(x, chosen.reshape(-1), strict=True)])
    assert np.allclose(made, right, atol=1e-4)


def test_weights_of_experts_without_rows_are_not_read() -> None:
    chip, turns = load_chip("tiny"), Turns(8, 4, 2)
    read = []
    for loads in ((4, 0, 0, 0, 0, 0, 0, 0), (2, 0, 2, 0, 0, 0, 0, 0), (1, 1, 1, 0, 1, 0, 0, 0)):
        ev = events(block_of(chip, call_of(turns, 64, 48, loads, FP16)), chip)
        assert ev.macs.sum() == 4 * 64 * 48
        read.append(float(ev.dram_read_bytes.sum()))
    expert = 64 * 48 * 2
    assert read == [2 * expert, 2 * expert, 4 * expert]  # two turns of one expert read its weights twice


def test_a_mapping_over_turns_is_refused() -> None:
    call = call_of(Turns(4, 4, 2), 32, 32, (1, 1, 1, 1))
    with pytest.raises(UserError, match="turns of experts are neither staged nor spread"):
        KERNEL.fixed("rows=b cols=n tile=8x8x32 outer=m", call, load_chip("tiny"))
    mapping = KERNEL.fixed("rows=n cols=m tile=8x8x32 outer=n", call, load_chip("tiny"))
    assert KERNEL.emit_mapping(load_chip("tiny"), call, mapping).mapping == str(mapping)


@given(chips(), st.integers(1, 6), st.integers(1, 12), st.integers(1, 90), st.integers(0, 1 << 30))
@settings(max_examples=30)
def test_rows_come_turn_by_turn(chip: Chip, experts: int, tokens: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    turns = turns_of(experts, tokens, tokens)
    attrs = {"experts": experts, "rows": turns.rows, "turns": turns.count}
    table, token, *_ = reference("route", [rng.integers(0, experts, (tokens, 1))], attrs)
    size = turns.count * turns.rows
    operands = (
        packed(FP16, (tokens, k)),
        packed(INT32, (1, size), "sram"),
        packed(FP16, (size, k), "sram", written=True),
        packed(INT32, (turns.count, 2), "sram"),
    )
    block = emit_rows_to_turns(chip, turns, operands, (tokens, *[0] * (experts - 1)))
    verify_block(block, chip)
    x = values(FP16, (tokens, k), seed)
    made = run(block, chip, [x, token, table])
    filled = (np.arange(turns.rows) < table[:, 1:]).reshape(-1)
    assert np.array_equal(made.reshape(size, k)[filled], x[token[0][filled]])
    assert {Opcode(x) for x in block.commands["op"]} == {Opcode.GATHER, Opcode.STORE}


def test_halves_are_the_columns() -> None:
    from mtia_emu.compiler.lower.views import whole
    from mtia_emu.kernels.halves import Portion

    from mtia_emu.types import TensorType

    views = [whole(n, TensorType(FP32, s)) for n, s in (("a", (2, 2, 8)), ("b", (3, 8, 6)), ("t", (2, 2)))]
    out = whole("o", TensorType(FP32, (2, 2, 6)))
    first, second = KERNEL.halves(Portion(tuple(views), (out,), {"n": 6}))
    assert [p.inputs[1].shape for p in (first, second)] == [(3, 8, 3), (3, 8, 3)]
    assert second.outputs[0].offset == 3
    assert not KERNEL.halves(Portion(tuple(views), (out,), {"n": 1}))
