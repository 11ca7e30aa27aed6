"""The graph of a model: nodes, constants, and the one class that edits the edges between them.

A `Graph` is a value: passes make new ones. Edges are derived from the operands of the nodes, so operands and
edges cannot disagree; `Graph.network` is the networkx form from which order and reachability come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from mtia_emu.errors import UserError, nearest
from mtia_emu.types import TensorType

from .devices import DeviceConfiguration
from .nodes import Attr, Attrs, Const, Loader, Node, freeze_attrs
from .rewrite import Draft, Match, Rewrite, Rule, RuleOutcome, Skip, rule_name

if TYPE_CHECKING:
    import networkx as nx

__all__ = [
    "Attr",
    "Attrs",
    "Const",
    "Graph",
    "Loader",
    "Match",
    "Node",
    "Rewrite",
    "Rule",
    "RuleOutcome",
    "Skip",
    "freeze_attrs",
]


class Graph:
    """A checked graph: nodes in topological order, every value defined once with one static type.

    `notes` are what whoever made it has to say to the user of the model. `states` are the values that live in
    place: of an output the input whose next value it is, and in whose memory it lies (weights, the moments of
    an optimiser, caches). Raises `UserError` for a value or node named twice, an operand that nothing
    defines, and a cycle.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[Node],
        inputs: Mapping[str, TensorType],
        outputs: Iterable[str],
        consts: Mapping[str, Const] | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.inputs: Mapping[str, TensorType] = MappingProxyType(dict(inputs))
        self.outputs = tuple(outputs)
        self.consts: Mapping[str, Const] = MappingProxyType(dict(consts or {}))
        self.notes = tuple(notes)
        self.states: Mapping[str, str] = MappingProxyType({})
        self.devices: tuple[DeviceConfiguration, ...] = ()
        given = tuple(nodes)
        self._types, self._producers = _definitions(given, self.inputs, self.consts)
        self._check_uses(given)
        self.nodes: tuple[Node, ...] = given if self._in_order(given) else self._sorted(given)
        self._fresh = 0

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} nodes>"

    def _check_uses(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            for value in node.inputs:
                if value and value not in self._types:
                    raise UserError(
                        f"{node.op} {node.name}: operand %{value} is not defined anywhere in the graph"
                        f"{nearest(value, self._types)}"
                    )
        for value in self.outputs:
            if value not in self._types:
                raise UserError(
                    f"graph {self.name}: output %{value} is not defined anywhere in the graph"
                    f"{nearest(value, self._types)}"
                )

    def _in_order(self, nodes: tuple[Node, ...]) -> bool:
        seen = set(self.inputs) | set(self.consts) | {""}
        for node in nodes:
            if not seen.issuperset(node.inputs):
                return False
            seen.update(node.outputs)
        return True

    def _sorted(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        import networkx as nx  # here and below: few graphs come out of order, few are asked for their edges

        network = _network(nodes, self._producers)
        place = {node.name: i for i, node in enumerate(nodes)}
        try:
            names = list(nx.lexicographical_topological_sort(network, key=place.__getitem__))
        except nx.NetworkXUnfeasible:
            cycle = " -> ".join(edge[0] for edge in nx.find_cycle(network))
            raise UserError(f"graph {self.name} has a cycle: {cycle} -> ...") from None
        return tuple(nodes[place[name]] for name in names)

    @cached_property
    def network(self) -> nx.MultiDiGraph:
        """Return the networkx form: node names with attribute `node`; edges keyed by operand position."""
        return _network(self.nodes, self._producers)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Return the nodes by name."""
        return MappingProxyType({node.name: node for node in self.nodes})

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Return the place of each node in their order, by name."""
        return MappingProxyType({node.name: place for place, node in enumerate(self.nodes)})

    @cached_property
    def _users(self) -> dict[str, list[tuple[Node, int]]]:
        return _uses(self.nodes)

    def has(self, value: str) -> bool:
        """Return whether a value of that name is defined."""
        return value in self._types

    def type_of(self, value: str) -> TensorType:
        """Return the type of a value; raise `UserError` when there is no such value."""
        if value not in self._types:
            raise UserError(f"graph {self.name} has no value %{value}")
        return self._types[value]

    def producer(self, value: str) -> Node | None:
        """Return the node that makes a value, or None for an input or a constant."""
        return self._producers.get(value)

    def users(self, value: str) -> list[tuple[Node, int]]:
        """Return the nodes that read a value, each with the operand position."""
        return self._users.get(value, [])

    def const(self, value: str) -> Const | None:
        """Return the constant of that name, or None when the value is not one."""
        return self.consts.get(value)

    def before(self, node: str) -> set[str]:
        """Return the names of all nodes from which `node` can be reached."""
        import networkx as nx

        return nx.ancestors(self.network, node)

    def after(self, node: str) -> set[str]:
        """Return the names of all nodes that can be reached from `node`."""
        import networkx as nx

        return nx.descendants(self.network, node)

    def fresh(self, name: str) -> str:
        """Return a value name that is not taken, made from `name`; each call gives another."""
        while True:
            self._fresh += 1
            candidate = f"{name}.{self._fresh}"
            if candidate not in self._types:
                return candidate

    def with_nodes(
        self,
        nodes: Iterable[Node],
        *,
        consts: Mapping[str, Const] | None = None,
        outputs: Iterable[str] | None = None,
    ) -> Graph:
        """Return the graph with other nodes (and constants, outputs when given)."""
        graph = Graph(
            self.name,
            nodes,
            self.inputs,
            self.outputs if outputs is None else outputs,
            self.consts if consts is None else consts,
            self.notes,
        )
        return graph.with_devices(self.devices).with_states(self.states)

    def with_notes(self, notes: Iterable[str]) -> Graph:
        """Return the graph with these notes."""
        said = tuple(notes)
        if said == self.notes:
            return self
        graph = Graph(self.name, self.nodes, self.inputs, self.outputs, self.consts, said)
        return graph.with_devices(self.devices).with_states(self.states)

    def with_states(self, states: Mapping[str, str]) -> Graph:
        """Return the graph with these states: of outputs, the inputs in whose memory they lie.

        Those whose input or output the graph does not have are left out.
        """
        here = {new: old for new, old in states.items() if new in self.outputs and old in self.inputs}
        if here == self.states:
            return self
        graph = copy(self)
        graph.states = MappingProxyType(here)
        return graph

    def with_devices(self, devices: tuple[DeviceConfiguration, ...]) -> Graph:
        """Return the graph with these ways to spread it over devices, which its file has."""
        if devices == self.devices:
            return self
        graph = copy(self)
        graph.devices = devices
        return graph

    def state_after(self, node: Node, index: int = 0) -> str:
        """Return the output, of an input in whose memory it lies, that a node makes from that input; or "".

        It is a result of the node, and the operand of the same number. Both may be reshaped on the way: their
        elements lie as they did.
        """
        if not self.states or not node.inputs:
            return ""
        made, given = node.outputs[index], node.inputs[index]
        shaped = [user.output for user, _ in self.users(made) if user.op == "reshape"]
        before = self.producer(given)
        old = before.inputs[0] if before is not None and before.op == "reshape" else given
        return next((new for new in (made, *shaped) if self.states.get(new, "") == old), "")

    def rewrite(self, rule: Rule, log: list[RuleOutcome] | None = None) -> Graph:
        """Return the graph after offering each node, in order, to the rule once.

        What the rule did and why it skipped goes to `log`. Nodes left without a user are dropped. New nodes
        are not offered: call again for a fixed point.
        """
        draft = Draft(self)
        fired = False
        for node in self.nodes:
            current = draft.nodes.get(node.name)
            if current is None:
                continue
            answer = rule(current, Match(draft))
            if isinstance(answer, Rewrite):
                draft.apply(current, answer)
                fired = True
            if log is not None and answer is not None:
                reason = answer.reason if isinstance(answer, Skip) else ""
                log.append(RuleOutcome(current, reason, rule_name(rule)))
        return draft.finish() if fired else self

    def prune(self) -> Graph:
        """Return the graph without nodes that no output needs and constants that no node reads."""
        live = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if live.intersection(node.outputs):
                kept.append(node)
                live.update(node.inputs)
        if len(kept) == len(self.nodes) and live.issuperset(self.consts):
            return self
        consts = {k: v for k, v in self.consts.items() if k in live}
        return self.with_nodes(reversed(kept), consts=consts)


def _definitions(
    nodes: Iterable[Node], inputs: Mapping[str, TensorType], consts: Mapping[str, Const]
) -> tuple[dict[str, TensorType], dict[str, Node]]:
    """Return every value's type and every result's node; raise `UserError` for a name defined twice."""
    types = dict(inputs)
    producers: dict[str, Node] = {}
    names: set[str] = set()
    for name, const in consts.items():
        if name in types:
            raise UserError(f"value %{name} is both an input and a constant")
        types[name] = const.type
    for node in nodes:
        if node.name in names:
            raise UserError(f"two nodes are named {node.name!r}")
        names.add(node.name)
        for value, kind in zip(node.outputs, node.types, strict=True):
            if not value or value in types:
                raise UserError(
                    f"{node.op} {node.name}: value %{value} is {'defined twice' if value else 'unnamed'}"
                )
            types[value] = kind
            producers[value] = node
    return types, producers


def _uses(nodes: Iterable[Node]) -> dict[str, list[tuple[Node, int]]]:
    users: dict[str, list[tuple[Node, int]]] = {}
    for node in nodes:
        for position, value in enumerate(node.inputs):
            if value:
                users.setdefault(value, []).append((node, position))
    return users


def _network(nodes: Iterable[Node], producers: Mapping[str, Node]) -> nx.MultiDiGraph:
    import networkx as nx

    network = nx.MultiDiGraph()
    nodes = tuple(nodes)
    network.add_nodes_from((node.name, {"node": node}) for node in nodes)
    network.add_edges_from(
        (producers[value].name, node.name, position, {"value": value})
        for node in nodes
        for position, value in enumerate(node.inputs)
        if value in producers
    )
    return network
