"""Graphs on which groups of nodes are marked: what a serving runtime would run as one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

from mtia_emu.types import BagWork, ModelWork, Work, WorkGroup

from ...graph import Graph, Match, Node
from ...ops import work
from ...rewrite import Draft


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that run as one kernel, by name in the graph's order; it runs in place of node `at`."""

    nodes: tuple[str, ...]
    at: str
    work: Work


class Flow:
    """Who writes and who reads each value, among the nodes that have work.

    A node that has none, a change of shape, is seen through: its result goes by its operand's name.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.works: dict[str, Work] = {}
        self._place = {node.name: i for i, node in enumerate(graph.nodes)}
        self._seen_as: dict[str, str] = {}
        self._readers: dict[str, list[str]] = {}
        for node in graph.nodes:
            self._add(node)
        for value in graph.outputs:
            self._readers.setdefault(self.source(value), []).append("")

    def _add(self, node: Node) -> None:
        counted = work(self.graph, node)
        inputs = [self.source(v) for v in node.inputs if v]
        if counted.macs or counted.flops or counted.read_bytes + counted.write_bytes:
            self.works[node.name] = counted
            for value in dict.fromkeys(inputs):
                self._readers.setdefault(value, []).append(node.name)
        elif inputs:
            self._seen_as |= dict.fromkeys(node.outputs, inputs[0])

    def source(self, value: str) -> str:
        """Return the value that this one is a view of; itself where it is none."""
        return self._seen_as.get(value, value)

    def sole_reader(self, node: Node) -> Node | None:
        """Return the one node that reads the one result of a node; None for several, or an output."""
        readers = self._readers.get(node.output, []) if len(node.outputs) == 1 else []
        return self.graph.by_name[readers[0]] if len(readers) == 1 and readers[0] else None

    def readers_of(self, value: str) -> set[str]:
        """Return the names of the nodes that read a value; "" is who reads an output of the graph."""
        return set(self._readers.get(value, ()))

    def readers(self, node: Node) -> set[str]:
        """Return the names of the nodes that read any result of a node; "" for an output of the graph."""
        return set().union(*map(self.readers_of, node.outputs))

    def writers(self, node: Node) -> list[Node]:
        """Return the nodes that write the operands of a node."""
        makers = (self.graph.producer(self.source(v)) for v in node.inputs if v)
        return list({maker.name: maker for maker in makers if maker is not None}.values())

    def before(self, name: str) -> set[str]:
        """Return the names of the nodes that what a node reads is made by, itself not included."""
        found, frontier = set[str](), [name]
        while frontier:
            makers = [n.name for n in self.writers(self.graph.by_name[frontier.pop()])]
            frontier += [n for n in makers if n not in found]
            found |= set(makers)
        return found

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names of nodes in the graph's order."""
        return tuple(sorted(names, key=self._place.__getitem__))


@dataclass(frozen=True)
class MarkedGraph:
    """A graph with the groups that were marked on it so far; a node is in one at most."""

    graph: Graph
    flow: Flow
    groups: tuple[NodeGroup, ...] = ()

    @cached_property
    def match(self) -> Match:
        """Return what rules may ask about the graph."""
        return Match(Draft(self.graph))

    @cached_property
    def grouped(self) -> frozenset[str]:
        """Return the names of the nodes that are in a group."""
        return frozenset(name for group in self.groups for name in group.nodes)

    @property
    def free(self) -> list[Node]:
        """Return the nodes with work that are in no group, in order."""
        return [n for n in self.graph.nodes if n.name in self.flow.works and n.name not in self.grouped]

    def with_groups(self, groups: Iterable[NodeGroup]) -> MarkedGraph:
        """Return the graph with further groups."""
        return replace(self, groups=(*self.groups, *groups))

    @property
    def asked(self) -> ModelWork:
        """Return the work of every node that has any, and the groups by the places of their works."""
        place = {name: i for i, name in enumerate(self.flow.works)}
        works = [self._beside(name, work) for name, work in self.flow.works.items()]
        groups = (WorkGroup(g.work, tuple(place[name] for name in g.nodes), place[g.at]) for g in self.groups)
        return ModelWork(tuple(works), tuple(groups))

    def _beside(self, name: str, work: Work) -> Work:
        """Return the work of a node; of a bag with how many works around it may run at the same time."""
        if not isinstance(work, BagWork):
            return work
        names = list(self.flow.works)
        at = names.index(name)
        made_of, makes = self.flow.before(name), {name}
        for other in names[at + 1 :]:
            if makes & {n.name for n in self.flow.writers(self.graph.by_name[other])}:
                makes.add(other)
        before = takewhile(lambda n: n not in made_of, reversed(names[:at]))
        behind = takewhile(lambda n: n not in makes, names[at + 1 :])
        return replace(work, before=len(list(before)), behind=len(list(behind)))


@dataclass(frozen=True)
class Marking:
    """A pass that marks groups; the graph stays as it is."""

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        """Return the graph with the groups of this pass marked too."""
        raise NotImplementedError


def mark(graph: Graph) -> MarkedGraph:
    """Return a graph on which no group is marked yet."""
    return MarkedGraph(graph, Flow(graph))
