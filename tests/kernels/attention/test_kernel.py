"""Attention as a kernel: the problem that a call poses, and how it is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness import packed
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.attention.kernel import tilings
from mtia_emu.kernels.attention.plan import AttentionProblem
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.kernel import KernelCall, unmemoised

from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP16

KERNEL, CHIP = KERNELS["attention"], load_chip("tiny")
PROBLEM = AttentionProblem(4, 2, 8, 16, 8, 8, FP16, "sram")


def call(keys_in: str) -> KernelCall:
    q, k, v = packed(FP16, (4, 2, 8, 8)), packed(FP16, (4, 8, 16), keys_in), packed(FP16, (4, 16, 8), keys_in)
    named = (("guarded", False), ("mask", 0), ("problem", PROBLEM), ("tape", "1 -> t0 | t0 = mul(x0, 0.25)"))
    return KernelCall((q, k, v), (packed(FP16, (4, 2, 8, 8), "sram", written=True),), named)


def test_the_problem_says_where_keys_were_placed() -> None:
    assert KERNEL.problem(call("dram")) == replace(PROBLEM, space="dram")


def test_tilings_are_worked_out_once_for_keys_in_any_memory() -> None:
    asked: list[Any] = []

    def noting(kind: str, key: Any, chip: Any, work: Any) -> Any:
        asked.append((kind, key))
        return unmemoised(kind, key, chip, work)

    for space in ("dram", "sram"):
        KERNEL.candidates(KERNEL.problem(call(space)), CHIP, 1, noting)
    assert asked[0] == asked[1] and len(tilings(PROBLEM, CHIP, unmemoised).tiles) > 1


def test_blocks_begin_with_the_operands_of_the_call() -> None:
    one = call("sram")
    (tiles,) = KERNEL.candidates(KERNEL.problem(one), CHIP, 1, unmemoised)
    block = KERNEL.emit_mapping(CHIP, one, tiles)
    assert [replace(x, by_column=False) for x in block.operands] == KERNEL.arranged(one.inputs, one.outputs)
    assert KERNEL.slow_search and KERNEL.shares_launch


class Shaped:
    """A shape that can be sliced."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def slice(self, starts: object, shape: list[int], steps: object) -> Shaped:
        return Shaped(*shape)


def test_groups_are_cut_with_their_keys() -> None:
    q, k, v = Shaped(1, 5, 2, 8, 8), Shaped(1, 5, 8, 16), Shaped(1, 5, 16, 8)
    whole = Portion((q, k, v), (Shaped(1, 5, 2, 8, 8),), {"problem": replace(PROBLEM, groups=5)})
    halves = KERNEL.halves(whole)
    assert [half.params["problem"].groups for half in halves] == [3, 2]
    assert [half.inputs[1].shape for half in halves] == [(1, 3, 8, 16), (1, 2, 8, 16)]
    alone = Portion((Shaped(1, 1, 2, 8, 8), k, v), (q,), whole.params)
    assert KERNEL.halves(alone) == []
    assert KERNEL.macs(whole.params) == 5 * 2 * 8 * 16
