"""Elementwise scans: any width, any chip, the values of the tape, step after step."""

from __future__ import annotations

import numpy as np
import pytest
from harness import chips, packed, run, values
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.rows.scan import ScanKernel
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Opcode, Operand
from mtia_emu.types import BF16, FP16, FP32, DType

KERNEL = ScanKernel()
TAPES = (
    "3 -> t2 | t0 = tanh(x0); t1 = mul(x1, t0); t2 = add(t1, x2)",
    "2 -> t0 | t0 = max(x0, x1)",
    "2 -> x1 | ",
    "3 -> t2 | t0 = add(x1, x0); t1 = mul(t0, 0.5); t2 = max(t1, x2)",
)


@settings(max_examples=60)
@given(
    chips(),
    st.integers(1, 20),
    st.integers(1, 300),
    st.sampled_from(TAPES),
    st.sampled_from([FP16, BF16, FP32]),
)
def test_each_step_sees_what_the_one_before_left(
    chip: Chip, steps: int, width: int, text: str, kind: DType
) -> None:
    tape = parse(text)
    kept = [1] * (tape.inputs - 2)
    inputs = [packed(kind, (n, width)) for n in (1, steps, *kept)]
    out = packed(kind, (steps, width), "sram", written=True)
    block = KERNEL.emit(chip, {"tape": text}, inputs, [out])
    given_ = [values(kind, x.shape, i) for i, x in enumerate(inputs)]
    state, wanted = given_[0], []
    for t in range(steps):
        (state,) = tape.evaluate([state, given_[1][t : t + 1], *given_[2:]], [kind])
        wanted.append(state[0])
    (found,) = run(block, chip, given_).outputs
    np.testing.assert_array_equal(found, np.stack(wanted))


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7])
def test_a_tile_of_few_steps_keeps_its_state_while_the_next_are_loaded(steps: int) -> None:
    """Many tiles a PE: loads run ahead of the step that is computed, by several tiles."""
    width = 2000
    chip = load_chip("tiny", {"grid.rows": 1, "grid.cols": 1, "pe.local.bytes": 8192})
    inputs = [packed(FP32, (n, width)) for n in (1, steps, 1)]
    out = packed(FP32, (steps, width), "sram", written=True)
    block = KERNEL.emit(chip, {"tape": TAPES[3]}, inputs, [out])
    given_ = [values(FP32, x.shape, i) for i, x in enumerate(inputs)]
    state, wanted = given_[0], []
    for t in range(steps):
        (state,) = parse(TAPES[3]).evaluate([state, given_[1][t : t + 1], given_[2]], [FP32])
        wanted.append(state[0])
    np.testing.assert_array_equal(run(block, chip, given_).outputs[0], np.stack(wanted))


def test_what_is_scanned_is_loaded_a_step_and_the_rest_once() -> None:
    chip = load_chip("tiny")
    inputs = [packed(FP16, (n, 200)) for n in (1, 12, 1)]
    block = KERNEL.emit(chip, {"tape": TAPES[3]}, inputs, [packed(FP16, (12, 200), written=True)])
    tiles = -(-200 // 64)  # a share of 50 columns for each of 4 PEs, in whole lines of 32
    loads = block.commands[block.commands["op"] == Opcode.LOAD]
    assert block.mapping == "tile=8x64"
    assert np.bincount(loads["operand"]).tolist() == [tiles, 12 * tiles, tiles]
    assert (block.commands["op"] == Opcode.STORE).sum() == 12 * tiles


def test_a_pe_without_room_for_a_column_says_so() -> None:
    chip = load_chip("tiny", {"pe.local.bytes": 1024})
    with pytest.raises(NoRoom, match="scan: 8 steps of 2 operands do not fit a PE's local memory"):
        KERNEL.emit(
            chip, {"tape": TAPES[1]}, [packed(FP16, (1, 8)), packed(FP16, (9, 8))], [packed(FP16, (9, 8))]
        )


def test_it_is_cut_by_columns_and_not_by_steps() -> None:
    class View(Operand):
        def slice(self, starts: list[int], shape: list[int], steps: list[int]) -> tuple[list[int], list[int]]:
            return starts, shape

    views = [View(FP16, shape, (0, 1), "dram") for shape in ((1, 128), (9, 128), (9, 128))]
    first, second = KERNEL.halves(Portion(tuple(views[:2]), tuple(views[2:]), {"tape": TAPES[1]}))
    assert first.outputs == (([0, 0], [9, 64]),) and second.outputs == (([0, 64], [9, 64]),)
    one = View(FP16, (9, 1), (1, 1), "dram")
    assert KERNEL.halves(Portion((one, one), (one,), {"tape": TAPES[1]})) == []
