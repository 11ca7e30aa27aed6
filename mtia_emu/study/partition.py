"""A model split over a mesh, a graph for each rank of each stage; and what its ranks exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.partition.annotations import annotated_sized, annotated_stages
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import Split, propagate
from mtia_emu.compiler.partition.ranks import rank_graph
from mtia_emu.compiler.partition.stages import PipelineStage, stages, weights
from mtia_emu.compiler.partition.tables import TablePlace
from mtia_emu.compiler.partition.unpack import unpacked

from ..system.collectives import Collective, CollectiveTime
from ..system.together import timed_together
from ..system.topology import System


@dataclass(frozen=True)
class Partition:
    """A graph split over a mesh: its stages, and the graph of each rank."""

    split: Split
    stages: tuple[PipelineStage, ...]

    @property
    def mesh(self) -> Mesh:
        """Return the mesh."""
        return self.split.mesh

    @cached_property
    def sent(self) -> tuple[tuple[str, ...], ...]:
        """Return what each stage gives to later ones, by value."""
        return tuple(
            tuple(dict.fromkeys(v for s in self.stages for v, at in s.received.items() if at == number))
            for number in range(len(self.stages))
        )

    def graph(self, stage: int, rank: int) -> Graph:
        """Return the graph of a rank in a stage."""
        whole = len(self.stages) == 1
        return rank_graph(self.split, rank, self.stages[stage], () if whole else self.sent[stage])

    def sent_bytes(self, stage: int) -> int:
        """Return the bytes that a rank of a stage sends to the next: what it gives, or passes on."""
        passed = {v for s in self.stages[stage + 1 :] for v, at in s.received.items() if at <= stage}
        return sum(self.split.types[v].bytes for v in passed)


def balanced(parts: Partition, seconds: Sequence[float]) -> Partition:
    """Return a partition cut anew where stages took so long: a byte of weights takes what its stage's do."""
    bytes_, weighs = weights(parts.split), dict[str, float]()
    for stage, took in zip(parts.stages, seconds, strict=True):
        own = [node.name for node in stage.nodes if bytes_[node.name]]
        each = took / sum(bytes_[name] for name in own)
        weighs |= {name: bytes_[name] * each for name in own}
    every = {name: weighs.get(name, 0.0) for name in bytes_}
    return Partition(parts.split, stages(parts.split, len(parts.stages), every))


Places = Mapping[str, TablePlace]


def partition(graph: Graph, mesh: Mesh, places: Places | None = None) -> Partition:
    """Return a graph split over a mesh, cut into its stages, its tables at `places` where these are given.

    Raises `UserError` where it cannot be.
    """
    return partition_prepared(prepared(graph), mesh, places)


def partition_prepared(graph: Graph, mesh: Mesh, places: Places | None = None) -> Partition:
    """Return the same of a graph that is `prepared`, as when several meshes are tried."""
    ready = unpacked(graph) if mesh.sizes["tp"] > 1 else graph
    asked = None if mesh.onnx is None else annotated_sized(ready, mesh).asked
    split = propagate(ready, mesh, places=places, asked=asked)
    if asked is not None and asked.stages:
        return Partition(split, annotated_stages(split, asked.stages))
    return Partition(split, stages(split, mesh.stages))


ALIKE = {"dispatch": "all_gather", "combine": "reduce_scatter"}  # the exchange of all rows


def exchanged_bytes(op: str, operand: int, size: int) -> int:
    """Return the bytes of an exchange as nccl-tests counts them, from those of a rank's operand.

    Of rows that are sent to experts they are those of all rows, as if each went everywhere.
    """
    return operand * size if op in ("all_gather", "dispatch") else operand


