"""Bytes that a schedule holds at once, by kind: from what each step reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mtia_emu.compiler.gradients.marks import BACKWARD, GATHERED
from mtia_emu.compiler.lower.steps import Schedule

from ..results.training import PeakMemory, phase_of

KINDS = {"forward": "activations", "backward": "gradients", "optimizer": "gradients"}


def peak_memory(schedule: Schedule, kind_of: Callable[[str], str]) -> PeakMemory:
    """Return the most bytes that the steps of a schedule hold at once.

    `kind_of` says what an input is: weights, optimizer or data. What a step makes is an activation where the
    step is of the forward pass, else a gradient, and a weight where it is one that chips share out and
    that is gathered; it is held from the step that writes it to the last that reads it, an output to the end.
    """
    held, fixed = _fixed(schedule, kind_of)
    first, last, kinds = dict[str, int](), dict[str, int](), dict[str, str]()
    for index, step in enumerate(schedule.steps):
        for view in step.outputs:
            first.setdefault(view.buffer, index)
            kinds.setdefault(view.buffer, _kind(step.origin or step.name))
        for view in (*step.inputs, *step.outputs):
            last[view.buffer] = index
    last |= {schedule.values[name].buffer: len(schedule.steps) for name in schedule.graph.outputs}
    changes: dict[int, Counter[str]] = {}
    for name, begin in first.items():
        if name in fixed:
            continue
        size = schedule.buffers[name].type.bytes
        changes.setdefault(begin, Counter())[kinds[name]] += size
        changes.setdefault(last[name] + 1, Counter())[kinds[name]] -= size
    now, most = Counter[str](), Counter[str]()
    for moment in sorted(changes):
        now.update(changes[moment])
        if sum(now.values()) > sum(most.values()):
            most = Counter(now)
    held.update(most)
    return PeakMemory(
        held["weights"],
        held["optimizer"],
        held["gradients"],
        held["activations"],
        held["data"],
        int(schedule.chip.dram.bytes),
    )


def _kind(origin: str) -> str:
    """Return what a step makes, by what its node says that it is part of."""
    if origin.removesuffix(BACKWARD).endswith(GATHERED):
        return "weights"
    return KINDS[phase_of(origin)]


def _fixed(schedule: Schedule, kind_of: Callable[[str], str]) -> tuple[Counter[str], set[str]]:
    """Return the bytes by kind of what is held through the whole step, and the buffers that hold it."""
    held, fixed = Counter[str](), set[str]()
    for name in schedule.graph.inputs:
        buffer = schedule.buffers.get(schedule.values[name].buffer)
        if buffer is not None and buffer.name not in fixed:
            held[kind_of(name)] += buffer.type.bytes
            fixed.add(buffer.name)
    for name in schedule.graph.consts:
        buffer = schedule.buffers.get(schedule.values[name].buffer)
        if buffer is not None and buffer.name not in fixed:
            held["data"] += buffer.type.bytes
            fixed.add(buffer.name)
    return held, fixed
