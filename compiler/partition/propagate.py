"""Layouts of all values from those of the inputs, op by op, and the collectives that they take.

Weights, and inputs that carry a state, lie as the first op that reads them wants them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from .. import ops
from ..gradients.marks import mark_of
from ..graph import Graph, Node
from ..ops.expert_matmul import ROUTED_PRODUCTS
from ..ops.layout import SPLITS, WHOLE, Axes, Layout, NodeSplit, Policy, Query, kept_whole, local_shape
from .heads import units
from .mesh import AXES, Mesh
from .relayout import Move, cost, moves
from .routed import Routes

INDEX = "rank.index"  # begins the name of a constant that differs from rank to rank


@dataclass(frozen=True)
class Shard:
    """A rank's part of a constant of the model, or of what is worked out of its place (`axes`, `rows`)."""

    source: str
    layout: Layout
    axes: Axes = ()
    rows: int = 0


@dataclass(frozen=True)
class Split:
    """A graph over a mesh: the nodes of every rank, in local types, and how what they read and give lies.

    `cuts` are the nodes that take a rank's own part of a value: by node, the axes and the dimension.
    """

    graph: Graph
    mesh: Mesh
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    inputs: Mapping[str, Layout]
    outputs: Mapping[str, tuple[str, Layout]]
    shards: Mapping[str, Shard]
    cuts: Mapping[str, tuple[Axes, int]]
    notes: tuple[str, ...]


@dataclass
class _Draft:
    """A split in the making. `versions` are a value's layouts so far, each with its local name.

    `looked` are indices over all rows, by the local value that is looked up by those of a rank's own.
    """

    graph: Graph
    mesh: Mesh
    policy: Policy
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    versions: dict[str, dict[Layout, str]] = field(default_factory=dict)
    inputs: dict[str, Layout] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    cuts: dict[str, tuple[Axes, int]] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)  # ops without a rule, and how many
    names: dict[str, int] = field(default_factory=dict)
    looked: dict[str, str] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        """Return a local name that is not taken."""
        while name in self.types or (name != "" and self.graph.has(name)):
            self.names[name] = self.names.get(name, 0) + 1
            candidate = f"{name}.r{self.names[name]}"
            if candidate not in self.types and not self.graph.has(candidate):
                return candidate
        return name

    def local(self, kind: TensorType, layout: Layout) -> TensorType:
        """Return the type of a rank's part."""
        return TensorType(kind.dtype, local_shape(kind.shape, layout, self.policy))

    def add(self, node: Node) -> str:
        """Add a node of every rank; return its first result."""
        self.nodes.append(node)
        self.types.update(zip(node.outputs, node.types, strict=True))
        return node.output

    def make(self, op: str, operands: tuple[str, ...], hint: str, origin: str, **attrs: object) -> str:
        """Add a node of an op on local values; return its result."""
        kinds = ops.infer(op, [self.types[v] for v in operands], attrs)
        name = self.fresh(hint)
        return self.add(Node(name, op, operands, (name,), kinds, attrs, origin))


def policy_of(graph: Graph, mesh: Mesh) -> Policy:
    """Return what the axes of a mesh are for.

    Beside products with routed experts a stack of weights is one of heads, as of latent attention.
    """
    experts, model = mesh.axes("ep"), mesh.axes("tp")
    routed = any(node.op in ROUTED_PRODUCTS for node in graph.nodes)
    lookup = (mesh.axes("dp") or mesh.axes("tp")) if mesh.tables else ()
    return Policy(
        mesh.counts,
        model,
        1 if mesh.sequence else None,
        mesh.tables,
        lookup,
        experts,
        model if routed else experts or model,
    )


