"""Graphs as boxes and arrows, programs as bars over time: what `view` draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.ops import OPS, work

from ..engine.launches import costs, part
from ..engine.lookups import Lookups
from ..engine.sequence import LaunchRun, launch_runs
from ..engine.timing import Timeline
from ..errors import UserError, nearest
from ..machine.chip import Chip
from ..program.commands import QUEUES, Queue
from ..program.isa import Launch, Opcode, Part, Program
from ..view.drawing import Box, Drawing
from ..view.gantt import Bar, Lane

Array = np.ndarray[Any, Any]
BINS = 1000  # into which the time axis is cut where single commands cannot be seen
LEVELS = 8  # of how busy units are in a bin
SHADES = (1.0, 0.6)  # of neighbouring commands
MOST_BARS = 2000  # commands of a unit that are drawn one by one
SHOWN = 4  # constants of a node that its box names


def graph_drawing(graph: Graph) -> Drawing:
    """Return a graph as a drawing: a box an input, a node and an output; constants stand in their readers."""
    boxes = [Box(("input", name, str(kind)), "input") for name, kind in graph.inputs.items()]
    maker = {name: number for number, name in enumerate(graph.inputs)}
    arrows: list[tuple[int, int, str]] = []
    for node in graph.nodes:
        number = len(boxes)
        boxes.append(_box(graph, node))
        read = dict.fromkeys(v for v in node.inputs if v in maker)
        arrows += [(maker[v], number, f"%{v} : {graph.type_of(v)}") for v in read]
        maker.update((v, number) for v in node.outputs)
    for name in graph.outputs:
        kind = graph.type_of(name)
        boxes.append(Box(("output", name, str(kind)), "output"))
        arrows += [(maker[name], len(boxes) - 1, f"%{name} : {kind}")] if name in maker else []
    return Drawing(f"graph {graph.name}", tuple(boxes), tuple(arrows))


def _box(graph: Graph, node: Node) -> Box:
    weights = [f"%{v} : {graph.type_of(v)}" for v in dict.fromkeys(node.inputs) if v in graph.consts]
    more = [f"... and {len(weights) - SHOWN} more constants"] if len(weights) > SHOWN else []
    tip = "\n".join([text.line(node), *(f"constant {w}" for w in weights[:SHOWN]), *more])
    kind = _kind(graph, node)
    return Box(
        (node.op, node.output if node.outputs else node.name, ", ".join(map(str, node.types))), kind, tip
    )


def _kind(graph: Graph, node: Node) -> str:
    if OPS[node.op].looks_up:
        return "lookup"
    count = work(graph, node)
    return "product" if count.macs else "other" if count.flops else "move"


def program_lanes(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None
) -> tuple[list[Lane], float]:
    """Return a program's layers and how busy each kind of unit is meanwhile, and the cycles of the whole.

    Layers of one launch stand in lanes one below the other. A unit's bars are as dark as the share of its
    instances that have a command under way, on average over a thousandth of the time. `lookups` as in
    `engine.launches.costs`.
    """
    runs = list(launch_runs(program, chip, costs(program, chip, lookups)))
    cycles = float(runs[-1].span.end if runs else 0)
    edges = np.linspace(0.0, max(cycles, 1.0), BINS + 1)
    pes = part(program, chip).pes
    times, begins = [run.cost.time for run in runs], [run.span.begin for run in runs]
    lanes = _layer_lanes(runs)
    for unit in sorted({int(u) for time in times for u in np.unique(time.unit)}):
        busy = under_way(times, begins, unit, edges)
        queue = QUEUES[unit]
        lanes.append(Lane(queue.name, _bars(busy / (1 if queue.chip_wide else pes), edges, queue.colour)))
    return lanes, cycles


def _layer_lanes(runs: Iterable[LaunchRun]) -> list[Lane]:
    """Return the layers in lanes, those of one launch below one another, each coloured by what bound it."""
    rows: list[list[Bar]] = [[]]
    for run in runs:
        rows[0].append(Bar(run.span.start, run.span.begin, "launch"))
        rows += [[] for _ in run.layers[len(rows) :]]
        for row, x in zip(rows, run.layers, strict=False):
            row.append(Bar(x.span.begin, x.span.end, x.cost.split.bound_by, name=x.layer.name))
    names = ("layer, by what bound it", *["beside it"] * (len(rows) - 1))
    return [Lane(name, tuple(bars), legend=True) for name, bars in zip(names, rows, strict=True)]


def under_way(times: Sequence[Timeline], starts: Sequence[float], unit: int, edges: Array) -> Array:
    """Return how many of a kind's instances are at work on average between edges[n + 1], [n]."""
    known: dict[int, tuple[Array, Array]] = {}
    busy = np.zeros(len(edges))
    for time, start in zip(times, starts, strict=True):
        if id(time) not in known:
            mine = time.unit == unit
            known[id(time)] = np.sort(time.start[mine]), np.sort(time.end[mine])
        begin, end = known[id(time)]
        if not len(begin):
            continue
        low, high = np.searchsorted(edges, (start, start + end[-1]), side="right")
        busy[low:high] += _until(begin, edges[low:high] - start) - _until(end, edges[low:high] - start)
        busy[high:] += float(end.sum() - begin.sum())
    return np.diff(busy) / np.diff(edges)


