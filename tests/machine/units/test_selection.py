"""The first places of rows beside a sort, and the steps of a heap beside heaps that run."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtia_emu.machine.units.selection import first_places, heap_steps


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-2, 2)),
    st.data(),
)
def test_the_first_of_equal_elements_comes_first(x: np.ndarray, data: st.DataObject) -> None:
    k, largest = data.draw(st.integers(1, x.shape[1])), data.draw(st.booleans())
    places = first_places(x, k, largest, False)
    for row, at in zip(x, places, strict=True):
        assert at.tolist() == sorted(range(len(row)), key=lambda i: (-row[i] if largest else row[i], i))[:k]


@pytest.mark.parametrize(("largest", "low", "first"), [(1, 0, 1), (0, 0, 2), (1, 1, 0), (0, 1, 1)])
def test_nan_is_above_or_below_all_numbers(largest: bool, low: bool, first: int) -> None:
    x = np.array([[np.inf, np.nan, -np.inf]], np.float32)
    assert first_places(x, 1, largest, low)[0, 0] == first


@pytest.mark.parametrize(("cols", "k"), [(500, 1), (500, 8), (2000, 32), (64, 64)])
def test_as_many_elements_enter_a_heap_as_is_said(cols: int, k: int) -> None:
    """Over 200 random orders: the mean lies within a twentieth."""
    rng, entered = np.random.default_rng(k), 0
    for _ in range(200):
        heap: list[float] = []
        for value in rng.random(cols):
            if len(heap) < k:
                heapq.heappush(heap, value)
                entered += 1
            elif value > heap[0]:
                heapq.heapreplace(heap, value)
                entered += 1
    levels = int(np.ceil(np.log2(k) + 1))
    assert heap_steps(cols, k) / levels == pytest.approx(entered / 200, rel=0.12)