def propagate(
    graph: Graph,
    mesh: Mesh,
    given: Mapping[str, Layout] | None = None,
    brought: Mapping[str, Layout] | None = None,
) -> Split:
    """Return a graph split over a mesh, its pipeline apart: every rank of a stage has the same nodes.

    `given` are layouts of all inputs, in place of those that follow from the mesh; the next value of a state
    lies then as the state does. `brought` are layouts to which values are brought as soon as they are made.

    Raises `UserError` where the batch or the sequence does not divide, and for an op that would have to see
    all micro-batches at once.
    """
    draft = _Draft(graph, mesh, policy_of(graph, mesh))
    for name, kind in graph.inputs.items():
        draft.inputs[name] = _seed(graph, kind, name, mesh) if given is None else given[name]
    for node in graph.nodes:
        _place(draft, node)
        for value in node.outputs:
            if brought is not None and value in brought:
                draft.versions[value] = {brought[value]: _version(draft, value, brought[value])}
    outputs = {name: _output(draft, name, given is not None) for name in graph.outputs}
    if given is None:
        _refuse_idle(draft)
    for name, layout in draft.inputs.items():
        draft.types.setdefault(name, draft.local(graph.inputs[name], layout))
    return Split(
        graph,
        mesh,
        _routed(draft),
        draft.types,
        draft.inputs,
        outputs,
        draft.shards,
        draft.cuts,
        _notes(draft),
    )


def _routed(draft: _Draft) -> tuple[Node, ...]:
    """Return the nodes, with rows sent to experts and back where the mesh asks for that."""
    if not draft.mesh.dispatch:
        return tuple(draft.nodes)
    layouts = {local: layout for known in draft.versions.values() for layout, local in known.items()}
    return Routes(draft.nodes, layouts, draft.looked, draft.mesh.axes("ep")).exchanged()


def _seed(graph: Graph, kind: TensorType, name: str, mesh: Mesh) -> Layout:
    """Return how an input lies at least: its batch over `mb` and `dp` (and `ep`), its sequence over `cp`.

    The batch is the first dimension of the first input, and of all that have one of its size; the sequence is
    the second of what has indices of integers.
    """
    batch = next((t.shape[0] for t in graph.inputs.values() if t.rank), 1)
    dims: list[Axes] = [WHOLE] * kind.rank
    over = tuple(a for axis in mesh.of_batch for a in mesh.axes(axis))
    if kind.rank and kind.shape[0] == batch and over:
        count = math.prod(mesh.sizes[axis] for axis in mesh.of_batch)
        if batch % count:
            raise UserError(
                f"--parallel {mesh}: a batch of {batch} (%{name}) does not divide among {count} "
                f"(right: a batch that is a multiple, or fewer of {' and '.join(mesh.of_batch)})"
            )
        dims[0] = over
    sequence = mesh.sizes["cp"]
    if sequence > 1 and kind.rank == 2 and not kind.dtype.is_float:
        if kind.shape[1] % sequence:
            raise UserError(
                f"--parallel cp={sequence}: a sequence of {kind.shape[1]} (%{name}) does not divide "
                "(right: a length that is a multiple)"
            )
        dims[1] = mesh.axes("cp")
    return Layout(tuple(dims))


def _place(draft: _Draft, node: Node) -> None:
    """Add a node to every rank, behind what brings its operands to the layouts that it wants."""
    graph = draft.graph
    types = tuple(graph.type_of(v) if v else None for v in node.inputs)
    layouts = tuple(_layout(draft, v) if v else None for v in node.inputs)
    free = tuple(bool(v) and _is_free(draft, v) for v in node.inputs)
    query = Query(node, types, layouts, free, draft.policy, units(graph, node))
    rule = SPLITS.get(node.op)
    if rule is None:
        answer = kept_whole(query)
        if any(x is not None and x != want for x, want in zip(layouts, answer.operands, strict=True)):
            draft.whole[node.op] = draft.whole.get(node.op, 0) + 1
    else:
        answer = rule(query)
    operands = tuple(
        "" if want is None else _version(draft, value, want)
        for value, want in zip(node.inputs, answer.operands, strict=True)
    )
    if answer.lookup:
        _look_up(draft, node, operands, answer)
        return
    _emit(draft, node, operands, answer)


