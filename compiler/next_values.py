"""Which output of a graph is the next value of which input: that which arithmetic on elements makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from mtia_emu.machine.units.simd import FUNCTIONS

from .graph import Graph, Node

MOVES = (
    "reshape",
    "transpose",
    "slice",
    "concat",
    "expand",
    "copy",
    "gather",
)  # results are operands' elements
ELEMENT_BY_ELEMENT = (*FUNCTIONS, *MOVES, "cast", "scatter_rows")


def made_by_element(graph: Graph, value: str) -> list[Node]:
    """Return the nodes that make a value, back to what sums many; each behind those that read it."""
    makes, way, pending = {value}, dict[str, Node](), [value]
    while pending:
        node = graph.producer(pending.pop())
        if node is None or node.name in way or node.op not in ELEMENT_BY_ELEMENT:
            continue
        way[node.name] = node
        pending += [v for v in node.inputs if v and v not in makes]
        makes.update(node.inputs)
    place = graph.places
    return sorted(way.values(), key=lambda node: -place[node.name])


def computed_from(way: list[Node], source: str) -> set[str]:
    """Return the results on a way that arithmetic makes of a value: what only moves it is none of them."""
    reached, changed = {source}, set[str]()
    for node in reversed(way):
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
            changed.update(node.outputs if _computes(node) or changed.intersection(node.inputs) else ())
    return changed


def _computes(node: Node) -> bool:
    """Return whether results are other numbers than the operands."""
    if node.op == "scatter_rows":
        return node.attrs.get("reduction", "none") == "add"
    return node.op in FUNCTIONS and node.op != "where"


def next_values(graph: Graph) -> Mapping[str, str]:
    """Return of outputs the inputs whose next values they are, where a graph looks like a training step.

    It does where an output of one float, the loss, depends on an input, and another output of that input's
    type is made of it by arithmetic on elements and of its gradient as well: a parameter. What such an
    output is made of in the same way, and has a next value too, is the state of an optimiser. An output that
    could follow several inputs, which no other output leaves it one of, is none. A loss that could follow an
    input itself is none.
    """
    return _Step(graph).found()


class _Step:
    """A graph that may be a training step."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        floats = [v for v in graph.outputs if graph.type_of(v).dtype.is_float]
        sums = [v for v in floats if graph.type_of(v).size == 1 and self._summed(v)]
        self.losses = [v for v in sums if not self._candidates(v)]
        self.others = [v for v in floats if v not in self.losses]
        self.bits = {name: 1 << place for place, name in enumerate(graph.inputs)}

    def found(self) -> dict[str, str]:
        """Return of outputs the inputs that they follow."""
        if not self.losses or not self.others:
            return {}
        loss_needs = self._needs(self.losses)
        others = sorted(self.others, key=lambda new: len(made_by_element(self.graph, new)))
        may = {new: olds for new in others if (olds := self._candidates(new)) and new not in loss_needs}
        trained = {old for olds in may.values() for old in olds if old in loss_needs}
        pairs = _paired(may, trained)
        weights = {new for new, old in pairs.items() if old in trained and self._fed_back(new, old)}
        made_of = {v for new in weights for node in made_by_element(self.graph, new) for v in node.inputs}
        return {new: old for new, old in pairs.items() if new in weights or old in made_of}

    def _summed(self, value: str) -> bool:
        """Return whether a value comes from more than arithmetic on elements."""
        return any(self.graph.producer(v) is not None for v in self._leaves(value))

    def _leaves(self, value: str) -> set[str]:
        """Return the values from which arithmetic on elements makes another."""
        way = made_by_element(self.graph, value)
        return {value, *(v for n in way for v in n.inputs if v)} - {v for n in way for v in n.outputs}

    def _candidates(self, new: str) -> list[str]:
        """Return the inputs that an output could follow."""
        way, kind = made_by_element(self.graph, new), self.graph.type_of(new)
        leaves = [
            v for v in sorted(self._leaves(new)) if v in self.graph.inputs and self.graph.type_of(v) == kind
        ]
        return [old for old in leaves if new in computed_from(way, old)]

    def _needs(self, values: list[str]) -> set[str]:
        """Return all values that these depend on, themselves among them."""
        needs, pending = set(values), list(values)
        while pending:
            node = self.graph.producer(pending.pop())
            new = set() if node is None else {v for v in node.inputs if v} - needs
            needs |= new
            pending += new
        return needs

    @cached_property
    def _inputs_of(self) -> dict[str, int]:
        """Return of each value the inputs that it depends on, as bits."""
        depends = dict(self.bits)
        for node in self.graph.nodes:
            bits = 0
            for value in node.inputs:
                bits |= depends.get(value, 0)
            depends |= dict.fromkeys(node.outputs, bits)
        return depends

    def _fed_back(self, new: str, old: str) -> bool:
        """Return whether an output depends on an input by more than arithmetic on elements: its gradient."""
        leaves = (v for v in self._leaves(new) if v != old)
        return any(self._inputs_of.get(v, 0) & self.bits[old] for v in leaves)


def _paired(may: Mapping[str, list[str]], trained: set[str]) -> dict[str, str]:
    """Return one input for each output that is left with one, given those that each could follow in order.

    A momentum with decay is made of the weight too, and a next weight of all its states: where several are
    left, the output that takes the fewest nodes follows what is no weight.
    """
    pairs = _eliminated(may, {})
    for new in may:
        states = [v for v in may[new] if v not in pairs.values() and v not in trained]
        if new not in pairs and len(states) == 1:
            pairs = _eliminated(may, {**pairs, new: states[0]})
    return pairs


def _eliminated(may: Mapping[str, list[str]], pairs: dict[str, str]) -> dict[str, str]:
    """Return the pairs with those of outputs that they leave a single input."""
    pairs, taken, waiting = dict(pairs), set(pairs.values()), [new for new in may if new not in pairs]
    readers: dict[str, list[str]] = {}
    for new in waiting:
        for old in may[new]:
            readers.setdefault(old, []).append(new)
    while waiting:
        new = waiting.pop()
        free = [v for v in may[new] if v not in taken]
        if new not in pairs and len(free) == 1:
            pairs[new] = free[0]
            taken.add(free[0])
            waiting += readers[free[0]]
    return pairs
