"""A model split over a mesh, a graph for each rank of each stage; and what its ranks exchange."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import Split, propagate
from mtia_emu.compiler.partition.ranks import rank_graph
from mtia_emu.compiler.partition.stages import PipelineStage, stages

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


def partition(graph: Graph, mesh: Mesh) -> Partition:
    """Return a graph split over a mesh, cut into its stages. Raises `UserError` where it cannot be."""
    return partition_prepared(prepared(graph), mesh)


def partition_prepared(graph: Graph, mesh: Mesh) -> Partition:
    """Return the same of a graph that is `prepared`, as when several meshes are tried."""
    split = propagate(graph, mesh)
    return Partition(split, stages(split, mesh.stages))


def exchanged_bytes(op: str, operand: int, size: int) -> int:
    """Return the bytes of an exchange as nccl-tests counts them, from those of a rank's operand."""
    return operand * size if op == "all_gather" else operand


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

    def send(self, stage: int, size: int) -> CollectiveTime:
        """Return what the chips of a stage take to send so many bytes each to the next, all at once."""
        ranks = range(len(self.mesh.ranks))
        pairs = {(self.mesh.chip(stage, r), self.mesh.chip(stage + 1, r)) for r in ranks}
        return timed_together(self.system, [Collective("send", size, pair) for pair in sorted(pairs)])

    def _distinct(self, stage: int, axes: tuple[str, ...]) -> list[tuple[int, ...]]:
        known = self._known
        if (stage, axes) not in known:
            known[stage, axes] = self.groups(stage, axes)
        return known[stage, axes]

    @cached_property
    def _known(self) -> dict[tuple[int, tuple[str, ...]], list[tuple[int, ...]]]:
        return {}
