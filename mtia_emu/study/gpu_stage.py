"""One stage of a partitioned model on a GPU: its kernels, and its exchanges one by one between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.collectives import COLLECTIVES
from mtia_emu.compiler.passes import AppendCaches

from ..gpu import load_gpu
from ..results.report import Layer, Report, Stretch
from ..results.spans import Track
from ..results.system_use import MemoryUse, StageUse
from ..system.join import PICOSECONDS
from .accelerator import GraphModel
from .buckets import bucketed, is_bucketed
from .meetings import Meeting, exchange_uses, largest, meeting
from .partition import Exchanges, Partition, exchanged_bytes
from .rank_classes import RankClass
from .stage_time import LINKS, StageTime, links_name, stage_name


def slowest_stage(classes: Sequence[RankClass], times: Sequence[StageTime]) -> StageTime:
    """Return the time of a stage of several classes of ranks: that of the slowest, the others wait for it."""
    slowest = max(times, key=lambda t: t.report.length)
    tracks, layers = dict[Track, None](), list[Layer]()
    for c, t in zip(classes, times, strict=True):
        for layer in t.report.layers:
            links = layer.bound_by == LINKS
            if t is slowest or not links:
                track = layer.track if links else replace(layer.track, name=c.name)
                layers.append(replace(layer, track=track))
                tracks[track] = None
    stretch = Stretch(tuple(layers), slowest.report.length)
    whole = replace(slowest.report, tracks=tuple(tracks), stretches=(stretch,))
    uses = tuple(
        replace(t.uses[0], name=c.name, chips=len(c.chips)) for c, t in zip(classes, times, strict=True)
    )
    counted = tuple((len(c.chips), t.report) for c, t in zip(classes, times, strict=True))
    return replace(slowest, report=whole, uses=uses, classes=counted)


def gpu_stage(model: GraphModel, parts: Partition, stage: int, on: Exchanges) -> StageTime:
    """Return a stage's time on the GPU of the system: no exchange is hidden behind kernels."""
    gpu = load_gpu(on.system.chips[0])
    model = model.with_fused()
    graph = model.fused
    assert graph is not None
    meetings = list(_meetings(graph, stage, on))
    if is_bucketed(meetings, parts.mesh.bucket):
        meetings = bucketed(meetings, _waits(graph), on, stage, parts.mesh.bucket)
    alone = gpu.in_mode(model.options.gpu_mode).report(model)
    whole = _between(alone, graph, meetings, links_name(parts, stage))
    name, waited = stage_name(parts, stage), sum(m.time.seconds for m in meetings)
    use = StageUse(
        name,
        parts.mesh.each,
        whole.seconds,
        alone.seconds,
        waited,
        waited,
        _memory(parts, graph, largest(meetings), int(gpu.dram_bytes)),
    )
    joules = sum(m.groups * m.time.joules for m in meetings)
    idle = replace(whole.joules_by, static=whole.joules_by.static + gpu.idle_w * waited)
    found = replace(whole, joules_by=idle)
    return StageTime(found, (use,), exchange_uses(name, meetings), joules, ((use.chips, found),))


def _meetings(graph: Graph, stage: int, on: Exchanges) -> Iterator[Meeting]:
    """Yield the exchanges of a graph, by the number of their node."""
    for number, node in enumerate(graph.nodes):
        if node.op in COLLECTIVES:
            operand = graph.type_of(node.inputs[0]).bytes
            size = exchanged_bytes(node.op, operand, node.attrs["size"])
            yield meeting(on, stage, number, node.op, node.attrs, size)


def _waits(graph: Graph) -> list[list[int]]:
    """Return, of each node, the numbers of those whose results it reads."""
    made = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    return [[made[value] for value in node.inputs if value in made] for node in graph.nodes]


def _between(alone: Report, graph: Graph, meetings: Sequence[Meeting], links: str) -> Report:
    """Return a report with exchanges among its kernels: each kernel comes after all that stand before it."""
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    track, layers, shift, waiting = Track(links, PICOSECONDS), [], Fraction(0), list(meetings)
    end = Fraction(0)
    for layer in sorted(alone.layers, key=lambda x: x.start_cycle):
        at = place.get(layer.name, -1)
        while waiting and waiting[0].launch < at:
            begin = max(layer.track.exact_seconds(layer.start_cycle), end) + shift
            shift += Fraction(waiting[0].time.seconds)
            layers.append(_link_layer(graph, waiting.pop(0), track, begin))
        layers.append(layer.later(shift, 0))
        end = max(end, layer.track.exact_seconds(layer.end_cycle))
    for m in waiting:
        layers.append(_link_layer(graph, m, track, end + shift))
        shift += Fraction(m.time.seconds)
    took = alone.length + shift
    peak = alone.peak_macs * float(took) / alone.seconds if alone.seconds else 0.0
    tracks = (*alone.tracks, track) if meetings else alone.tracks
    return replace(alone, tracks=tracks, stretches=(Stretch(tuple(layers), took),), peak_macs=peak)


def _link_layer(graph: Graph, m: Meeting, track: Track, begin: Fraction) -> Layer:
    start, how = track.ticks_in(begin), f"{m.time.algorithm}, {m.time.protocol}"
    end = track.ticks_in(begin + Fraction(m.time.seconds))
    name = graph.nodes[m.launch].name
    return Layer(name, m.op, how, start, end, 0, 0, 0, 0.0, LINKS, track=track)


def _memory(parts: Partition, graph: Graph, buffers: int, capacity: int) -> MemoryUse:
    """Return what of a GPU's memory a stage takes: activations are the two largest values that it makes."""
    weights = sum(const.type.bytes for const in graph.consts.values())
    state = sum(graph.type_of(v).bytes for v in AppendCaches()(graph).states)
    made = sorted((t.bytes for node in graph.nodes for t in node.types), reverse=True)
    return MemoryUse(weights, state * parts.mesh.batches, sum(made[:2]), buffers, capacity)
