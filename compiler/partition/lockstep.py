"""All ranks of a split graph executed node by node, by the references of ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import ops
from ..graph import Attrs, Graph, Node
from ..ops.collectives import COLLECTIVES, sent_to
from .propagate import Split
from .ranks import joined, part_of, rank_graph
from .stages import PipelineStage

Arrays = dict[int, np.ndarray]


def evaluate_split(
    split: Split, inputs: Mapping[str, np.ndarray], stages: Sequence[PipelineStage] = ()
) -> dict[str, np.ndarray]:
    """Return a split graph's outputs by name, whole, from whole inputs.

    With `stages` one runs after another, and a stage knows only what the model and earlier ones give it.
    """
    mesh = split.mesh
    held: list[dict[str, np.ndarray]] = [
        {name: part_of(np.asarray(inputs[name]), x, place, mesh) for name, x in split.inputs.items()}
        for place in mesh.ranks
    ]
    sent = tuple(dict.fromkeys(v for stage in stages for v in stage.received))
    for stage in stages or (None,):
        graphs = [rank_graph(split, rank, stage, sent) for rank in range(len(mesh.ranks))]
        values = stepped(split, graphs, held)
        for known, graph, made in zip(held, graphs, values, strict=True):
            known.update({name: made[name] for name in graph.outputs})
    return {
        name: joined({rank: known[local] for rank, known in enumerate(held)}, layout, mesh)
        for name, (local, layout) in split.outputs.items()
    }


def stepped(
    split: Split, graphs: Sequence[Graph], held: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Return all values of the graphs of all ranks, given those of their inputs."""
    values = [
        {name: known[name] for name in graph.inputs}
        | {name: const.array(name) for name, const in graph.consts.items()}
        for known, graph in zip(held, graphs, strict=True)
    ]
    own = [{node.name: node for node in graph.nodes} for graph in graphs]
    names = dict.fromkeys(node.name for node in split.nodes if any(node.name in nodes for nodes in own))
    for name in names:
        _step(split, [nodes.get(name) for nodes in own], values)
    return values


def _step(split: Split, nodes: Sequence[Node | None], values: list[dict[str, np.ndarray]]) -> None:
    """Run one node on every rank that has it."""
    first = next(node for node in nodes if node is not None)
    if first.op in COLLECTIVES:
        for place in split.mesh.ranks:
            group = split.mesh.group(place, first.attrs["axes"])
            if split.mesh.number(place) == group[0]:
                each = [node.inputs if (node := nodes[r]) is not None else () for r in group]
                given = [[values[r][v] for v in names] for r, names in zip(group, each, strict=True)]
                parts = combined(first.op, given, first.attrs)
                for rank, part in zip(group, parts, strict=True):
                    values[rank][first.output] = part
        return
    for node, known in zip(nodes, values, strict=True):
        if node is None:
            continue
        results = ops.reference(node.op, [known[v] if v else None for v in node.inputs], node.attrs)
        known.update(zip(node.outputs, results, strict=True))


def combined(op: str, given: Sequence[Sequence[np.ndarray]], attrs: Attrs) -> list[np.ndarray]:
    """Return what each rank of a group gets in a collective, from what each gives, in the order of ranks."""
    count, parts = len(given), [arrays[0] for arrays in given]
    if op == "collect":
        owner = attrs["owner"]
        nothing = np.zeros(1, parts[0].dtype)
        return [np.concatenate(parts, axis=attrs["dim"]) if r == owner else nothing for r in range(count)]
    if op == "spread":
        number = attrs["parts"]
        cut = np.split(parts[attrs["owner"]], number, axis=attrs["dim"])
        return [cut[r % number].copy() for r in range(count)]  # the owner goes on to change its own
    if op == "dispatch":
        return [np.concatenate([sent_to(x, chosen, r, attrs) for x, chosen in given]) for r in range(count)]
    if op in ("all_reduce", "reduce_scatter", "combine"):
        wide = np.float32 if parts[0].dtype.kind not in "iu" and parts[0].dtype.itemsize < 4 else None
        total = np.sum(np.stack(parts), axis=0, dtype=wide).astype(parts[0].dtype)
        if op == "all_reduce":
            return [total] * count
        return [np.ascontiguousarray(x) for x in np.split(total, count, axis=attrs["dim"])]
    if op == "all_gather":
        return [np.concatenate(parts, axis=attrs["dim"])] * count
    pieces = [np.split(x, count, axis=attrs["dim"]) for x in parts]
    return [np.concatenate([pieces[r][i] for r in range(count)], axis=attrs["join"]) for i in range(count)]
