"""Weights that are shared out over chips: gathered before they are read, dropped behind, gathered again.

Stage 3 of ZeRO (Rajbhandari et al., 2020), which torch calls FSDP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..gradients.marks import BACKWARD, GATHERED, OPTIMISER, is_back
from ..graph import Graph, Node
from .propagate import Split


def with_gathers(graph: Graph, weights: Collection[str]) -> tuple[Graph, dict[str, str]]:
    """Return a training graph that reads weights through copies, and of which weight each copy is.

    The forward pass has a copy of each, the way back one of its own, right before their first readers; the
    optimiser reads weights themselves. What forward makes of weights alone (one transposed, say) is made
    again for the way back, so nothing of the first copy lives until then.
    """
    copier = _Copier(graph, set(weights))
    nodes = [node for each in graph.nodes for node in copier.around(each)]
    return graph.with_nodes(nodes), copier.copies


@dataclass
class _Copier:
    """Copies in the making. `alone` are values of the forward pass that are made of weights alone."""

    graph: Graph
    weights: set[str]
    copies: dict[str, str] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    first: dict[str, str] = field(default_factory=dict)  # what forward reads in place of a value
    again: dict[str, str] = field(default_factory=dict)  # and the way back

    def around(self, node: Node) -> Iterator[Node]:
        """Yield the copies that a node is the first to read, then the node that reads them."""
        if node.origin.endswith(OPTIMISER):
            yield node
            return
        renames = self.again if is_back(node) else self.first
        for value in dict.fromkeys(node.inputs):
            if value in self.weights or (is_back(node) and value in self.alone):
                yield from self._made(value, renames, BACKWARD if is_back(node) else "")
        own = self.weights | self.alone
        made_of_them = all(v in own or v in self.graph.consts for v in node.inputs if v)
        if not is_back(node) and own.intersection(node.inputs) and made_of_them:
            self.alone.update(node.outputs)
        yield node.renamed({v: renames[v] for v in node.inputs if v in renames})

    def _made(self, value: str, renames: dict[str, str], mark: str) -> Iterator[Node]:
        """Yield what makes a weight's copy, or again what is made of weights, where it is not there yet."""
        if value in renames:
            return
        renames[value] = name = self._fresh(f"{value}{GATHERED}")
        if value in self.weights:
            self.copies[name] = value
            kind = self.graph.type_of(value)
            yield Node(name, "copy", (value,), (name,), (kind,), {}, f"{value}{mark}")
            return
        maker = self.graph.producer(value)
        assert maker is not None
        for operand in maker.inputs:
            if operand in self.weights or operand in self.alone:
                yield from self._made(operand, renames, mark)
        outputs = tuple(renames.setdefault(v, self._fresh(f"{v}{GATHERED}")) for v in maker.outputs)
        read = {v: renames[v] for v in maker.inputs if v in renames}
        yield replace(
            maker.renamed(read),
            name=outputs[0],
            outputs=outputs,
            origin=f"{maker.origin or maker.name}{mark}",
        )

    def _fresh(self, name: str) -> str:
        taken = {*self.first.values(), *self.again.values()}
        while self.graph.has(name) or name in taken:
            name = f"{name}.2"
        return name


def without_copies(split: Split, copies: Mapping[str, str]) -> Split:
    """Return a split graph whose gathers read weights themselves, not copies of a chip's part."""
    nodes = [node.renamed(dict(copies)) for node in split.nodes if node.name not in copies]
    return replace(split, nodes=tuple(nodes))


def prefetched(nodes: Iterable[Node], weights: Collection[str], unit_bytes: int) -> tuple[Node, ...]:
    """Return nodes with each gather of weights behind the start of what reads the gathers before it.

    So weights are on their way while others are computed with, and no more of them: two units lie gathered
    at once, each of as many weights, in the order of their use, as reach `unit_bytes` together, one at least.
    """
    kept = list(nodes)
    gathers = {n.output: n for n in kept if n.op == "all_gather" and n.inputs[0] in weights}
    rest = [n for n in kept if n.output not in gathers]
    first: dict[str, int] = {}
    for index, node in enumerate(rest):
        for value in node.inputs:
            if value in gathers:
                first.setdefault(value, index)
    units, size = list[list[str]](), 0
    for value in sorted(first, key=lambda v: (first[v], v)):
        if not units or size >= max(unit_bytes, 1):
            units.append([])
            size = 0
        units[-1].append(value)
        size += gathers[value].type.bytes
    places: dict[int, list[Node]] = {}
    for before, unit in zip([units[0], *units] if units else [], units, strict=False):
        places.setdefault(first[before[0]], []).extend(gathers[v] for v in unit)
    return tuple(n for i, node in enumerate(rest) for n in (*places.get(i, ()), node))
