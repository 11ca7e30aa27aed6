"""How values lie over the ranks of a mesh, and the rule by which an op's operands and results are split.

A rule stands in the file of its op, under `@splits`. Axes are named by the prime factors of a mesh's axes, so
that a dimension may be split over a part of an axis (key heads that are fewer than ranks).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Attr, Node

Axes = tuple[str, ...]
WHOLE: Axes = ()


@dataclass(frozen=True)
class Layout:
    """How a value lies over ranks: the axes that each dimension is split over, the slowest first.

    `sums` are the axes over which ranks hold parts of a sum that is still owed. No axis is named twice.
    `mask` names which elements of such a sum a rank has, where all others of it have zeros: in values of one
    mask and shape they are the same.
    """

    dims: tuple[Axes, ...]
    sums: Axes = ()
    mask: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse an axis that is named twice: a rule is wrong."""
        named = [*self.sums, *(axis for axes in self.dims for axis in axes)]
        if len(set(named)) < len(named):
            raise ValueError(f"{self} names an axis twice")

    @staticmethod
    def whole(rank: int) -> Layout:
        """Return the layout of a value that every rank has whole."""
        return Layout((WHOLE,) * rank)

    @property
    def used(self) -> frozenset[str]:
        """Return the axes that split a dimension."""
        return frozenset(axis for axes in self.dims for axis in axes)

    @property
    def settled(self) -> Layout:
        """Return the layout without sums that are owed."""
        return replace(self, sums=(), mask="")

    def without(self, dims: Iterable[int]) -> Layout:
        """Return the layout with these dimensions whole."""
        whole = set(dims)
        left = tuple(WHOLE if i in whole else axes for i, axes in enumerate(self.dims))
        return replace(self, dims=left, mask="")

    def owing(self, axes: Iterable[str]) -> Layout:
        """Return the layout with a sum owed over these axes alone."""
        return replace(self, sums=tuple(sorted(axes)), mask="")

    def __str__(self) -> str:
        dims = ", ".join("*".join(axes) or "-" for axes in self.dims)
        return f"[{dims}]" + (f" owes {'*'.join(self.sums)}" if self.sums else "")


@dataclass(frozen=True)
class Policy:
    """What of a mesh is for what: `sizes` of all axes, `model` those that split weights.

    `scatter` is the dimension over which a sum is scattered as it is paid (sequence parallelism), None where
    all ranks get the whole; `tables` and `lookup` say how embedding tables are split: by "row" or "column",
    over which axes, or "copied"; `kinds` the same of some by name; `experts` are the axes that stacks of
    experts' weights are split over, `stacks` those of other stacks of weights.
    """

    sizes: Mapping[str, int]
    model: Axes = ()
    scatter: int | None = None
    tables: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    lookup: Axes = ()
    experts: Axes = ()
    stacks: Axes = ()

    def count(self, axes: Iterable[str]) -> int:
        """Return the ranks along axes."""
        return math.prod(self.sizes[axis] for axis in axes)

    def dividing(self, axes: Axes, size: int) -> Axes:
        """Return the longest prefix of axes among which so many can be shared out evenly."""
        taken: Axes = ()
        for axis in axes:
            if not size or size % self.count((*taken, axis)):
                break
            taken = (*taken, axis)
        return taken


@dataclass(frozen=True)
class Query:
    """What a rule is asked: a node, its operands' whole types and layouts, and what the mesh is for.

    `free` says which operands may lie in any way at no cost: weights, and inputs that nobody has read yet;
    their layouts are what is known of them so far. `units` are the equal pieces, heads, that the last
    dimension of the result is later cut into: 0 where it is not.
    """

    node: Node
    types: tuple[TensorType | None, ...]
    layouts: tuple[Layout | None, ...]
    free: tuple[bool, ...]
    policy: Policy
    units: int = 0

    def local(self, layout: Layout, index: int = 0) -> tuple[int, ...]:
        """Return the shape of a result on one rank."""
        return local_shape(self.node.types[index].shape, layout, self.policy)