def _emit(draft: _Draft, node: Node, operands: tuple[str, ...], answer: NodeSplit) -> None:
    attrs = {**node.attrs, **answer.attrs}
    kinds = tuple(draft.local(t, x) for t, x in zip(node.types, answer.results, strict=True))
    inferred = ops.infer(node.op, [draft.types[v] if v else None for v in operands], attrs)
    if inferred != kinds:
        raise AssertionError(f"layout rule of {node.op}: {node.name} gives {inferred}, not {kinds}")
    draft.add(Node(node.name, node.op, operands, node.outputs, kinds, attrs, node.origin))
    for value, layout in zip(node.outputs, answer.results, strict=True):
        draft.versions[value] = {layout: value}


def _look_up(draft: _Draft, node: Node, operands: tuple[str, ...], answer: NodeSplit) -> None:
    """Add what looks up a rank's own rows: an index outside them gives zeros, and a sum is owed.

    An op that is told how many rows there are in all takes such an index; others are given that of a row.
    """
    table, indices = operands[answer.indices - 1 : answer.indices + 1]
    kind, rows = draft.types[indices], draft.types[table].shape[0]
    whole = draft.graph.type_of(node.inputs[answer.indices - 1]).shape[0]
    first = _index(draft, kind, answer.lookup, rows)
    zero, limit, total = (_number(draft, kind, n) for n in (0, rows, whole))

    def make(op: str, *values: str, **attrs: object) -> str:
        return draft.make(op, values, f"{node.output}.{op}", node.origin or node.name, **attrs)

    wrapped = make("where", make("less", indices, zero), make("add", indices, total), indices)
    own = make("sub", wrapped, first)
    there = make("and", make("not", make("less", own, zero)), make("less", own, limit))
    inside = own if answer.attrs else make("where", there, own, zero)
    given = [*operands[: answer.indices], inside, *operands[answer.indices + 1 :]]
    picked = make(node.op, *given, **{**node.attrs, **answer.attrs})
    draft.looked[picked] = indices
    mask = make("reshape", there, shape=(*draft.types[picked].shape[:-1], 1))
    name, nothing = node.output, _number(draft, draft.types[picked], 0)
    kinds = (draft.types[picked],)
    result = draft.add(Node(name, "where", (mask, picked, nothing), (name,), kinds, {}, node.origin))
    draft.versions[node.output] = {answer.results[0]: result}


def _index(draft: _Draft, kind: TensorType, axes: Axes, rows: int) -> str:
    """Return a constant that holds a rank's first row of a table split over axes."""
    name = f"{INDEX}.{'.'.join(axes)}.{rows}.{kind.dtype}"
    draft.shards.setdefault(name, Shard("", Layout(()), axes, rows))
    draft.types[name] = TensorType(kind.dtype, ())
    return name


def _number(draft: _Draft, kind: TensorType, number: int) -> str:
    """Return a constant of one element that every rank has."""
    name = f"{INDEX}.{number}.{kind.dtype}"
    draft.shards.setdefault(name, Shard("", Layout(()), (), number))
    draft.types[name] = TensorType(kind.dtype, ())
    return name


def _layout(draft: _Draft, value: str) -> Layout:
    """Return how a value lies at first: of a constant nothing is said."""
    if value in draft.versions:
        return next(iter(draft.versions[value]))
    if value in draft.inputs:
        return draft.inputs[value]
    return Layout.whole(draft.graph.type_of(value).rank)


def _is_free(draft: _Draft, value: str) -> bool:
    """Return whether a value may still lie in any way: constants, and inputs that nobody has read."""
    return value in draft.graph.consts or (value in draft.inputs and value not in draft.versions)


def _version(draft: _Draft, value: str, want: Layout) -> str:
    """Return the local name of a value in a layout, made of the nearest one that there is."""
    if value in draft.graph.consts:
        return _const(draft, value, want)
    if value not in draft.versions:
        _adopt(draft, value, want)
    known = draft.versions[value]
    if want not in known:
        able = [x for x in known if set(want.sums) <= set(x.sums)]
        have = min(able, key=lambda x: cost(moves(x, want)))
        name = known[have]
        for move in moves(have, want):
            name = _moved(draft, value, name, move)
        known[want] = name
    return known[want]


