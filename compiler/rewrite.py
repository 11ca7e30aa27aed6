"""Rules that rewrite a graph, and the draft in which their changes are made one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from .nodes import Const, Node

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class Skip:
    """A rule's answer that it does not fire on a node, and why."""

    reason: str


@dataclass(frozen=True)
class Rewrite:
    """A rule's answer: nodes and constants in place of the node, and values in place of its results.

    A result not in `renames` must be made again, under its own name, by one of `nodes`.
    """

    nodes: Sequence[Node] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    consts: Mapping[str, Const] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleOutcome:
    """What a rule did at a node: `reason` is empty where it fired; `rule` is its name."""

    node: Node
    reason: str = ""
    rule: str = ""


Rule = Callable[[Node, "Match"], "Rewrite | Skip | None"]


def rule_name(rule: Rule) -> str:
    """Return what a rule is called: its function, or the class of an object that is one."""
    while isinstance(rule, partial):
        rule = rule.func
    name = getattr(rule, "__name__", "__call__")
    if name in ("rule", "__call__"):
        name = type(getattr(rule, "__self__", rule)).__name__.lower()
    return name.strip("_")


class Draft:
    """A graph being rewritten: the same facts as `Graph`, kept up to date edit by edit."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
        self.types = dict(graph._types)
        self.producers = {value: node.name for value, node in graph._producers.items()}
        self.users: dict[str, dict[str, None]] = {}
        for node in graph.nodes:
            self._link(node)
        self.consts = dict(graph.consts)
        self.outputs = frozenset(graph.outputs)  # a rewrite leaves the names of outputs as they are
        self.place: dict[str, tuple[int, ...]] = {node.name: (i,) for i, node in enumerate(graph.nodes)}
        self._fresh = 0

    @cached_property
    def widths(self) -> dict[str, set[int]]:
        """Return the last dimensions of what nodes of each op made before the first change."""
        out: dict[str, set[int]] = {}
        for node in self.graph.nodes:
            out.setdefault(node.op, set()).update(kind.shape[-1] for kind in node.types if kind.shape)
        return out

    def _link(self, node: Node) -> None:
        for value in node.inputs:
            if value:
                self.users.setdefault(value, {})[node.name] = None

    def _unlink(self, node: Node) -> None:
        for value in node.inputs:
            if value:
                self.users[value].pop(node.name, None)

    def fresh(self, name: str) -> str:
        while True:
            self._fresh += 1
            candidate = f"{name}.{self._fresh}"
            if candidate not in self.types and candidate not in self.nodes:
                return candidate

    def apply(self, node: Node, change: Rewrite) -> None:
        """Put the change in the node's place; drop what then has no user."""
        self._remove(node)
        for name, const in change.consts.items():
            if name in self.types:
                raise UserError(f"rewriting {node.name}: constant %{name} is defined already")
            self.consts[name] = const
            self.types[name] = const.type
        for index, new in enumerate(change.nodes):
            self._add(new, (*self.place[node.name], index))
        for old, new_value in change.renames.items():
            self.rename(old, new_value)
        lost = [v for v in node.outputs if v not in self.types and (self.users.get(v) or v in self.outputs)]
        if lost:
            raise UserError(f"rewriting {node.name} ({node.op}) leaves %{lost[0]} undefined")
        self._sweep(node.inputs)

    def _remove(self, node: Node) -> None:
        del self.nodes[node.name]
        self._unlink(node)
        for value in node.outputs:
            self.types.pop(value, None)
            self.producers.pop(value, None)

    def _add(self, node: Node, place: tuple[int, ...]) -> None:
        if node.name in self.nodes:
            raise UserError(f"two nodes are named {node.name!r}")
        for value, kind in zip(node.outputs, node.types, strict=True):
            if value in self.types:
                raise UserError(f"{node.op} {node.name}: value %{value} is defined twice")
            self.types[value] = kind
            self.producers[value] = node.name
        self.nodes[node.name] = node
        self.place[node.name] = place
        self._link(node)

    def _reread(self, old: str, new: str) -> None:
        """Let all nodes that read `old` read `new`; of thousands of operands no other one is looked at."""
        readers = self.users.pop(old, {})
        for name in readers:
            node = self.nodes[name]
            self.nodes[name] = replace(node, inputs=_replaced(node.inputs, old, new))
        self.users.setdefault(new, {}).update(readers)

    def rename(self, old: str, new: str) -> None:
        """Let the users of `old` read `new`; a graph output keeps its name."""
        if old == new:
            return
        if old in self.outputs:
            self._rename_output(old, new)
            return
        self._reread(old, new)

    def _rename_output(self, old: str, new: str) -> None:
        """Make `new` known under the output's name `old`: by renaming its result, or by a copy."""
        maker = self.producers.get(new)
        if old in self.types:
            stale = self.nodes.get(self.producers.get(old, ""))
            if stale is None or len(stale.outputs) > 1:
                raise UserError(f"output %{old} cannot be replaced by %{new}")
            self._remove(stale)
        if maker is None or new in self.outputs:
            kind = self.types[new]
            name = self.fresh(f"{old}.copy")
            self._add(Node(name, "copy", (new,), (old,), (kind,)), (len(self.graph.nodes), len(self.place)))
            return
        node = self.nodes[maker]
        outputs = tuple(old if v == new else v for v in node.outputs)
        self.nodes[maker] = replace(node, outputs=outputs)
        self.types[old] = self.types.pop(new)
        self.producers.pop(new)
        self.producers[old] = maker
        self._reread(new, old)

    def _sweep(self, values: Iterable[str]) -> None:
        """Drop the nodes behind `values` whose results nobody reads any more."""
        work = list(values)
        while work:
            value = work.pop()
            maker = self.nodes.get(self.producers.get(value, ""))
            if maker is None or any(self.users.get(v) or v in self.outputs for v in maker.outputs):
                continue
            self._remove(maker)
            work.extend(maker.inputs)

    def finish(self) -> Graph:
        """Return the graph as it now stands, in order, without constants that lost their last user."""
        order = sorted(self.nodes.values(), key=lambda node: self.place[node.name])
        before = self.graph.consts
        kept = {
            k: c
            for k, c in self.consts.items()
            if self.users.get(k) or k in self.outputs or not self._was_read(k, before)
        }
        return self.graph.with_nodes(order, consts=kept, outputs=self.graph.outputs)

    def _was_read(self, value: str, before: Mapping[str, Const]) -> bool:
        return value not in before or bool(self.graph.users(value))


