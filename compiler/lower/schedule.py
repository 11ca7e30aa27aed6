"""Graph to Schedule: a step for each kernel call, in order; the rule of each op is in `rules/`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from mtia_emu.machine.chip import Chip
from mtia_emu.options import COLD
from mtia_emu.reuse.memo import Memoise, unmemoised

from ..graph import Graph, Node
from .elide import elide_copies
from .in_place import write_in_place
from .rules.table import rule_of
from .steps import Buffer, Fastest, Schedule, Step
from .views import View, whole

PINNED_SHARE = 16  # a constant is pinned when it takes at most one part in so many of SRAM
LEAST_PINNED = 4096  # bytes; a launch to copy less costs more than reading it from DRAM again


def schedule(
    graph: Graph,
    chip: Chip,
    memoise: Memoise = unmemoised,
    state: str = COLD,
    fastest: Fastest | None = None,
) -> Schedule:
    """Return the steps of a lowered graph for a chip.

    `memoise` may give what was worked out for another; `fastest` chooses where a node can be lowered in
    several ways. In the `state` "warm" no constant is copied for this run: those worth it are in SRAM from
    runs before.
    """
    schedule = Schedule(graph, chip, memoise=memoise, fastest=fastest)
    for name, kind in graph.inputs.items():
        schedule.values[name] = schedule.buffer(name, kind, "input")
    _put_states(schedule)
    for name, const in graph.consts.items():
        schedule.values[name] = schedule.buffer(name, const.type, "const")
    for node in graph.nodes:
        if any(kind.size for kind in node.types):
            results = rule_of(node.op)(schedule, node)
        else:  # nothing to compute
            results = [schedule.result(node, i) for i in range(len(node.types))]
        schedule.values.update(zip(node.outputs, results, strict=True))
    computed = len(schedule.steps)
    taken = {view.buffer for view in schedule.in_place.values()}
    for name in sorted(graph.outputs, key=schedule.in_place.__contains__):  # states change last
        schedule.outputs[name] = _output(schedule, name, taken)
        taken.add(schedule.outputs[name].buffer)
    schedule.outputs = {name: schedule.outputs[name] for name in graph.outputs}
    _copy_at_once(schedule, computed)
    elide_copies(schedule)
    write_in_place(schedule)
    if state == COLD:
        _pin_constants(schedule)
    # what rules shared is of no use behind them
    return replace(schedule, memo={}, memoise=unmemoised, fastest=None)


def _put_states(schedule: Schedule) -> None:
    """Let each state lie where its next value begins: an input and an output of one memory."""
    for new, old in schedule.graph.states.items():
        if new == old:
            continue
        before = schedule.values[old]
        del schedule.buffers[before.buffer]
        place = schedule.in_place[new] = schedule.buffer(new, schedule.graph.type_of(new), "output")
        schedule.values[old] = place.slice([0] * len(before.shape), before.shape, [1] * len(before.shape))


def _pin_constants(schedule: Schedule) -> None:
    """Copy small constants that several steps read (masks, angles) to a temporary first, maybe in SRAM."""
    uses: dict[str, int] = {}
    for step in schedule.steps:
        for name in {v.buffer for v in step.inputs}:
            uses[name] = uses.get(name, 0) + 1
    pinned: dict[str, str] = {}
    copies = []
    for name, count in uses.items():
        buffer = schedule.buffers[name]
        fits = LEAST_PINNED <= buffer.type.bytes <= schedule.chip.sram.bytes // PINNED_SHARE
        if buffer.role != "const" or count < 2 or not fits:
            continue
        copy = schedule.buffer(f"{name}.pinned", buffer.type)
        pinned[name] = copy.buffer
        copies.append(Step(f"{name}.pinned", "copy", "copy", (whole(name, buffer.type),), (copy,)))
    schedule.steps = copies + [
        replace(s, inputs=tuple(replace(v, buffer=pinned.get(v.buffer, v.buffer)) for v in s.inputs))
        for s in schedule.steps
    ]


def _output(schedule: Schedule, name: str, taken: Container[str]) -> View:
    """Return where an output lies: a temporary buffer of its own becomes it, anything else is copied.

    So is what is read many times: it stays where that is cheap. `taken` has the buffers of other outputs.
    """
    view, place = schedule.values[name], schedule.in_place.get(name)
    if place is not None and view == place:
        return place
    buffer = schedule.buffers[view.buffer]
    whole_buffer = (
        place is None and view.contiguous and view.offset == 0 and view.type.size == buffer.type.size
    )
    if (
        buffer.role in ("temp", "output")
        and whole_buffer
        and view.buffer not in taken
        and buffer.name not in schedule.reread
    ):
        schedule.buffers[view.buffer] = Buffer(buffer.name, view.type, "output")
        return view
    node = schedule.graph.producer(name) or Node(name, "copy", (name,), (name,), (view.type,))
    copy = place or schedule.buffer(f"{name}.out", view.type, "output")
    if view.type.size:
        schedule.step(node, "copy", [view], [copy])
    return copy


def _copy_at_once(schedule: Schedule, first: int) -> None:
    """Move the copies that make outputs, from step `first` on, behind what writes their source.

    What is copied need not live longer for that. A copy into a state waits for all that read it.
    """
    written = {v.buffer: float(i) for i, step in enumerate(schedule.steps[:first]) for v in step.outputs}
    read = {v.buffer: float(i) for i, step in enumerate(schedule.steps[:first]) for v in step.inputs}
    place = [float(i) for i in range(first)]
    for copy in schedule.steps[first:]:
        source, target = copy.inputs[0].buffer, copy.outputs[0].buffer
        place.append(max(written.get(source, first) + 0.5, read.get(target, -1) + 0.5))
        read[source] = max(read.get(source, -1), place[-1])
    schedule.steps = [schedule.steps[i] for i in sorted(range(len(place)), key=place.__getitem__)]
