"""Calls cut in two: which halves a dimension has, and what of each operand belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.halves import Portion, in_two, part, rows

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tensor:
    """An array that can be sliced as operands are."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def slice(self, starts: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> Tensor:
        at = tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, shape, steps, strict=True))
        return Tensor(self.array[at])


def numbered(*shape: int) -> Tensor:
    return Tensor(np.arange(np.prod(shape)).reshape(shape))


@pytest.mark.parametrize(
    ("size", "halves"),
    [(16384, [(0, 8192), (8192, 8192)]), (130, [(0, 128), (128, 2)]), (9, [(0, 5), (5, 4)])],
)
def test_the_first_half_is_whole_tiles_where_it_can_be(size: int, halves: list[tuple[int, int]]) -> None:
    seen: list[tuple[int, int]] = []

    def cut(start: int, count: int) -> Portion | None:
        seen.append((start, count))
        return Portion((), (), {})

    assert len(in_two(size, cut)) == 2 and seen == halves


def test_a_half_that_is_no_slice_leaves_the_call_whole() -> None:
    assert in_two(4, lambda start, count: None if start else Portion((), (), {})) == []
    assert Portion((), (), {}).of([None], []) is None


def test_what_is_broadcast_stays_whole() -> None:
    row = numbered(1, 6)
    assert part(row, 0, 2, 3) is row and rows(row, 4, 2, 2) is row
    np.testing.assert_array_equal(part(row, -1, 2, 3).array, [[2, 3, 4]])


def test_rows_of_several_dimensions_are_cut_between_whole_ones() -> None:
    cube = numbered(4, 3, 2)  # 12 rows
    np.testing.assert_array_equal(rows(cube, 12, 3, 6).array, cube.array[1:3])
    assert rows(cube, 12, 2, 6) is None


def product(a: Array, b: Array, column: Array) -> Array:
    return a @ b + column


@pytest.mark.parametrize(("m", "n"), [(200, 8), (8, 200)])
def test_halves_of_a_product_are_parts_of_its_result(m: int, n: int) -> None:
    a, b, column = numbered(m, 5), numbered(5, n), numbered(m, 1)
    out = Tensor(np.zeros((m, n), int))
    call = Portion((a, b, column), (out,), {"batch": 1, "m": m, "k": 5, "n": n, "epilogue": "-"})
    both = KERNELS["matmul"].halves(call)
    for half in both:
        (part_out,) = half.outputs
        assert part_out.shape == (half.params["m"], half.params["n"])
        part_out.array[...] = product(*(x.array for x in half.inputs))
    np.testing.assert_array_equal(out.array, product(a.array, b.array, column.array))
    assert len(both) == 2 and KERNELS["matmul"].macs(call.params) == m * 5 * n


def test_halves_of_bags_are_tables_then_bags() -> None:
    table, indices, offsets, out = (numbered(*shape) for shape in ((9, 4), (1, 7), (1, 7), (6, 4)))
    kernel = KERNELS["embedding_bag"]
    several = Portion((table, indices, offsets) * 3, (out,) * 3, {})
    assert [len(half.outputs) for half in kernel.halves(several)] == [1, 2]
    one = kernel.halves(Portion((table, indices, offsets), (out,), {}))
    assert [half.outputs[0].shape[0] for half in one] == [3, 3]
    assert [half.inputs[2].array.tolist() for half in one] == [[[0, 1, 2, 3]], [[3, 4, 5, 6]]]
    assert list(kernel.streamed(("t", "i", "o") * 2, ("x", "y"))) == ["i", "o", "i", "o"]
