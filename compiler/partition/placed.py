"""Look-ups in a table that one rank has: indices go there, rows are pooled there, and come back."""

from __future__ import annotations

from mtia_emu.types import TensorType

from ..graph import Node
from ..ops.layout import Axes, Layout, local_shape
from .draft import HeldValue, Holder, SplitDraft, layout_of, number_const, version_of
from .tables import pools


def look_up_there(draft: SplitDraft, node: Node, owner: int) -> None:
    """Add a look-up that the ranks at place `owner` run alone, of the indices of all.

    Where the indices' first split dimension is the ranks' own, it is what they get of the result; else each
    gets all of it.
    """
    axes, (table, indices) = draft.policy.lookup, node.inputs
    have = layout_of(draft, indices).settled
    dim = _shared(have, axes)
    base = Layout(tuple(tuple(a for a in x if a not in axes) for x in have.dims))
    holder, kind = Holder(axes, owner), draft.graph.type_of(node.output)
    if dim is None:
        local = version_of(draft, indices, base)
        holder = Holder(axes, owner, number_const(draft, draft.types[local], 0))
    else:
        attrs = {"axes": axes, "size": draft.policy.count(axes), "dim": dim, "owner": owner, "own": True}
        mine = version_of(draft, indices, have)
        origin = node.origin or node.name
        local = draft.make("collect", (mine,), f"{node.output}.collect", origin, **attrs, table=node.name)
        draft.holders[local] = holder = Holder(axes, owner, local)
    layout = Layout((*base.dims, ()))
    kinds = (TensorType(kind.dtype, local_shape(kind.shape, layout, draft.policy)),)
    rows = version_of(draft, table, Layout.whole(2))
    draft.add(Node(node.name, "gather", (rows, local), node.outputs, kinds, node.attrs, node.origin))
    draft.holders[node.name] = holder
    draft.holding[node.output] = HeldValue(holder, node.name, layout, dim)


def _shared(layout: Layout, axes: Axes) -> int | None:
    """Return the dimension whose last axes are these, None of none: they are nowhere or among others."""
    ends = [i for i, x in enumerate(layout.dims) if x[-len(axes) :] == axes]
    return ends[0] if ends else None


def follow(draft: SplitDraft, node: Node) -> bool:
    """Add a node that pools what only some ranks hold to these alone; return whether it is one."""
    held = draft.holding.get(node.inputs[0]) if node.inputs else None
    if held is None or not _follows(held, node):
        return False
    layout = _pooled(held.layout, node)
    kind = TensorType(node.type.dtype, local_shape(node.type.shape, layout, draft.policy))
    draft.add(Node(node.name, node.op, node.inputs, node.outputs, (kind,), node.attrs, node.origin))
    draft.holders[node.name] = held.holder
    draft.holding[node.output] = HeldValue(held.holder, held.table, layout, held.dim)
    return True


def _follows(held: HeldValue, node: Node) -> bool:
    """Return whether a node can run where a value is held: its pieces and the ranks' own stay apart."""
    if not pools(node):
        return False
    if node.op == "cast":
        return True
    axes = _axes(held.layout, node)
    split = {i for i, x in enumerate(held.layout.dims) if x} | {held.dim or 0}
    return not axes & split and min(axes) > max(split)


def _axes(layout: Layout, node: Node) -> set[int]:
    return {a % len(layout.dims) for a in node.attrs["axes"]}


def _pooled(layout: Layout, node: Node) -> Layout:
    if node.op == "cast":
        return layout
    axes = _axes(layout, node)
    keep = bool(node.attrs.get("keepdims"))
    return Layout(tuple(x for i, x in enumerate(layout.dims) if keep or i not in axes))


def settle(draft: SplitDraft, node: Node) -> None:
    """Send what is held of a node's result to all ranks, unless all that read it run there too."""
    held = draft.holding.get(node.output) if node.outputs else None
    if held is None:
        return
    users = [user for user, _ in draft.graph.users(node.output)]
    if users and node.output not in draft.graph.outputs and all(_follows(held, user) for user in users):
        return
    axes, size, layout = held.holder.axes, draft.policy.count(held.holder.axes), held.layout
    if held.dim is not None:
        dims = [(*x, *axes) if i == held.dim else x for i, x in enumerate(layout.dims)]
        layout = Layout(tuple(dims))
    kind = draft.graph.type_of(node.output)
    name = draft.make(
        "spread",
        (node.output,),
        f"{node.output}.spread",
        node.origin or node.name,
        axes=axes,
        size=size,
        dim=held.dim or 0,
        owner=held.holder.owner,
        own=True,
        table=held.table,
        parts=1 if held.dim is None else size,
        shape=local_shape(kind.shape, layout, draft.policy),
        to=kind.dtype.name,
    )
    draft.holders[name] = held.holder
    draft.versions[node.output] = {layout: name}
    del draft.holding[node.output]
