"""Layouts of all values from those of the inputs, op by op, and the collectives that they take.

Weights, and inputs that carry a state, lie as the first op that reads them wants them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from .. import ops
from ..graph import Graph, Node
from ..ops.expert_matmul import ROUTED_PRODUCTS
from ..ops.layout import SPLITS, Axes, Layout, NodeSplit, Policy, Query
from .asked import Asked, answered
from .bags import bagged
from .draft import Holder, Shard, SplitDraft, index_const, is_free, layout_of, number_const, version_of
from .heads import units
from .mesh import AXES, Mesh
from .placed import follow, look_up_there, settle
from .routed import Routes
from .scattered import scattered
from .seeds import seeded
from .tables import COPIED, WHOLE_TABLE, TablePlace, cut_tables, evenly


@dataclass(frozen=True)
class Split:
    """A graph over a mesh: the nodes of every rank, in local types, and how what they read and give lies.

    `cuts` are the nodes that take a rank's own part of a value: by node, the axes and the dimension;
    `holders` are the nodes that ranks do not run alike, since only some have a table. `places` is where
    tables lie, where that was planned. `read` and `made` are the layouts of operands and of results, by
    node's name and value.
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
    holders: Mapping[str, Holder]
    places: Mapping[str, TablePlace]
    read: Mapping[tuple[str, str], Layout]
    made: Mapping[tuple[str, str], Layout]


def policy_of(graph: Graph, mesh: Mesh, places: Mapping[str, TablePlace]) -> Policy:
    """Return what the axes of a mesh are for, and how tables lie that have places.

    Beside products with routed experts a stack of weights is one of heads, as of latent attention.
    """
    experts, model = mesh.axes("ep"), mesh.axes("tp")
    routed = any(node.op in ROUTED_PRODUCTS for node in graph.nodes)
    return Policy(
        mesh.counts,
        model,
        1 if mesh.sequence else None,
        COPIED if mesh.planned else mesh.tables,
        {name: place.kind for name, place in places.items()},
        mesh.lookup,
        experts,
        model if routed else experts or model,
    )


def propagate(
    graph: Graph,
    mesh: Mesh,
    given: Mapping[str, Layout] | None = None,
    brought: Mapping[str, Layout] | None = None,
    places: Mapping[str, TablePlace] | None = None,
    asked: Asked | None = None,
) -> Split:
    """Return a graph split over a mesh, its pipeline apart: every rank of a stage has the same nodes.

    `given` are layouts of all inputs, in place of those that follow from the mesh; the next value of a state
    lies then as the state does. `brought` are layouts to which values are brought as soon as they are made,
    `places` say where tables lie, by name; without them they are dealt out where the mesh asks for that.
    `asked` are layouts that values are to have at single nodes.

    Raises `UserError` where the batch or the sequence does not divide, and for an op that would have to see
    all micro-batches at once.
    """
    if mesh.planned and places is None:
        places = evenly(graph, mesh)
    graph, placed = cut_tables(graph, places or {})
    draft = SplitDraft(graph, mesh, policy_of(graph, mesh, placed), asked)
    for name, kind in graph.inputs.items():
        draft.inputs[name] = seeded(graph, kind, name, mesh) if given is None else given[name]
    for node in graph.nodes:
        _add(draft, node, placed)
        _bring(draft, node, brought or {})
    outputs = {name: _output(draft, name, given is not None) for name in graph.outputs}
    if given is None:
        _refuse_idle(draft)
    for name, layout in draft.inputs.items():  # those that nobody reads
        draft.types.setdefault(name, draft.local(graph.inputs[name], layout))
    return _finished(draft, outputs, placed)


def _add(draft: SplitDraft, node: Node, placed: Mapping[str, TablePlace]) -> None:
    """Add a node to the ranks that run it: the holder of a table, those of what it reads, else all."""
    place = placed.get(node.inputs[0]) if node.op == "gather" else None
    if place is not None and place.kind == WHOLE_TABLE:
        look_up_there(draft, node, place.owners[0])
    elif not (follow(draft, node) or scattered(draft, node) or bagged(draft, node)):
        _place(draft, node)
    settle(draft, node)


def _bring(draft: SplitDraft, node: Node, brought: Mapping[str, Layout]) -> None:
    """Bring a node's results to their layouts of `brought`: whoever reads them finds them in no other."""
    for value in node.outputs:
        if value in brought:
            draft.versions[value] = {brought[value]: version_of(draft, value, brought[value])}


def _finished(
    draft: SplitDraft, outputs: Mapping[str, tuple[str, Layout]], places: Mapping[str, TablePlace]
) -> Split:
    """Return the split that a draft has become."""
    return Split(
        draft.graph,
        draft.mesh,
        nodes=_routed(draft),
        types=draft.types,
        inputs=draft.inputs,
        outputs=outputs,
        shards=draft.shards,
        cuts=draft.cuts,
        notes=_notes(draft),
        holders=draft.holders,
        places=places,
        read=draft.read,
        made=draft.made,
    )


