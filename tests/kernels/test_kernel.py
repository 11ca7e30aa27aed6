"""Kernels as values: written and run with neither a graph nor a model, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from harness import Array, packed, run, values
from mtia_emu.kernels import ALL, KERNELS
from mtia_emu.kernels.kernel import Kernel, KernelCall, unmemoised
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Operand
from mtia_emu.types import FP32, INT32

CHIP = load_chip("tiny")


class Doubled(Kernel):
    """Twice x, by so many PEs of the grid's first row."""

    name = "doubled"
    summary = "twice x"

    def problem(self, call: KernelCall) -> int:
        return call.inputs[0].rows

    def candidates(self, problem: int, chip: Chip, count: int, memoise: Any) -> Sequence[int]:
        return [pes for pes in range(1, chip.grid.cols + 1) if pes <= problem][:count]

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: int) -> Block:
        tape = parse("1 -> t0 | t0 = add(x0, x0)")
        return emit_rowwise(chip.part(1, mapping), self.name, tape, call.inputs, call.outputs)


class Halved(Kernel):
    """Half of x: one mapping."""

    name = "halved"

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        tape = parse(f"1 -> t0 | t0 = mul(x0, {attrs['by']})")
        return emit_rowwise(chip, self.name, tape, inputs, outputs)


def test_a_kernel_is_written_and_run_alone() -> None:
    x = values(FP32, (40, 64), 0)
    call = KernelCall((packed(FP32, x.shape),), (packed(FP32, x.shape, written=True),), (("by", 0.5),))
    doubled, halved, views = Doubled(), Halved(), (*call.inputs, *call.outputs)
    assert doubled.mapped and not halved.mapped
    mappings = doubled.candidates(doubled.problem(call), CHIP, 9, unmemoised)
    assert list(mappings) == [*range(1, CHIP.grid.cols + 1)]
    for mapping in mappings:
        block = doubled.emit_mapping(CHIP, call, mapping)
        assert set(block.commands["pe"]) == set(range(mapping))
        np.testing.assert_array_equal(run(block, CHIP, [x], views=views).outputs[0], x + x)
    block = halved.emit_mapping(CHIP, call, None)
    np.testing.assert_array_equal(run(block, CHIP, [x], views=views).outputs[0], x / 2)


def test_what_a_kernel_does_not_say_is_the_careful_answer() -> None:
    kernel = Halved()
    assert not (kernel.reads_views or kernel.writes_views or kernel.shares_launch)
    assert kernel.arranged("ab", "c") == ["a", "b", "c"] and kernel.streamed("ab", "c") == "ab"
    assert kernel.macs({}) == 0 and kernel.weight is None
    with pytest.raises(NotImplementedError):
        Kernel().emit(CHIP, {}, (), ())


def test_names_are_unique_and_each_says_what_it_is() -> None:
    assert len(KERNELS) == len(ALL) and all(kernel.summary for kernel in ALL)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "arranged"),
    [
        ("matmul", "abe", "o", "aboe"),
        ("matmul_packed", "acesz", "o", "acoesz"),
        ("attention", "qkvm", "o", "qkvom"),
        ("embedding_bag", "tiwTIW", "oO", "tiwoTIWO"),
        ("embedding_bag", "tifwTIFW", "oO", "tifowTIFOW"),
        ("gather", "xi", "o", "xio"),
    ],
)
def test_results_stand_in_a_block_before_what_is_optional(
    name: str, inputs: str, outputs: str, arranged: str
) -> None:
    assert "".join(KERNELS[name].arranged(inputs, outputs)) == arranged


def product_call() -> tuple[KernelCall, list[Array], Array]:
    a, b = values(FP32, (9, 12), 1), values(FP32, (12, 10), 2)
    named = (("batch", 1), ("epilogue", ""), ("k", 12), ("m", 9), ("n", 10))
    out = packed(FP32, (9, 10), written=True)
    return KernelCall((packed(FP32, a.shape), packed(FP32, b.shape)), (out,), named), [a, b], a @ b


def gather_call() -> tuple[KernelCall, list[Array], Array]:
    x, at = values(FP32, (1, 5, 6), 3), np.array([[4, 0, 4]], np.int32)
    out = packed(FP32, (3, 6), written=True)
    return KernelCall((packed(FP32, x.shape), packed(INT32, at.shape)), (out,)), [x, at], x[0, at[0]]


def copy_call() -> tuple[KernelCall, list[Array], Array]:
    x = values(FP32, (4, 6), 4)
    return KernelCall((packed(FP32, x.shape),), (packed(FP32, x.shape, written=True),)), [x], x


def bag_call() -> tuple[KernelCall, list[Array], Array]:
    table, at, offsets = (
        values(FP32, (5, 6), 5),
        np.array([[1, 1, 3]], np.int32),
        np.array([[0, 2, 3]], np.int32),
    )
    named = (("lowest", False), ("mode", "sum"), ("quantised", False))
    inputs = (packed(FP32, table.shape), packed(INT32, at.shape), packed(INT32, offsets.shape))
    right = np.stack([table[1] + table[1], table[3]])
    return KernelCall(inputs, (packed(FP32, (2, 6), written=True),), named), [table, at, offsets], right


CALLS = {"matmul": product_call, "gather": gather_call, "copy": copy_call, "embedding_bag": bag_call}


@pytest.mark.parametrize("name", CALLS)
def test_every_candidate_of_ours_computes_the_call(name: str) -> None:
    call, arrays, right = CALLS[name]()
    kernel = KERNELS[name]
    for mapping in kernel.candidates(kernel.problem(call), CHIP, 5, unmemoised):
        block = kernel.emit_mapping(CHIP, call, mapping)
        assert block.kernel == name
        views = kernel.arranged(call.inputs, call.outputs)
        assert [x.written for x in block.operands[: len(views)]] == [x.written for x in views]
        np.testing.assert_allclose(
            run(block, CHIP, arrays, views=views).outputs[0], right, rtol=1e-5, atol=1e-5
        )


def test_a_block_is_asked_for_on_part_of_a_grid() -> None:
    call, arrays, right = product_call()
    kernel, part = KERNELS["matmul"], CHIP.part(1, CHIP.grid.cols)
    (mapping,) = kernel.candidates(kernel.problem(call), part, 1, unmemoised)
    block = kernel.emit_mapping(part, call, mapping)
    assert kernel.shares_launch and int(block.commands["pe"].max()) < CHIP.grid.cols
    np.testing.assert_allclose(run(block, CHIP, arrays).outputs[0], right, rtol=1e-5, atol=1e-5)
