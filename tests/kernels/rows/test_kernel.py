"""Kernels of rows: what is cut of views of one shape."""

from __future__ import annotations

import pytest
from harness import packed, run, values
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.kernel import KernelCall

from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP32


class Shaped:
    """A shape that can be sliced."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def slice(self, starts: object, shape: list[int], steps: object) -> Shaped:
        return Shaped(*shape)


@pytest.mark.parametrize(
    ("name", "shape", "first"),
    [
        ("map", (7, 3000), (7, 1536)),  # the longest, whole tiles of 64
        ("row", (7, 3000), (4, 3000)),  # not the one that is folded
        ("copy", (2, 1), (1, 1)),
    ],
)
def test_the_longest_dimension_is_cut(name: str, shape: tuple[int, int], first: tuple[int, int]) -> None:
    halves = KERNELS[name].halves(Portion((Shaped(*shape), Shaped(1, 1)), (Shaped(*shape),), {}))
    assert [x.shape for x in halves[0].inputs] == [first, (1, 1)] and halves[0].outputs[0].shape == first


@pytest.mark.parametrize(("name", "shape"), [("map", (1, 1)), ("row", (1, 3000)), ("row", (3000,))])
def test_what_has_one_element_or_one_row_is_not_cut(name: str, shape: tuple[int, ...]) -> None:
    assert KERNELS[name].halves(Portion((Shaped(*shape),), (Shaped(*shape),), {})) == []


def test_a_core_has_the_launch_to_itself() -> None:
    scalar = KERNELS["scalar"]
    call = KernelCall(
        (packed(FP32, (3, 4)),),
        (packed(FP32, (3, 4), written=True),),
        (("attrs", (("axis", 1),)), ("op", "cumsum")),
    )
    block = scalar.emit_mapping(load_chip("tiny"), call, None)
    assert block.scalar == ("cumsum", (("axis", 1),)) and not scalar.shares_launch


def test_a_copy_needs_no_tape() -> None:
    x, chip = values(FP32, (4, 6), 0), load_chip("tiny")
    call = KernelCall((packed(FP32, x.shape),), (packed(FP32, x.shape, written=True),))
    views = (*call.inputs, *call.outputs)
    (got,) = run(KERNELS["copy"].emit_mapping(chip, call, None), chip, [x], views=views).outputs
    assert (got == x).all()