@dataclass(frozen=True)
class NodeSplit:
    """How a node runs on a rank: the layouts that it wants of its operands, and those of its results.

    `attrs` are the attributes that differ there; `lookup` are axes over which the rows of the first operand
    are split, so that indices (the operand behind the table, number `indices`) count from a rank's first
    row and others' rows are zeros.
    """

    operands: tuple[Layout | None, ...]
    results: tuple[Layout, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    lookup: Axes = ()
    indices: int = 1


Rule = Callable[[Query], NodeSplit]
SPLITS: dict[str, Rule] = {}


def splits(*ops: str) -> Callable[[Rule], Rule]:
    """List a rule as that of these ops; an op has one."""

    def listed(rule: Rule) -> Rule:
        for op in ops:
            if op in SPLITS:
                raise ValueError(f"op {op} has two layout rules")
            SPLITS[op] = rule
        return rule

    return listed


def local_shape(shape: Sequence[int], layout: Layout, policy: Policy) -> tuple[int, ...]:
    """Return the shape of a rank's part of a value. Raises `UserError` where a dimension does not divide."""
    counts = [policy.count(axes) for axes in layout.dims]
    for size, count in zip(shape, counts, strict=True):
        if size % count:
            raise UserError(f"a dimension of {size} does not divide among {count} ranks")
    return tuple(size // count for size, count in zip(shape, counts, strict=True))


def kept_whole(query: Query) -> NodeSplit:
    """NodeSplit for an op without a rule: every rank computes all of it."""
    wanted = tuple(None if t is None else Layout.whole(t.rank) for t in query.types)
    return NodeSplit(wanted, tuple(Layout.whole(t.rank) for t in query.node.types))


def by_rows(query: Query, whole: Iterable[int]) -> NodeSplit:
    """NodeSplit for an op of one shape in and out, each of whose results needs all of some dimensions.

    Operands behind the first, which have fewer dimensions or ones of size 1, are wanted whole.
    """
    first = query.layouts[0]
    assert first is not None
    layout = first.settled.without(whole)
    rest = tuple(None if t is None else Layout.whole(t.rank) for t in query.types[1:])
    results = tuple(Layout(layout.dims[: t.rank]) for t in query.node.types)
    return NodeSplit((layout, *rest), results)


def joint(query: Query, shape: tuple[int, ...], but: Iterable[int] = ()) -> tuple[Axes, ...]:
    """Return the axes of each dimension of a shape that operands broadcast to.

    A dimension is split as the operand that splits it furthest; in doubt as the first that is not free, the
    larger before the smaller. Dimensions `but` are whole.
    """
    dims: list[Axes] = [WHOLE] * len(shape)
    used: set[str] = set()
    skipped = set(but)
    for _, layout, kind in _ranked(query):
        for i, axes in enumerate(layout.dims, len(shape) - len(layout.dims)):
            if i < 0 or i in skipped or kind.shape[i - len(shape)] != shape[i]:
                continue
            longer = axes[: len(dims[i])] == dims[i]
            new = axes[len(dims[i]) :] if longer else ()
            for axis in new:
                if axis in used:
                    break
                dims[i] = (*dims[i], axis)
                used.add(axis)
    return tuple(dims)


def _ranked(query: Query) -> list[tuple[int, Layout, TensorType]]:
    """Return the operands that are there, those first that decide how others lie."""
    present = [
        (i, layout, kind)
        for i, (layout, kind) in enumerate(zip(query.layouts, query.types, strict=True))
        if layout is not None and kind is not None
    ]
    return sorted(present, key=lambda x: (query.free[x[0]], -x[2].size, x[0]))


def aligned(kind: TensorType, dims: Sequence[Axes], shape: Sequence[int]) -> Layout:
    """Return how an operand lies that broadcasts to a shape so split: dimensions of size 1 are whole."""
    behind = dims[len(dims) - kind.rank :] if kind.rank else ()
    sizes = shape[len(shape) - kind.rank :] if kind.rank else ()
    return Layout(
        tuple(
            axes if size == full else WHOLE
            for axes, size, full in zip(behind, kind.shape, sizes, strict=True)
        )
    )