def _until(moments: Array, times: Array) -> Array:
    """Return, [time], the sum over sorted moments[n] of how long ago each was; the future counts 0."""
    before = np.searchsorted(moments, times)
    return before * times - np.concatenate([[0.0], np.cumsum(moments)])[before]


def overlap(starts: Sequence[float] | Array, ends: Sequence[float] | Array, edges: Array) -> Array:
    """Return how many spans are under way on average between edges[n + 1], [n]."""
    begin, end = (np.sort(np.asarray(x, float)) for x in (starts, ends))
    return np.diff(_until(begin, edges) - _until(end, edges)) / np.diff(edges)


def _bars(share: Array, edges: Array, kind: str) -> tuple[Bar, ...]:
    """Return bars over bins of like share[n], between edges[n + 1]; nothing where nothing was busy."""
    level = np.ceil(np.clip(share, 0, 1) * LEVELS - 1e-6).astype(int)
    cuts = np.flatnonzero(np.diff(level)) + 1
    spans = zip([0, *cuts], [*cuts, len(level)], strict=True)
    return tuple(Bar(float(edges[a]), float(edges[b]), kind, level[a] / LEVELS) for a, b in spans if level[a])


def layer_lanes(
    program: Program, chip: Chip, layer: str, pe: int, lookups: Mapping[int, Lookups] | None = None
) -> tuple[list[Lane], float]:
    """Return the commands of one layer that a PE's units run, a lane a unit, and the cycles of the layer.

    The first launch of that name counts. Of a unit with more than `MOST_BARS` commands only how busy it was
    is shown. Raises `UserError` for a layer or PE that there is not.
    """
    index = _launch_named(program, layer)
    pes = part(program, chip).pes
    if not 0 <= pe < pes:
        raise UserError(f"PE {pe} is none of {chip.name}'s (right: 0 to {pes - 1})")
    cost = costs(program, chip, lookups)[index]
    commands, time = program.blocks[program.launches[index].block].commands, cost.time
    lanes: list[Lane] = []
    for unit, queue in enumerate(QUEUES):
        mine = (time.unit == unit) & ((commands["pe"] == pe) | queue.chip_wide)
        if mine.any():
            lanes += _command_lanes(queue, commands[mine], time.start[mine], time.end[mine], cost.cycles)
    return lanes, float(cost.cycles)


def _launch_named(program: Program, layer: str) -> int:
    """Return the first launch of a name: that of one of its model's nodes, or of the step of the schedule."""
    layers: list[tuple[int, Launch | Part]] = []
    for index, launch in enumerate(program.launches):
        layers += [(index, launch), *((index, part) for part in launch.parts)]
    for named in ("name", "origin"):
        for index, x in layers:
            if getattr(x, named) == layer:
                return index
    known = {name for _, x in layers for name in (x.name, x.origin)}
    raise UserError(f"no layer {layer!r}{nearest(layer, known)} (`mtia-emu show --at schedule` lists them)")


def _command_lanes(queue: Queue, commands: Array, start: Array, end: Array, cycles: float) -> list[Lane]:
    """Return a lane for each of commands[n] that a unit has under way at the same time as others."""
    unit, kind = queue.name, queue.colour
    if len(commands) > MOST_BARS:
        edges = np.linspace(0.0, max(cycles, 1.0), BINS + 1)
        share = overlap(start, end, edges)
        return [Lane(f"{unit} ({len(commands):,} commands)", _bars(share, edges, kind))]
    rows: list[list[Bar]] = []
    for index in np.argsort(start, kind="stable"):
        row = next((r for r in rows if r[-1].end <= start[index]), None)
        if row is None:
            rows.append(row := [])
        shade = SHADES[len(row) % 2]
        name = Opcode(int(commands["op"][index])).name.lower()
        row.append(Bar(float(start[index]), float(end[index]), kind, shade, name))
    return [Lane(unit if i == 0 else f"{unit}, {i + 1} at once", tuple(row)) for i, row in enumerate(rows)]
