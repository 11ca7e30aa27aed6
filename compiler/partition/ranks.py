"""The graph of one rank: a split graph's nodes, with the rank's own parts of constants and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..graph import Const, Graph, Node
from ..ops.layout import Layout
from ..ops.table_exchanges import token
from .draft import Shard
from .mesh import Mesh
from .propagate import Split
from .stages import PipelineStage

Place = Mapping[str, int]


def rank_graph(
    split: Split, rank: int, stage: PipelineStage | None = None, given: Iterable[str] = ()
) -> Graph:
    """Return the graph of a rank of a split, or of one stage of it, whose values `given` are outputs too.

    Of the model's inputs a stage has those that it reads; without one the graph has all.
    """
    place = split.mesh.ranks[rank]
    each = (_own(split, node, place) for node in (split.nodes if stage is None else stage.nodes))
    nodes = tuple(node for node in each if node is not None)
    made = {v for node in nodes for v in node.outputs}
    read = dict.fromkeys(v for node in nodes for v in node.inputs if v)
    finals = dict.fromkeys(local for local, _ in split.outputs.values())
    if stage is None:
        read |= dict.fromkeys([*split.inputs, *finals])
    else:
        finals = dict.fromkeys(v for v in [*finals, *given] if v in made)
    consts = {v: _const(split, split.shards[v], place, v) for v in read if v in split.shards}
    inputs = {v: split.types[v] for v in read if v not in made and v not in consts}
    graph = Graph(split.graph.name, nodes, inputs, finals, consts, (*split.graph.notes, *split.notes))
    states = {local: _state(split, name) for name, (local, _) in split.outputs.items()}
    return graph.with_states({local: before for local, before in states.items() if before})


def run_alike(split: Split, nodes: Iterable[Node]) -> bool:
    """Return whether all ranks have one graph of some nodes: none has a part, or a place, of its own."""
    for node in nodes:
        if node.name in split.cuts or node.name in split.holders:
            return False
        shards = [split.shards[v] for v in node.inputs if v in split.shards]
        if any(shard.axes or shard.layout.used or shard.layout.sums for shard in shards):
            return False
    return True


def _state(split: Split, output: str) -> str:
    """Return the input whose next value an output is, where both lie alike; "" where there is none."""
    before = split.graph.states.get(output, "")
    return before if before and split.inputs[before].dims == split.outputs[output][1].dims else ""


def _own(split: Split, node: Node, place: Place) -> Node | None:
    """Return a node as it is on a rank, None of one that other ranks run: it takes the rank's own part."""
    holder = split.holders.get(node.name)
    if holder is not None and split.mesh.index(place, holder.axes) != holder.owner:
        attrs = {**node.attrs, "own": False}
        if node.op == "collect":
            return replace(node, types=(token(node.type),), attrs=attrs)
        return replace(node, inputs=(holder.token,), attrs=attrs) if node.op == "spread" else None
    cut = split.cuts.get(node.name)
    if cut is None:
        return node
    axes, dim = cut
    size = node.type.shape[dim]
    at = split.mesh.index(place, axes) * size
    starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
    starts[dim], ends[dim] = at, at + size
    return replace(node, attrs={**node.attrs, "starts": tuple(starts), "ends": tuple(ends)})


def _const(split: Split, shard: Shard, place: Place, name: str) -> Const:
    """Return a rank's part of a constant."""
    kind = split.types[name]
    if not shard.source:  # a number, or the first of a rank's rows
        value = shard.rows * (split.mesh.index(place, shard.axes) if shard.axes else 1)
        return Const(kind, np.asarray(value).astype(kind.dtype.numpy))
    const = split.graph.consts[shard.source]
    if kind.shape == const.type.shape and not shard.layout.sums:
        return const
    if not const.present:
        return Const(kind, None)
    load = _loader(const, shard, place, split.mesh)
    return Const(kind, load() if const.loaded is not None else load)


def _loader(const: Const, shard: Shard, place: Place, mesh: Mesh) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        part = part_of(const.array(shard.source), shard.layout, place, mesh)
        first = not any(place[axis] for axis in shard.layout.sums)
        return part if first else np.zeros_like(part)  # of a sum that is owed, one rank has the whole

    return load


def part_of(array: np.ndarray, layout: Layout, place: Place, mesh: Mesh) -> np.ndarray:
    """Return the part of an array that lies at a place."""
    index = []
    for size, axes in zip(array.shape, layout.dims, strict=True):
        count = 1
        for axis in axes:
            count *= mesh.counts[axis]
        step = size // count
        at = mesh.index(place, axes) * step
        index.append(slice(at, at + step))
    return np.asarray(array[tuple(index)]).copy()


def joined(parts: Mapping[int, np.ndarray], layout: Layout, mesh: Mesh) -> np.ndarray:
    """Return the whole of an array from the parts of ranks, by their numbers."""
    some = next(iter(parts.values()))
    counts = [int(np.prod([mesh.counts[a] for a in axes], dtype=int)) for axes in layout.dims]
    whole = np.empty([n * c for n, c in zip(some.shape, counts, strict=True)], some.dtype)
    for rank, part in parts.items():
        place = mesh.ranks[rank]
        at = [mesh.index(place, axes) * n for axes, n in zip(layout.dims, part.shape, strict=True)]
        whole[tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))] = part
    return whole
