"""Products as kernels: the problem that a call poses, and how it is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import packed
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.kernel import KernelCall, unmemoised

from mtia_emu.engine.energy import traffic
from mtia_emu.engine.events import events
from mtia_emu.engine.totals import Totals
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Operand
from mtia_emu.types import FP16, FP32, UINT8

CHIP = load_chip("tiny")
DENSE, PACKED = KERNELS["matmul"], KERNELS["matmul_packed"]
EPILOGUE = "2 -> t0 | t0 = add(x0, x1) : fp16"


def dense_call() -> KernelCall:
    """Return a call whose weights are of one batch, in DRAM, tile after tile."""
    weights = replace(packed(FP16, (32, 24)), tiled=True)
    named = (("batch", 1), ("epilogue", EPILOGUE), ("k", 32), ("m", 20), ("n", 24))
    inputs = (packed(FP16, (20, 32), "sram"), weights, packed(FP32, (1, 24)))
    return KernelCall(inputs, (packed(FP16, (20, 24), "sram", written=True),), named)


def packed_call() -> KernelCall:
    """Return a call with 4-bit weights in blocks of 8 rows, with zero points and a bias."""
    codes = replace(packed(UINT8, (16, 24)), tiled=True)
    scales, zeros, bias = packed(FP16, (4, 24)), packed(UINT8, (2, 24)), packed(FP32, (1, 24))
    named = (("block", 8), ("epilogue", EPILOGUE), ("k", 32), ("m", 4), ("n", 24), ("zeros", True))
    inputs = (packed(FP16, (4, 32)), codes, bias, scales, zeros)
    return KernelCall(inputs, (packed(FP16, (4, 24), "sram", written=True),), named)


def test_the_problem_is_sizes_and_memories() -> None:
    problem = DENSE.problem(dense_call())
    assert (problem.batch, problem.m, problem.k, problem.n) == (1, 20, 32, 24)
    assert (problem.a_space, problem.b_space, problem.out_space) == ("sram", "dram", "sram")
    assert problem.b_tiled and not problem.b_batched
    row = KernelCall((*dense_call().inputs[:2], packed(FP32, (1, 24), "sram")), *vars_of(dense_call()))
    assert DENSE.problem(row) == problem  # where one row of the epilogue lies decides nothing


def vars_of(call: KernelCall) -> tuple[tuple[Operand, ...], tuple[tuple[str, object], ...]]:
    return call.outputs, call.named


def test_the_problem_of_packed_weights_is_that_of_one_plane() -> None:
    problem = PACKED.problem(packed_call())
    assert problem.product.k == problem.weights.plane_rows == 16
    assert problem.weights.zeros and problem.weights.scale is FP16 and problem.weights.planes == 2


@pytest.mark.parametrize(("kernel", "call"), [(DENSE, dense_call()), (PACKED, packed_call())])
def test_blocks_begin_with_the_operands_of_the_call(kernel: object, call: KernelCall) -> None:
    (mapping,) = kernel.candidates(kernel.problem(call), CHIP, 1, unmemoised)  # type: ignore[attr-defined]
    block = kernel.emit_mapping(CHIP, call, mapping)  # type: ignore[attr-defined]
    arranged = kernel.arranged(call.inputs, call.outputs)  # type: ignore[attr-defined]
    seen = [replace(x, by_column=False) for x in block.operands[: len(arranged)]]
    assert seen == arranged and kernel.weight == 1  # type: ignore[attr-defined]


class Shaped:
    """A shape that can be sliced."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def slice(self, starts: object, shape: list[int], steps: object) -> Shaped:
        return Shaped(*shape)


def test_columns_of_packed_weights_are_cut_with_scales_and_points() -> None:
    operands = tuple(Shaped(*shape) for shape in ((4, 32), (16, 256), (1, 256), (4, 256), (2, 256)))
    call = Portion(operands, (Shaped(4, 256),), {**packed_call().params, "n": 256})
    shapes = [[x.shape for x in half.inputs] for half in PACKED.halves(call)]
    assert shapes == [[(4, 32), (16, 128), (1, 128), (4, 128), (2, 128)]] * 2


def test_rows_are_cut_where_they_are_more_and_weights_stay_whole() -> None:
    operands = tuple(Shaped(*shape) for shape in ((256, 32), (16, 24), (256, 1), (4, 24), (2, 24)))
    call = Portion(operands, (Shaped(256, 24),), {**packed_call().params, "m": 256})
    first, second = PACKED.halves(call)
    assert [x.shape for x in first.inputs] == [(128, 32), (16, 24), (128, 1), (4, 24), (2, 24)]
    assert first.params["m"] == second.params["m"] == 128 and first.outputs[0].shape == (128, 24)


def test_batches_are_cut_first() -> None:
    operands = (Shaped(3, 8, 4), Shaped(3, 4, 8), Shaped(24, 1))
    call = Portion(operands, (Shaped(24, 8),), {"batch": 3, "m": 8, "k": 4, "n": 8})
    first, second = DENSE.halves(call)
    assert (first.params["batch"], second.params["batch"]) == (2, 1)
    assert [x.shape for x in first.inputs] == [(2, 8, 4), (2, 4, 8), (16, 1)]
    assert DENSE.macs(call.params) == 3 * 8 * 4 * 8


def test_more_room_to_stage_in_reads_dram_less_often() -> None:
    """Both operands of 256 KiB in DRAM: a quarter of SRAM holds parts of one, half of it all of one."""
    chip = load_chip("tiny", {"sram.bytes": 1 << 19})
    inputs = (packed(FP16, (128, 1024)), replace(packed(FP16, (1024, 128)), strides=(1, 1024)))
    named = (("batch", 1), ("epilogue", ""), ("k", 1024), ("m", 128), ("n", 128))
    call = KernelCall(inputs, (packed(FP16, (128, 128), "sram", written=True),), named)
    read, taken = [], []
    for room in (0, 1 << 17, 3 << 17):
        asked = replace(call, stage_bytes=room)
        (mapping,) = DENSE.candidates(DENSE.problem(asked), chip, 1, unmemoised)
        block = DENSE.emit_mapping(chip, asked, mapping)
        read.append(traffic(Totals(events(block, chip))).dram_read_bytes)
        taken.append(block.scratch_bytes)
    assert read[0] == read[1] > read[2] == 2 * 128 * 1024 * FP16.bytes
    assert taken[0] == taken[1] <= 1 << 17 < taken[2] <= 3 << 17
    text = str(mapping)
    assert DENSE.fixed(text, asked, chip) == mapping
    with pytest.raises(NoRoom, match="it stages"):
        DENSE.fixed(text, call, chip)
