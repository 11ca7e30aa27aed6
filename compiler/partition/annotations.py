"""ONNX's multi-device annotations as layouts over a mesh, and a split as such annotations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mtia_emu.errors import UserError, refuse_unknown

from ..devices import DeviceConfiguration, NodeDevices, Sharding
from ..graph import Graph, Node
from ..ops.collectives import COLLECTIVES
from ..ops.layout import Axes, Layout
from .asked import Asked
from .mesh import CUTS, Mesh, parse_parallel
from .propagate import Split
from .stages import PipelineStage, common_nodes, stage_of

JOINT = "/"  # between the parts of a mesh in the name of a configuration that we write


class _Unlike(Exception):
    """A tensor lies as no layout over a mesh does."""


@dataclass(frozen=True)
class Annotations:
    """A graph with the configuration of its file that is meant, over a mesh."""

    graph: Graph
    configuration: DeviceConfiguration
    mesh: Mesh

    @cached_property
    def asked(self) -> Asked:
        """Return the layouts and stages that are asked for; raise `UserError` for what no mesh can do.

        What the graph no longer has as the file has it, since passes made something else of it, is passed
        over.
        """
        operands, results = dict[tuple[str, str], Layout](), dict[tuple[str, str], Layout]()
        stages = dict[str, int]()
        for node in self.graph.nodes:
            said = self._said(node)
            if said is None:
                continue
            for kept, values in ((operands, node.inputs), (results, node.outputs)):
                for value in values:
                    if value in said.tensors:
                        kept[node.name, value] = self._layout(said, value)
            if said.stage is not None and self.mesh.stages > 1:
                stages[node.name] = said.stage
        return Asked(operands, results, stages, frozenset(self.mesh.axes("mb")))

    @cached_property
    def _nodes(self) -> tuple[Mapping[str, NodeDevices], Mapping[str, NodeDevices]]:
        nodes = self.configuration.nodes
        return {n.name: n for n in nodes if n.name}, {v: n for n in nodes for v in n.outputs}

    def _said(self, node: Node) -> NodeDevices | None:
        """Return what is said of the ONNX node that a node comes from."""
        by_name, by_output = self._nodes
        found = by_name.get(node.origin or node.name)
        return found or next((by_output[v] for v in node.outputs if v in by_output), None)

    def _layout(self, said: NodeDevices, value: str) -> Layout:
        """Return a tensor's layout. Raises `UserError` where it is none, `_Unlike` where another mesh may."""
        sharding, kind = said.tensors[value], self.graph.type_of(value)
        where = f"configuration {self.configuration.name}: %{value} : {kind}"
        shards = [1] * kind.rank
        for axis, count in sharding.shards.items():
            if not -kind.rank <= axis < kind.rank:
                raise UserError(f"{where} has no axis {axis} (right: {-kind.rank} to {kind.rank - 1})")
            shards[axis] *= count
            if kind.shape[axis] % shards[axis]:
                raise UserError(
                    f"{where}: axis {axis} does not divide among {shards[axis]} shards (right: a count that "
                    f"divides {kind.shape[axis]})"
                )
        spots = self._spots(sharding, said.stage or 0, shards, where)
        left = list(self.mesh.counts)
        return Layout(tuple(self._axes(spots, dim, count, left) for dim, count in enumerate(shards)))

    def _spots(self, sharding: Sharding, stage: int, shards: list[int], where: str) -> list[tuple[int, ...]]:
        """Return the shard that each rank of a stage has, by its coordinates."""
        own = [self.mesh.chip(stage, rank) for rank in range(len(self.mesh.ranks))]
        devices = sorted(set(own))
        holders = sharding.holders or tuple((d,) for d in devices)
        if sharding.holders and sorted(d for group in holders for d in group) != devices:
            raise UserError(
                f"{where} lies on devices {_some(d for g in holders for d in g)}, stage {stage} runs on "
                f"{_some(devices)} (right: all of these, one shard each or in groups)"
            )
        at: dict[int, tuple[int, ...]] = {}
        if math.prod(shards) == 1:
            return [(0,) * len(shards)] * len(own)
        if len(holders) != math.prod(shards):
            raise UserError(f"{where}: {len(holders)} holders of {math.prod(shards)} shards (right: equal)")
        for spot, group in zip(itertools.product(*map(range, shards)), holders, strict=True):
            at |= dict.fromkeys(group, spot)
        return [at[chip] for chip in own]

    def _axes(self, spots: list[tuple[int, ...]], dim: int, count: int, left: list[str]) -> Axes:
        """Return the axes that split a dimension, the slowest first, and take them out of those left."""
        taken: Axes = ()
        within = count
        while within > 1:
            for axis in left:
                size = self.mesh.counts[axis]
                places = (place[axis] for place in self.mesh.ranks)
                if within % size == 0 and all(
                    spot[dim] // (within // size) % size == at for spot, at in zip(spots, places, strict=True)
                ):
                    taken, within = (*taken, axis), within // size
                    left.remove(axis)
                    break
            else:
                raise _Unlike
        return taken