def _routed(draft: SplitDraft) -> tuple[Node, ...]:
    """Return the nodes, with rows sent to experts and back where the mesh asks for that."""
    if not draft.mesh.dispatch:
        return tuple(draft.nodes)
    layouts = {local: layout for known in draft.versions.values() for layout, local in known.items()}
    return Routes(draft.nodes, layouts, draft.looked, draft.mesh.axes("ep")).exchanged()


def _place(draft: SplitDraft, node: Node) -> None:
    """Add a node to every rank, behind what brings its operands to the layouts that it wants."""
    graph = draft.graph
    types = tuple(graph.type_of(v) if v else None for v in node.inputs)
    layouts = tuple(layout_of(draft, v) if v else None for v in node.inputs)
    free = tuple(bool(v) and is_free(draft, v) for v in node.inputs)
    query = Query(node, types, layouts, free, draft.policy, units(graph, node))
    answer, query = answered(query, draft.asked)
    if node.op not in SPLITS and any(
        x is not None and x != y for x, y in zip(query.layouts, answer.operands, strict=True)
    ):
        draft.whole[node.op] = draft.whole.get(node.op, 0) + 1
    operands = tuple(
        "" if want is None else version_of(draft, value, want)
        for value, want in zip(node.inputs, answer.operands, strict=True)
    )
    draft.read |= {
        (node.name, v): x for v, x in zip(node.inputs, answer.operands, strict=True) if x is not None
    }
    draft.made |= {(node.name, v): x for v, x in zip(node.outputs, answer.results, strict=True)}
    if answer.lookup:
        _look_up(draft, node, operands, answer)
    else:
        _emit(draft, node, operands, answer)
    for value in node.outputs:
        if draft.asked is not None and (node.name, value) in draft.asked.results:
            want = draft.asked.result(node.name, value, layout_of(draft, value))
            draft.versions[value] = {want: version_of(draft, value, want)}


def _emit(draft: SplitDraft, node: Node, operands: tuple[str, ...], answer: NodeSplit) -> None:
    attrs = {**node.attrs, **answer.attrs}
    kinds = tuple(draft.local(t, x) for t, x in zip(node.types, answer.results, strict=True))
    inferred = ops.infer(node.op, [draft.types[v] if v else None for v in operands], attrs)
    if inferred != kinds:
        raise AssertionError(f"layout rule of {node.op}: {node.name} gives {inferred}, not {kinds}")
    draft.add(Node(node.name, node.op, operands, node.outputs, kinds, attrs, node.origin))
    for value, layout in zip(node.outputs, answer.results, strict=True):
        draft.versions[value] = {layout: value}


def _look_up(draft: SplitDraft, node: Node, operands: tuple[str, ...], answer: NodeSplit) -> None:
    """Add what looks up a rank's own rows: an index outside them gives zeros, and a sum is owed.

    An op that is told how many rows there are in all takes such an index; others are given that of a row.
    """
    table, indices = operands[answer.indices - 1 : answer.indices + 1]
    kind, rows = draft.types[indices], draft.types[table].shape[0]
    whole = draft.graph.type_of(node.inputs[answer.indices - 1]).shape[0]
    first = index_const(draft, kind, answer.lookup, rows)
    zero, limit, total = (number_const(draft, kind, n) for n in (0, rows, whole))

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
    name, nothing = node.output, number_const(draft, draft.types[picked], 0)
    kinds = (draft.types[picked],)
    result = draft.add(Node(name, "where", (mask, picked, nothing), (name,), kinds, {}, node.origin))
    draft.versions[node.output] = {answer.results[0]: result}


def _output(draft: SplitDraft, value: str, in_place: bool) -> tuple[str, Layout]:
    """Return the local name and the layout of an output: what nobody else reads is gathered over `tp`.

    The next value of a state lies as the state does where that is to be `in_place`; a state that owes a sum
    begins anew.
    """
    if in_place and value in draft.graph.states:
        layout = draft.inputs[draft.graph.states[value]].settled
        return version_of(draft, value, layout), layout
    layout = layout_of(draft, value)
    want = layout.settled
    if not draft.graph.users(value) and value not in draft.graph.states:
        model = set(draft.policy.model)
        want = Layout(tuple(tuple(a for a in axes if a not in model) for axes in want.dims))
    if want != layout and value not in draft.graph.consts:
        layout = want
    return version_of(draft, value, layout), layout


def _refuse_idle(draft: SplitDraft) -> None:
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


def _notes(draft: SplitDraft) -> tuple[str, ...]:
    if not draft.whole:
        return ()
    named = ", ".join(f"{count} {op}" for op, count in sorted(draft.whole.items()))
    return (f"every rank computes the whole of {named}: no layout rule splits these",)
