"""A split in the making: the nodes of every rank so far, and in which layouts values are there."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from .. import ops
from ..gradients.marks import mark_of
from ..graph import Graph, Node
from ..ops.layout import Axes, Layout, Policy, local_shape
from .asked import Asked
from .mesh import Mesh
from .relayout import Move, cost, moves

INDEX = "rank.index"  # begins the name of a constant that differs from rank to rank


@dataclass(frozen=True)
class Shard:
    """A rank's part of a constant of the model, or of what is worked out of its place (`axes`, `rows`)."""

    source: str
    layout: Layout
    axes: Axes = ()
    rows: int = 0


@dataclass(frozen=True)
class Holder:
    """Who has a table: the ranks at place `owner` along `axes`. Others read a `token`, if anything."""

    axes: Axes
    owner: int
    token: str = ""


@dataclass(frozen=True)
class HeldValue:
    """A value that holders of a table alone have.

    `layout` is how it lies over other axes, `dim` the dimension of which each rank is to get a part, None
    where each gets all of it.
    """

    holder: Holder
    table: str
    layout: Layout
    dim: int | None


@dataclass
class SplitDraft:
    """A split in the making. `versions` are a value's layouts so far, each with its local name.

    `looked` are indices over all rows, by the local value that is looked up by those of a rank's own.
    `holding` are values that one rank has, of a table that lies there; `holders` say of nodes that not all
    ranks run alike who does. `asked` are layouts that values are to have at nodes, `read` and `made` those
    that they had, by node's name and value.
    """

    graph: Graph
    mesh: Mesh
    policy: Policy
    asked: Asked | None = None
    read: dict[tuple[str, str], Layout] = field(default_factory=dict)
    made: dict[tuple[str, str], Layout] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    versions: dict[str, dict[Layout, str]] = field(default_factory=dict)
    inputs: dict[str, Layout] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    cuts: dict[str, tuple[Axes, int]] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)  # ops without a rule, and how many
    names: dict[str, int] = field(default_factory=dict)
    looked: dict[str, str] = field(default_factory=dict)
    holding: dict[str, HeldValue] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)

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


def layout_of(draft: SplitDraft, value: str) -> Layout:
    """Return how a value lies at first: of a constant nothing is said."""
    if value in draft.versions:
        return next(iter(draft.versions[value]))
    if value in draft.inputs:
        return draft.inputs[value]
    return Layout.whole(draft.graph.type_of(value).rank)


def is_free(draft: SplitDraft, value: str) -> bool:
    """Return whether a value may still lie in any way: constants, and inputs that nobody has read."""
    return value in draft.graph.consts or (value in draft.inputs and value not in draft.versions)


def version_of(draft: SplitDraft, value: str, want: Layout) -> str:
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


def _const(draft: SplitDraft, value: str, want: Layout) -> str:
    known = draft.versions.setdefault(value, {})
    if want not in known:
        name = value if not known else draft.fresh(value)
        known[want] = name
        draft.shards[name] = Shard(value, want)
        draft.types[name] = draft.local(draft.graph.type_of(value), want)
    return known[want]


def _adopt(draft: SplitDraft, value: str, want: Layout) -> None:
    """Let an input lie as its first reader wants it, where that leaves what is known of it."""
    base = draft.inputs[value]
    fits = all(w[: len(b)] == b for b, w in zip(base.dims, want.dims, strict=True))
    layout = want.settled if fits and not want.sums else base
    draft.inputs[value] = layout
    draft.versions[value] = {layout: value}
    draft.types[value] = draft.local(draft.graph.type_of(value), layout)


def _moved(draft: SplitDraft, value: str, name: str, move: Move) -> str:
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


def index_const(draft: SplitDraft, kind: TensorType, axes: Axes, rows: int) -> str:
    """Return a constant that holds a rank's first row of a table split over axes."""
    name = f"{INDEX}.{'.'.join(axes)}.{rows}.{kind.dtype}"
    draft.shards.setdefault(name, Shard("", Layout(()), axes, rows))
    draft.types[name] = TensorType(kind.dtype, ())
    return name


def number_const(draft: SplitDraft, kind: TensorType, number: int) -> str:
    """Return a constant of one element that every rank has."""
    name = f"{INDEX}.{number}.{kind.dtype}"
    draft.shards.setdefault(name, Shard("", Layout(()), (), number))
    draft.types[name] = TensorType(kind.dtype, ())
    return name