def _replaced(values: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    """Return values with `new` for each `old`."""
    out, at = list(values), -1
    for _ in range(values.count(old)):
        at = out.index(old, at + 1)
        out[at] = new
    return tuple(out)


class Match:
    """What a rule may ask about the graph as it stands at that moment."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def type_of(self, value: str) -> TensorType:
        """Return the type of a value."""
        return self._draft.types[value]

    def producer(self, value: str, *ops: str) -> Node | None:
        """Return the node that makes a value; None when there is none, or it is none of the given `ops`."""
        node = self._draft.nodes.get(self._draft.producers.get(value, ""))
        return node if node is not None and (not ops or node.op in ops) else None

    def nodes(self, op: str) -> list[Node]:
        """Return the nodes of an op."""
        return [node for node in self._draft.nodes.values() if node.op == op]

    def widths(self, *ops: str) -> set[int]:
        """Return the last dimensions of what nodes of these ops made before the draft's first change."""
        return set().union(*(self._draft.widths.get(op, ()) for op in ops))

    def users(self, value: str) -> list[Node]:
        """Return the nodes that read a value, each once."""
        return [self._draft.nodes[name] for name in self._draft.users.get(value, ())]

    def only_user(self, value: str) -> Node | None:
        """Return the one node that reads a value; None when there are more, none, or it is a graph output."""
        users = self._draft.users.get(value, {})
        if len(users) != 1 or value in self._draft.outputs:
            return None
        return self._draft.nodes[next(iter(users))]

    def is_output(self, value: str) -> bool:
        """Return whether a value is an output of the graph."""
        return value in self._draft.outputs

    def is_input(self, value: str) -> bool:
        """Return whether a value is an input of the graph."""
        return value in self._draft.graph.inputs

    def const(self, value: str) -> Const | None:
        """Return the constant of that name, or None."""
        return self._draft.consts.get(value)

    def fresh(self, name: str) -> str:
        """Return a name that neither a value nor a node has, made from `name`."""
        return self._draft.fresh(name)
