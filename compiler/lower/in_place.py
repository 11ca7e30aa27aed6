"""Next values of states, written where the states lie instead of copied there at the end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ..user_kernels import kernel_of
from .steps import Schedule, Step
from .views import View

LARGE_SHARE = 8  # one part in so many of SRAM: what is larger is not counted on to find a place there


def write_in_place(schedule: Schedule) -> None:
    """Drop copies into states whose makers may write them: all that reads the old value runs before.

    The maker itself may read it, where its kernel reads each element before it writes it. A next value that
    others read as well stays apart where it may lie in SRAM.
    """
    states = {view.buffer for view in schedule.in_place.values()}
    touching: dict[str, list[int]] = defaultdict(list)
    for index, step in enumerate(schedule.steps):
        for name in {v.buffer for v in (*step.inputs, *step.outputs)}:
            touching[name].append(index)
    dropped: dict[int, tuple[str, str]] = {}
    for index, step in enumerate(schedule.steps):
        if kernel_of(step).copies and len(step.inputs) == 1 and step.outputs[0].buffer in states:
            source, target = step.inputs[0], step.outputs[0]
            if _may(schedule, index, source, target, touching):
                dropped[index] = (source.buffer, target.buffer)
    renames = dict(dropped.values())
    for name in renames:
        schedule.buffers.pop(name)
    kept = [step for index, step in enumerate(schedule.steps) if index not in dropped]
    schedule.steps = [_renamed(step, renames) for step in kept]


def _may(schedule: Schedule, index: int, source: View, target: View, touching: dict[str, list[int]]) -> bool:
    """Return whether what a copy reads can lie where it writes."""
    own = schedule.buffers[source.buffer]
    if own.role != "temp" or own.name in schedule.reread or not _alike(schedule, source, target):
        return False
    users = [i for i in touching[source.buffer] if i != index]
    makers = [i for i in users if any(v.buffer == source.buffer for v in schedule.steps[i].outputs)]
    if len(makers) != 1:
        return False
    if len(users) > 1 and own.type.bytes <= schedule.chip.sram.bytes // LARGE_SHARE:
        return False
    others = [i for i in touching[target.buffer] if i != index]
    maker = schedule.steps[makers[0]]
    if any(i > makers[0] for i in others) or any(_writes(schedule.steps[i], target) for i in others):
        return False
    return makers[0] not in others or _reads_first(maker, source, target)


def _writes(step: Step, target: View) -> bool:
    return any(v.buffer == target.buffer for v in step.outputs)


def _alike(schedule: Schedule, source: View, target: View) -> bool:
    """Return whether both are whole buffers, packed, of one type."""
    whole = all(
        v.contiguous and v.offset == 0 and v.type.size == schedule.buffers[v.buffer].type.size
        for v in (source, target)
    )
    return whole and source.type == target.type


def _reads_first(maker: Step, source: View, target: View) -> bool:
    """Return whether a step reads each element of a state before it writes the next value over it."""
    first = kernel_of(maker).overwrites
    if first is None or len({v.shape for v in maker.outputs}) != 1:
        return False
    out = next(v for v in maker.outputs if v.buffer == source.buffer)
    seen = [(i, v) for i, v in enumerate(maker.inputs) if v.buffer == target.buffer]
    return all(
        i >= first and (v.shape, v.strides, v.offset) == (out.shape, out.strides, out.offset) for i, v in seen
    )


def _renamed(step: Step, renames: dict[str, str]) -> Step:
    sides = (
        tuple(replace(v, buffer=renames.get(v.buffer, v.buffer)) for v in views)
        for views in (step.inputs, step.outputs)
    )
    inputs, outputs = sides
    return replace(step, inputs=inputs, outputs=outputs)
