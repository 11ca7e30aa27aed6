"""Copies that need not be made: what is copied into a larger tensor is written there in the first place."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field, replace

from ..user_kernels import kernel_of
from .steps import Schedule, Step
from .views import View, carried

JOINS = ("append", "concat", "conv")  # ops whose copies fill parts of one result that do not overlap


def elide_copies(schedule: Schedule) -> None:
    """Drop the copies of temporaries whose makers, and other readers, can use the place copied to instead.

    A tensor that others read too stays out of the model's outputs, which lie in DRAM, and of tensors too
    large to count on a place in SRAM.
    """
    work = _Elider(schedule, list(schedule.steps))
    for index in range(len(schedule.steps)):
        work.offer(index)
    schedule.steps = [step for step in work.steps if step is not None]


@dataclass
class _Elider:
    """The steps, None where a copy was dropped, and the steps that touch and write each buffer, by number.

    Of a buffer that thousands of copies touch none of them may look at all others: `foreign` has the first
    that does not keep to a `part` of it, `stuck` are buffers that a step reads or writes by no view.
    """

    schedule: Schedule
    steps: list[Step | None]
    touching: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    writing: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    parts: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    foreign: dict[str, list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )  # heaps; some are out of date
    stuck: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for index, step in enumerate(self.schedule.steps):
            self._note(index, step)

    def _note(self, index: int, step: Step) -> None:
        for view in (*step.inputs, *step.outputs):
            if index not in self.touching[view.buffer]:
                heapq.heappush(self.foreign[view.buffer], index)
            self.touching[view.buffer].add(index)
        for view in step.outputs:
            self.writing[view.buffer].add(index)
        if step.op in JOINS and (kernel_of(step).copies or not step.inputs):
            self.parts[step.outputs[0].buffer].add(index)

    def _note_moved(self, index: int, source: str, target: str) -> None:
        """Note that a step touches the target's buffer as it touched the source's: no other view changed."""
        if index not in self.touching[target]:
            heapq.heappush(self.foreign[target], index)
            self.touching[target].add(index)
        if index in self.writing[source]:
            self.writing[target].add(index)

    def offer(self, index: int) -> None:
        """Drop the copy at a number, where that can be."""
        copy = self.steps[index]
        if copy is None or not kernel_of(copy).copies:
            return
        (source,), (target,) = copy.inputs, copy.outputs
        if source.buffer in self.stuck or not self._may(index, source, target):
            return
        others = self.touching[source.buffer] - {index}
        moved: dict[int, Step] = {}
        for number in others:
            step = self._moved(number, source, target)
            if step is None:
                return
            moved[number] = step
        self.parts[target.buffer] |= others
        for number, step in moved.items():
            self.steps[number] = step
            self._note_moved(number, source.buffer, target.buffer)
        self.steps[index] = None
        for name in (source.buffer, target.buffer):
            self.touching[name].discard(index)
            self.writing[name].discard(index)
        self.schedule.buffers.pop(source.buffer)

    def _may(self, index: int, source: View, target: View) -> bool:
        """Return whether the makers of what is copied may write the target.

        Nothing may touch the target before but what keeps to its other parts.
        """
        schedule = self.schedule
        into, own = schedule.buffers[target.buffer], schedule.buffers[source.buffer]
        if own.role != "temp" or own.name in schedule.reread or into.name == own.name:
            return False
        others, makers = len(self.touching[own.name]) - 1, len(self.writing[own.name])
        if makers == 0:
            return False
        if others > makers and (into.role != "temp" or into.type.bytes > schedule.chip.sram.bytes // 8):
            return False
        return self._first_foreign(into.name, index) >= index and source.type.size == own.type.size

    def _first_foreign(self, buffer: str, default: int) -> int:
        """Return the first step that touches a buffer and does not keep to a part of it."""
        heap = self.foreign[buffer]
        while heap and (heap[0] in self.parts[buffer] or heap[0] not in self.touching[buffer]):
            heapq.heappop(heap)
        return heap[0] if heap else default

    def _takes_views(self, index: int, step: Step, buffer: str) -> bool:
        """Return whether a step may meet a buffer by any view: it reads or writes what its kernel can."""
        kernel = kernel_of(step)
        return kernel.writes_views if index in self.writing[buffer] else kernel.reads_views

    def _moved(self, index: int, source: View, target: View) -> Step | None:
        """Return a step with its views of the source's buffer in the target's; None where one cannot be."""
        step = self.steps[index]
        if step is None or not self._takes_views(index, step, source.buffer):
            self.stuck.add(source.buffer)
            return None
        sides = []
        for views in (step.inputs, step.outputs):
            seen = list(views)
            for place in [i for i, v in enumerate(views) if v.buffer == source.buffer]:
                view = carried(views[place], source, target)
                if view is None:
                    return None
                seen[place] = view
            sides.append(tuple(seen))
        return replace(step, inputs=sides[0], outputs=sides[1])