def _const(draft: _Draft, value: str, want: Layout) -> str:
    known = draft.versions.setdefault(value, {})
    if want not in known:
        name = value if not known else draft.fresh(value)
        known[want] = name
        draft.shards[name] = Shard(value, want)
        draft.types[name] = draft.local(draft.graph.type_of(value), want)
    return known[want]


def _adopt(draft: _Draft, value: str, want: Layout) -> None:
    """Let an input lie as its first reader wants it, where that leaves what is known of it."""
    base = draft.inputs[value]
    fits = all(w[: len(b)] == b for b, w in zip(base.dims, want.dims, strict=True))
    layout = want.settled if fits and not want.sums else base
    draft.inputs[value] = layout
    draft.versions[value] = {layout: value}
    draft.types[value] = draft.local(draft.graph.type_of(value), layout)


def _moved(draft: _Draft, value: str, name: str, move: Move) -> str:
    """Add one step from a layout to another; return its result."""
    size = draft.policy.count(move.axes)
    origin = f"{value}{mark_of(draft.graph.producer(value))}"
    if set(move.axes) & set(draft.mesh.axes("mb")) and move.op != "part":
        raise UserError(
            f"--parallel {draft.mesh}: what reads %{value} needs all micro-batches at once "
            "(right: without mb)"
        )
    if move.op == "part":
        shape = draft.types[name].shape
        ends = tuple(n // size if i == move.dim else n for i, n in enumerate(shape))
        zeros, ones = (0,) * len(shape), (1,) * len(shape)
        made = draft.make("slice", (name,), f"{value}.part", origin, starts=zeros, ends=ends, steps=ones)
        draft.cuts[made] = (move.axes, move.dim)
        return made
    attrs: dict[str, object] = {"axes": move.axes, "size": size}
    if move.op != "all_reduce":
        attrs["dim"] = move.dim
    if move.op == "all_to_all":
        attrs["join"] = move.join
    return draft.make(move.op, (name,), f"{value}.{move.op}", origin, **attrs)


def _output(draft: _Draft, value: str, in_place: bool) -> tuple[str, Layout]:
    """Return the local name and the layout of an output: what nobody else reads is gathered over `tp`.

    The next value of a state lies as the state does where that is to be `in_place`.
    """
    if in_place and value in draft.graph.states:
        layout = draft.inputs[draft.graph.states[value]]
        return _version(draft, value, layout), layout
    layout = _layout(draft, value)
    want = layout.settled
    if not draft.graph.users(value) and value not in draft.graph.states:
        model = set(draft.policy.model)
        want = Layout(tuple(tuple(a for a in axes if a not in model) for axes in want.dims))
    if want != layout and value not in draft.graph.consts:
        layout = want
    return _version(draft, value, layout), layout


def _refuse_idle(draft: _Draft) -> None:
    """Refuse an axis over which nothing of the model is split."""
    lie = [*draft.inputs.values(), *(shard.layout for shard in draft.shards.values())]
    used = {axis for layout in lie for axis in layout.used}
    for name, size in draft.mesh.sizes.items():
        if idle := [
            axis for axis in draft.mesh.axes(name) if axis in draft.policy.sizes and axis not in used
        ]:
            raise UserError(
                f"--parallel {name}={size}: in {draft.graph.name} nothing of {AXES[name]} divides among all "
                f"of them, {draft.policy.count(idle)} would be alike (right: another {name})"
            )


def _notes(draft: _Draft) -> tuple[str, ...]:
    if not draft.whole:
        return ()
    named = ", ".join(f"{count} {op}" for op, count in sorted(draft.whole.items()))
    return (f"every rank computes the whole of {named}: there is no layout rule for these ops",)