@dataclass(frozen=True)
class Exchanges:
    """What exchanges take on a system: each group of ranks that meets at once is a collective of its own.

    The slowest group counts; where groups share a link, as between servers, they share its rate.
    """

    system: System
    mesh: Mesh

    def groups(self, stage: int, axes: tuple[str, ...]) -> list[tuple[int, ...]]:
        """Return the chips of each group along axes, in the order of ranks."""
        found = {
            tuple(self.mesh.chip(stage, rank) for rank in self.mesh.group(place, axes))
            for place in self.mesh.ranks
        }
        return sorted(found)

    def time(self, stage: int, op: str, axes: tuple[str, ...], size: int) -> tuple[CollectiveTime, int]:
        """Return what an exchange of so many bytes takes in a stage, and how many groups meet at once."""
        groups = self._distinct(stage, axes)
        return timed_together(self.system, [Collective(op, size, group) for group in groups]), len(groups)

    def routed(
        self, stage: int, op: str, axes: tuple[str, ...], size: int, shares: Sequence[float]
    ) -> tuple[CollectiveTime, int]:
        """Return the same of rows sent to experts or back, of which a share goes to each rank of a group.

        Rows go by an all-to-all of uneven parts, or all of them to all by what is gathered or summed alike;
        the faster is taken.
        """
        groups, each = self._distinct(stage, axes), size / len(shares)
        sent = [[each * share * (i != j) for j, share in enumerate(shares)] for i in range(len(shares))]
        matrix = tuple(map(tuple, sent if op == "dispatch" else zip(*sent, strict=True)))
        uneven = [Collective("all_to_all", 0.0, group, matrix) for group in groups]
        ways = (timed_together(self.system, uneven), self.time(stage, ALIKE[op], axes, size)[0])
        return min(ways, key=lambda t: t.seconds), len(groups)

    def placed(
        self, stage: int, op: str, axes: tuple[str, ...], parts: Sequence[tuple[int, int]]
    ) -> tuple[CollectiveTime, int]:
        """Return the same of what goes to the holders of tables, or comes from them, all at once.

        `parts` are (the holder's place in a group, bytes between it and each other rank), table by table.
        """
        groups = self._distinct(stage, axes)
        each = [
            float(sum(size for owner, size in parts if owner == place)) for place in range(len(groups[0]))
        ]
        sent = [[size * (i != j) for j, size in enumerate(each)] for i in range(len(each))]
        matrix = tuple(map(tuple, sent if op == "collect" else zip(*sent, strict=True)))
        return timed_together(self.system, [Collective("all_to_all", 0.0, g, matrix) for g in groups]), len(
            groups
        )

    def send(self, stage: int, size: int, to: int | None = None) -> CollectiveTime:
        """Return what the chips of a stage take to send so many bytes each, all at once.

        They go to those of the next stage, or of another one.
        """
        ranks, behind = range(len(self.mesh.ranks)), stage + 1 if to is None else to
        pairs = {(self.mesh.chip(stage, r), self.mesh.chip(behind, r)) for r in ranks}
        return timed_together(self.system, [Collective("send", size, pair) for pair in sorted(pairs)])

    def between(self, sizes: Mapping[tuple[int, int], int]) -> CollectiveTime | None:
        """Return what stages take to give one another bytes, all at once; None where no chip gives any.

        `sizes` are those that a rank of the first stage gives to one of the second.
        """
        count, ranks = self.mesh.sizes["pp"], range(len(self.mesh.ranks))
        matrix = [[0.0] * count for _ in range(count)]
        for (source, target), size in sizes.items():
            if source % count != target % count:
                matrix[source % count][target % count] += size
        if not any(map(any, matrix)):
            return None
        groups = {tuple(self.mesh.chip(stage, r) for stage in range(count)) for r in ranks}
        sent = tuple(map(tuple, matrix))
        return timed_together(self.system, [Collective("all_to_all", 0.0, g, sent) for g in sorted(groups)])

    def _distinct(self, stage: int, axes: tuple[str, ...]) -> list[tuple[int, ...]]:
        known = self._known
        if (stage, axes) not in known:
            known[stage, axes] = self.groups(stage, axes)
        return known[stage, axes]

    @cached_property
    def _known(self) -> dict[tuple[int, tuple[str, ...]], list[tuple[int, ...]]]:
        return {}
