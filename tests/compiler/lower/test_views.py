"""A view of a buffer is what NumPy's view of an array is."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.lower.views import View, carried, packed, whole

from mtia_emu.types import INT32, TensorType

Array = np.ndarray[Any, Any]


def read(view: View, buffer: Array) -> Array:
    """Return the elements of a view."""
    strides = [s * buffer.itemsize for s in view.strides]
    return np.lib.stride_tricks.as_strided(buffer[view.offset :], view.shape, strides)


def moved(draw: st.DrawFn, view: View, array: Array) -> tuple[View, Array]:
    """Return a view and an array after the same random move."""
    shape, rank = array.shape, array.ndim
    kind = draw(st.sampled_from(["transpose", "expand", "slice", "reshape", "last"]))
    if kind == "transpose":
        perm = draw(st.permutations(range(rank)))
        return view.transpose(perm), array.transpose(perm)
    if kind == "expand":
        wide = (*draw(st.sampled_from([(), (2,)])), *(3 if n == 1 else n for n in shape))
        return view.expand(wide), np.broadcast_to(array, wide)
    if kind == "slice" and rank:
        starts = [draw(st.integers(0, n - 1)) for n in shape]
        steps = [draw(st.integers(1, 2)) for _ in shape]
        picked = array[tuple(slice(a, None, s) for a, s in zip(starts, steps, strict=True))]
        return view.slice(starts, picked.shape, steps), picked
    if kind == "last" and rank:
        axis = draw(st.integers(0, rank - 1))
        return view.last(axis), np.moveaxis(array, axis, -1)
    flat = draw(st.sampled_from([(array.size,), (*shape, 1), (1, array.size)]))
    return view.reshape(flat) or view, array.reshape(flat) if view.reshape(flat) else array


@settings(max_examples=150)
@given(st.data())
def test_a_view_reads_what_numpy_reads(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    buffer = np.arange(int(np.prod(shape)), dtype=np.int32)
    view, array = whole("b", TensorType(INT32, shape)), buffer.reshape(shape)
    for _ in range(data.draw(st.integers(0, 4))):
        view, array = moved(data.draw, view, array)
    assert view.type == TensorType(INT32, array.shape)
    np.testing.assert_array_equal(read(view, buffer), array)
    if view.contiguous:
        flat = np.ascontiguousarray(array).ravel()
        np.testing.assert_array_equal(buffer[view.offset : view.offset + view.type.size], flat)


def test_a_reshape_that_needs_a_copy_is_none() -> None:
    view = whole("b", TensorType(INT32, (2, 3)))
    assert view.transpose((1, 0)).reshape((6,)) is None
    assert view.expand((4, 2, 3)).reshape((24,)) is None
    assert view.transpose((1, 0)).reshape((3, 1, 2)) is not None


def test_empty_views_take_any_shape() -> None:
    view = whole("b", TensorType(INT32, (0, 3))).transpose((1, 0))
    assert view.reshape((0, 7)) == View("b", INT32, (0, 7), packed((0, 7)))


@settings(max_examples=300)
@given(st.data())
def test_a_carried_view_reads_what_it_read(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    perm = data.draw(st.permutations(range(len(shape))))
    source = whole("b", TensorType(INT32, shape)).transpose(perm)
    wide = [n + data.draw(st.integers(0, 2)) for n in source.shape]
    starts = [data.draw(st.integers(0, w - n)) for w, n in zip(wide, source.shape, strict=True)]
    order = data.draw(st.permutations(range(len(wide))))
    target = whole("c", TensorType(INT32, tuple(wide[i] for i in order)))
    target = target.transpose(list(np.argsort(order))).slice(starts, source.shape, [1] * len(wide))
    before, after = np.arange(source.type.size), np.full(int(np.prod(wide)), -1)
    read(target, after)[...] = read(source, before)
    view = whole("b", TensorType(INT32, shape))
    array = before.reshape(shape)
    for _ in range(data.draw(st.integers(0, 3))):
        view, array = moved(data.draw, view, array)
    there = carried(view, source, target)
    if there is not None:
        assert there.buffer == "c" and there.shape == view.shape
        np.testing.assert_array_equal(read(there, after), read(view, before))
    whole_source = carried(source, source, target)
    assert whole_source is not None


def test_a_view_across_a_broken_row_is_not_carried() -> None:
    heads = View("b", INT32, (2, 4, 3), (3, 6, 1))  # of [4, 2, 3], heads first
    target = whole("c", TensorType(INT32, (2, 4, 3)))
    assert carried(whole("b", TensorType(INT32, (4, 6))), heads, target) is None
    assert carried(whole("b", TensorType(INT32, (4, 2, 3))), heads, target) is not None
    assert carried(heads, View("b", INT32, (2, 4, 3), (12, 3, 1), 1), target) is None


def test_a_step_beyond_all_memory_takes_one_element() -> None:
    taken = whole("b", TensorType(INT32, (4, 4))).slice([1, 0], [1, 4], [1 << 62, 1])
    assert taken.offset == 4
    assert taken.reshape((2, 2)) == View("b", INT32, (2, 2), (2, 1), 4)
