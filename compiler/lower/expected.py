"""What memory should hold: values of a graph, by the references of its ops, in the buffers of a schedule.

A step is held to what its results are for good. Elements that a later step writes again, and those of which
no value of the graph tells, are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..reference import evaluate
from ..user_kernels import kernel_of
from .steps import Schedule
from .views import View

Array = np.ndarray[Any, Any]
INPUT = -1  # in place of the number of a step: written before the first


class ExpectedMemory:
    """The contents of the buffers of a schedule, element by element, and which step writes each last."""

    def __init__(self, schedule: Schedule, inputs: Mapping[str, Array]) -> None:
        """Evaluate the schedule's graph on `inputs`, in the graph's own types and shapes."""
        self._schedule = schedule
        sizes = {name: buffer.type.size for name, buffer in schedule.buffers.items()}
        self._data = {n: np.zeros(sizes[n], b.type.dtype.numpy) for n, b in schedule.buffers.items()}
        self._known = {name: np.zeros(size, bool) for name, size in sizes.items()}
        self._last = {name: np.full(size, INPUT, np.int32) for name, size in sizes.items()}
        for index, step in enumerate(schedule.steps):
            for view in step.outputs:
                _through(self._last[view.buffer], view)[...] = index
        self._fill(inputs)
        self._follow_copies()

    def _fill(self, inputs: Mapping[str, Array]) -> None:
        """Put each value of the graph, in its own shape, where it lies."""
        schedule, graph = self._schedule, self._schedule.graph
        for name, array in inputs.items():
            self._put(schedule.values[name], array)
        for name, const in graph.consts.items():
            if const.present:
                self._put(schedule.values[name], const.array(name))

        def note(value: str, array: Array) -> None:
            self._put(schedule.values[value], array)

        with np.errstate(all="ignore"):
            outputs = evaluate(graph, inputs, note)
        for name, array in outputs.items():
            self._put(schedule.outputs[name], array)

    def _put(self, view: View, array: Array) -> None:
        """Put an array, in the shape of a view, where the view lies, and note that it is known."""
        data = self._data.get(view.buffer)
        if data is None or data.dtype != array.dtype:  # its maker writes elsewhere in the first place
            return
        _through(data, view)[...] = array
        _through(self._known[view.buffer], view)[...] = True

    def _follow_copies(self) -> None:
        """Let what steps copy be known where it is copied to."""
        for step in self._schedule.steps:
            if not kernel_of(step).copies:
                continue
            (source,), (target,) = step.inputs, step.outputs
            known = _through(self._known[target.buffer], target)
            if not known.all() and source.dtype == target.dtype:
                _through(self._data[target.buffer], target)[...] = self.of(source).reshape(target.shape)
                known[...] = _through(self._known[source.buffer], source).reshape(target.shape)

    def of(self, view: View) -> Array:
        """Return what a view should hold when all is done, in its shape."""
        return _through(self._data[view.buffer], view)

    def written(self, index: int, view: View) -> Array:
        """Return which elements of a view are known and written by that step for good: bools in its shape."""
        final = _through(self._last[view.buffer], view) == index
        return np.logical_and(final, _through(self._known[view.buffer], view))

    def there(self, index: int, view: View) -> Array:
        """Return which elements of a view are known and there for good before that step, in its shape."""
        final = _through(self._last[view.buffer], view) < index
        return np.logical_and(final, _through(self._known[view.buffer], view))


def _through(flat: Array, view: View) -> Array:
    """Return the elements of a buffer [size] that a view shows, in the view's shape and the same memory."""
    if 0 in view.shape:
        return np.zeros(view.shape, flat.dtype)
    strides = tuple(s * flat.itemsize for s in view.strides)
    return np.ndarray(view.shape, flat.dtype, flat, view.offset * flat.itemsize, strides)