def _some(devices: Iterator[int] | list[int]) -> str:
    numbers = sorted(devices)
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def configuration_of(graph: Graph, name: str, chips: int) -> DeviceConfiguration:
    """Return the configuration of a name; with "" the largest for at most so many chips.

    Raises `UserError` where there is none, and for what is wrong with it.
    """
    found, file = graph.devices, f"--parallel onnx: {graph.name}"
    if not found:
        raise UserError(f"{file} has no annotations for many devices (right: tp=2, or another split)")
    if name and name not in [c.name for c in found]:
        raise refuse_unknown("configuration of --parallel onnx", name, [c.name for c in found])
    fits = [c for c in found if (c.name == name if name else c.fault or c.devices <= chips)]
    if not fits:
        least = min(c.devices for c in found)
        raise UserError(f"{file} is annotated for {least} devices or more, there are {chips}")
    best = max(fits, key=lambda c: c.devices)
    if best.fault:
        raise UserError(f"--parallel onnx: {best.fault}")
    return best


def annotated(graph: Graph, mesh: Mesh, chips: int) -> Annotations:
    """Return a graph's annotations over the mesh that they are of.

    That is the one asked for where it has sizes, else the one that the configuration's name spells, as we
    write it, else the first of a few over which all tensors have a layout. Raises `UserError` where there is
    none.
    """
    found = configuration_of(graph, mesh.onnx or "", chips)
    if mesh.chips > 1 or (mesh.batches > 1 and found.devices == 1):
        if mesh.chips != found.devices:
            raise UserError(
                f"--parallel {mesh}: configuration {found.name} is of {found.devices} devices, not "
                f"{mesh.chips} (right: sizes that come to it, or none)"
            )
        tried = [mesh]
    else:
        tried = [_like(m, mesh) for m in _meshes(graph, found)]
    for each in tried:
        made = Annotations(graph, found, replace(each, onnx=found.name))
        try:
            _ = made.asked
        except _Unlike:
            continue
        return made
    raise UserError(
        f"--parallel onnx: configuration {found.name} has tensors in shards that no mesh of {found.devices} "
        "devices gives (right: shards in order along one axis or two)"
    )


def annotated_sized(graph: Graph, mesh: Mesh) -> Annotations:
    """Return a graph's annotations over a mesh that has its sizes already; raise `UserError` for another."""
    found = annotated(graph, mesh, mesh.chips)
    if found.mesh.sizes != mesh.sizes:
        raise UserError(
            f"--parallel {mesh} has no sizes here, the file's annotations are of {found.mesh.chips} devices "
            f"(right: {found.mesh})"
        )
    return found


def _like(mesh: Mesh, asked: Mesh) -> Mesh:
    """Return a mesh with what is asked for besides sizes of axes; stages are cut as nodes are annotated."""
    mesh = replace(mesh, cut=CUTS[0])
    if asked.batches > 1:
        mesh = replace(mesh, sizes={**mesh.sizes, "mb": asked.batches})
    return replace(mesh, bucket=asked.bucket or mesh.bucket, tables=asked.tables or mesh.tables)


