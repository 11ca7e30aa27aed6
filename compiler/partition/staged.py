"""A training step in stages: forward is cut, the way back lies with it, weights lie where they are read.

A weight that several stages read is a parameter of each of them: all change by the sum of their gradients.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mtia_emu.errors import UserError

from ..gradients.marks import BACKWARD, is_back
from ..gradients.parameters import PRODUCTS, TABLES
from ..gradients.recompute import BALANCE, Throughput
from ..gradients.step import TrainingStep, written
from ..graph import Const, Graph, Node
from ..ops.collectives import COLLECTIVES
from ..ops.expert_matmul import ROUTED_PRODUCTS
from .stages import passing, places

LAYERS = (*TABLES, *PRODUCTS, *ROUTED_PRODUCTS, "attention", "scan")  # with a weight, they make activations
MARK = "\x1f"  # stands in an origin, before the number of a stage, while a step is written
_MARKED = re.compile(f"{MARK}(\\d+)")


@dataclass(frozen=True)
class StagedStep:
    """A step, and the stage of each of its nodes before the optimiser, by name; common nodes have none.

    `homes` are the stages of parameters; `ties` are parameters that are another one at a further stage.
    """

    step: TrainingStep
    count: int
    stages: Mapping[str, int]
    homes: Mapping[str, int]
    ties: Mapping[str, str]


@dataclass(frozen=True)
class Dependence:
    """What nodes of a step depend on: `common` ones, by name, on no activation; `weights` behind values."""

    common: frozenset[str]
    weights: Mapping[str, frozenset[str]]


def dependence(nodes: Iterable[Node], floats: Iterable[str], weights: Iterable[str]) -> Dependence:
    """Return which nodes depend neither on the floats of a batch nor on a layer: each stage has its own.

    Those are made of weights, states, integers of the batch and constants alone, without an exchange.
    """
    behind = {name: frozenset([name]) for name in weights}
    heavy, common = set(floats), set[str]()
    for node in nodes:
        own = frozenset(w for v in node.inputs for w in behind.get(v, ()))
        if node.op in COLLECTIVES or (own and node.op in LAYERS) or heavy.intersection(node.inputs):
            heavy.update(node.outputs)
            continue
        common.add(node.name)
        behind.update((v, own) for v in node.outputs if own)
    return Dependence(frozenset(common), behind)


def floats_of(step: TrainingStep) -> list[str]:
    """Return the inputs of a step that are floats of its batch."""
    return [name for name in step.data if step.graph.inputs[name].dtype.is_float]


def staged(
    step: TrainingStep,
    count: int,
    pace: Throughput = BALANCE,
    weighs: Mapping[str, float] | None = None,
) -> StagedStep:
    """Return a step in so many stages of about equal bytes of weights, in the order of the forward pass.

    With `weighs`, a number for nodes of the forward pass by name, they are of about equal sums of these.
    Raises `UserError` where there are fewer layers with weights than stages.
    """
    forward = step.forward
    floats = [name for name in floats_of(step) if name in forward.inputs]
    known = dependence(forward.nodes, floats, step.parameters)
    nodes = [node for node in forward.nodes if node.name not in known.common]
    numbers = _cut(step, nodes, known, count, weighs)
    untied = _Untied(step, numbers, known)
    forward = untied.graph()
    parameters = {**step.parameters, **untied.parameters}
    made = written(_marked(forward, numbers), parameters, step.recipe, step.scores, pace, untied.ties)
    homes = {name: untied.homes.get(name, 0) for name in step.parameters} | untied.aliases
    return StagedStep(
        replace(made, graph=_plain(made.graph), forward=forward, micro=None),
        count,
        _numbers(made.graph),
        homes,
        untied.ties,
    )


def _cut(
    step: TrainingStep,
    nodes: Sequence[Node],
    known: Dependence,
    count: int,
    weighs: Mapping[str, float] | None,
) -> dict[str, int]:
    """Return the stage of each node of the forward pass that is not common."""
    forward = step.forward
    each = [_weight(node, known, forward) if weighs is None else weighs.get(node.name, 0.0) for node in nodes]
    heavy = sum(weight > 0 for weight in each)
    if heavy < count:
        raise UserError(
            f"--parallel: {count} stages, {forward.name} has only {heavy} layers with weights to spread over "
            "them (right: fewer stages)"
        )
    types = {v: t for node in nodes for v, t in zip(node.outputs, node.types, strict=True)}
    cuts = places(each, passing(types, nodes), count)
    return {node.name: bisect_right(cuts, i) for i, node in enumerate(nodes)}


def weighed(cut: StagedStep, seconds: Sequence[float]) -> dict[str, float]:
    """Return what nodes of the pass forward weigh where stages took so long, by name.

    A byte of weights takes what those of its stage do.
    """
    forward, step = cut.step.forward, cut.step
    known = dependence(forward.nodes, floats_of(step), step.parameters)
    bytes_ = {n.name: _weight(n, known, forward) for n in forward.nodes if n.name not in known.common}
    whole = [0.0] * cut.count
    for name, size in bytes_.items():
        whole[cut.stages[name]] += size
    return {name: size * seconds[cut.stages[name]] / whole[cut.stages[name]] for name, size in bytes_.items()}


def _weight(node: Node, known: Dependence, graph: Graph) -> float:
    """Return the bytes of weights that a node reads whole."""
    if node.op in TABLES:
        return 0
    found = {w for v in node.inputs for w in known.weights.get(v, ())}
    return sum(graph.type_of(w).bytes for w in found)


@dataclass
class _Untied:
    """A forward pass in the making in which no two stages read one parameter."""

    step: TrainingStep
    numbers: Mapping[str, int]
    known: Dependence
    homes: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)  # the stages of further parameters
    ties: dict[str, str] = field(default_factory=dict)
    own: dict[tuple[str, int], str] = field(default_factory=dict)  # what a stage reads in place of a value
    nodes: list[Node] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Const]:
        """Return the further parameters, with the values of those that they are."""
        return {alias: self.step.parameters[name] for alias, name in self.ties.items()}

    def graph(self) -> Graph:
        """Return the forward pass, each stage with parameters of its own."""
        forward = self.step.forward
        for node in forward.nodes:
            stage = self.numbers.get(node.name)
            if stage is not None:
                for name in (w for v in node.inputs for w in self.known.weights.get(v, ())):
                    self.homes.setdefault(name, stage)
                node = node.renamed({v: self._read(v, stage) for v in node.inputs if v})
            self.nodes.append(node)
        inputs = {**forward.inputs, **{alias: forward.type_of(name) for alias, name in self.ties.items()}}
        whole = Graph(forward.name, tuple(self.nodes), inputs, forward.outputs, forward.consts, forward.notes)
        return whole.with_states(forward.states).prune()

    def _read(self, value: str, stage: int) -> str:
        """Return what a stage reads in place of a value that is made of weights of other stages."""
        behind = self.known.weights.get(value, frozenset())
        if all(self.homes.setdefault(name, stage) == stage for name in behind):
            return value
        if (value, stage) not in self.own:
            name = self.own[value, stage] = self._fresh(f"{value}.stage{stage}")
            maker = self.step.forward.producer(value)
            if maker is None:
                self.ties[name], self.aliases[name] = value, stage
            else:
                others = {v: self._read(v, stage) for v in maker.inputs if v}
                outputs = tuple(
                    name if v == value else self._fresh(f"{v}.stage{stage}") for v in maker.outputs
                )
                self.nodes.append(replace(maker.renamed(others), name=name, outputs=outputs))
        return self.own[value, stage]

    def _fresh(self, name: str) -> str:
        while self.step.graph.has(name) or name in self.own.values():
            name = f"{name}.2"
        return name


def _marked(graph: Graph, numbers: Mapping[str, int]) -> Graph:
    """Return a graph whose nodes say in their origins which stage they are of: so do those made for them."""
    return graph.with_nodes(
        [
            replace(node, origin=f"{node.origin or node.name}{MARK}{numbers[node.name]}")
            if node.name in numbers
            else node
            for node in graph.nodes
        ]
    )


def _plain(graph: Graph) -> Graph:
    return graph.with_nodes(
        [
            replace(node, origin=_MARKED.sub("", node.origin)) if MARK in node.origin else node
            for node in graph.nodes
        ]
    )


def _numbers(graph: Graph) -> dict[str, int]:
    """Return the stages that nodes are marked with; what is made again is of the stage that reads it."""
    found = {node.name: int(at[1]) for node in graph.nodes if (at := _MARKED.search(node.origin))}
    again = [node for node in graph.nodes if node.origin.endswith(f" again{BACKWARD}")]
    for node in reversed(again):
        users = [user for v in node.outputs for user, _ in graph.users(v) if is_back(user)]
        readers = [found[user.name] for user in users if user.name in found]
        if readers:
            found[node.name] = max(readers)
    return found