def _meshes(graph: Graph, found: DeviceConfiguration) -> Iterator[Mesh]:
    """Yield the meshes that a configuration may be of, the likeliest first."""
    own = _spelt(found)
    if own is not None:
        yield own
        return
    stages = 1 + max((n.stage or 0 for n in found.nodes), default=0)
    each = found.devices // stages
    if each * stages != found.devices:
        raise UserError(
            f"--parallel onnx: configuration {found.name} has {found.devices} devices for {stages} stages "
            "(right: as many for each)"
        )
    batch = max(
        (x.shards.get(0, 1) for n in found.nodes for v, x in n.tensors.items() if v in graph.inputs),
        default=1,
    )
    divisors = [d for d in range(1, each + 1) if each % d == 0]
    first = [(batch, 1)] if batch in divisors else []
    rest = [(d, c) for c in divisors for d in divisors if each % (d * c) == 0]
    for data, middle in dict.fromkeys([*first, (1, 1), *rest]):
        yield Mesh({"pp": stages, "dp": data, "cp": middle, "tp": each // (data * middle)})


def _spelt(found: DeviceConfiguration) -> Mesh | None:
    """Return the mesh that the name of a configuration spells, as those do that we write."""
    try:
        mesh = parse_parallel(found.name.replace(JOINT, ","))
    except UserError:
        return None
    return mesh if mesh.chips == found.devices and mesh.onnx is None else None


def annotated_stages(split: Split, stages: Mapping[str, int]) -> tuple[PipelineStage, ...]:
    """Return a split graph in the stages that its nodes are annotated for.

    A node of which nothing is said runs with what it reads, an exchange with what reads it. Raises
    `UserError` for a node that reads what a later stage makes, and for a stage without nodes.
    """
    common, numbers = common_nodes(split), dict[str, int]()
    makers = {v: node.name for node in split.nodes for v in node.outputs}
    for node in split.nodes:
        if node.name not in common:
            before = [numbers[makers[v]] for v in node.inputs if makers.get(v) in numbers]
            numbers[node.name] = stages.get(node.name, max(before, default=0))
    first: dict[str, int] = {}  # of a value, the stage of what reads it first
    for node in reversed(split.nodes):
        if node.op in COLLECTIVES or node.name in split.cuts:
            numbers[node.name] = first.get(node.output, numbers[node.name])
        for value in node.inputs:
            if node.name in numbers:
                first[value] = min(numbers[node.name], first.get(value, numbers[node.name]))
    for node in split.nodes:
        for value in node.inputs:
            maker = makers.get(value)
            if node.name in numbers and numbers.get(maker or "", 0) > numbers[node.name]:
                raise UserError(
                    f"--parallel {split.mesh}: stages go in a circle: {node.op} {node.origin or node.name} "
                    f"of stage {numbers[node.name]} reads %{value}, which stage {numbers[maker or '']} makes "
                    "(right: a node's stage is no earlier than those of what it reads)"
                )
    count = split.mesh.stages
    for stage in range(count):
        if stage not in numbers.values():
            raise UserError(f"--parallel {split.mesh}: no node is annotated for stage {stage} of {count}")
    return tuple(stage_of(split, numbers, common, stage) for stage in range(count))


def described(
    split: Split, stages: Sequence[PipelineStage], onnx: Sequence[NodeDevices]
) -> DeviceConfiguration:
    """Return a split as a configuration: how the tensors of each ONNX node lie, and its stage.

    `onnx` are the ONNX nodes by name, with the tensors that each reads or makes and nothing said of them. A
    sum that is owed has no words in ONNX: of such a result nothing is said.
    """
    mesh = split.mesh
    numbers = {node.name: s for s, stage in reversed(list(enumerate(stages))) for node in stage.nodes}
    by_origin: dict[str, list[Node]] = {}
    for node in split.graph.nodes:
        for key in {node.origin or node.name, *node.outputs}:
            by_origin.setdefault(key, []).append(node)
    said = []
    for each in onnx:
        keys = [each.name] if each.name in by_origin else list(each.outputs)
        own = [node for key in keys for node in by_origin.get(key, [])]
        stage = min((numbers[n.name] for n in own if n.name in numbers), default=0)
        lie = {v: _lies(split, own, v) for v in each.tensors}
        tensors = {v: _sharding(mesh, stage, x) for v, x in lie.items() if x is not None and not x.sums}
        if own:
            said.append(NodeDevices(each.name, each.outputs, tensors, stage if mesh.stages > 1 else None))
    name = str(replace(mesh, onnx=None)).replace(",", JOINT)
    return DeviceConfiguration(name, mesh.chips, tuple(said))


def _lies(split: Split, nodes: Sequence[Node], value: str) -> Layout | None:
    """Return how a value lies where one of some nodes makes or reads it; None where none does."""
    found = [
        known[n.name, value] for known in (split.made, split.read) for n in nodes if (n.name, value) in known
    ]
    return found[0] if found else None


def _sharding(mesh: Mesh, stage: int, layout: Layout) -> Sharding:
    """Return a layout as the shards of each dimension and the devices that have each."""
    batches = set(mesh.axes("mb"))
    dims = [tuple(a for a in axes if a not in batches) for axes in layout.dims]
    counts = [math.prod(mesh.counts[a] for a in axes) for axes in dims]
    holders: dict[tuple[int, ...], list[int]] = {s: [] for s in itertools.product(*map(range, counts))}
    for rank, place in enumerate(mesh.ranks):
        chip = mesh.chip(stage, rank)
        spot = tuple(mesh.index(place, axes) for axes in dims)
        if chip not in holders[spot]:
            holders[spot].append(chip)
    shards = {dim: count for dim, count in enumerate(counts) if count > 1}
    return Sharding(shards, tuple(tuple(sorted(group)) for group in holders.values()))
