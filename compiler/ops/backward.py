"""Going back through an op: its gradient rule, and the walk that applies the rules of many nodes.

A rule is given the gradients of a node's results and returns one for each operand, "" where it has none. It
may return one of a shape that the operand was broadcast to: `pull_back` undoes that, for all rules alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, TensorType

from .base import integers

if TYPE_CHECKING:
    from ..build import NodeBuilder
    from ..graph import Node


@dataclass(frozen=True)
class Back:
    """A node on the way back: `given` are the gradients of its results, "" where nothing depends on one.

    `wanted` says of each operand whether anybody asks for its gradient.
    """

    builder: NodeBuilder
    node: Node
    given: tuple[str, ...]
    wanted: tuple[bool, ...]

    @property
    def grad(self) -> str:
        """Return the gradient of the first result, which must be there."""
        return self.given[0]

    @property
    def out(self) -> str:
        """Return the first result."""
        return self.node.outputs[0]

    @property
    def count(self) -> int:
        """Return how many operands there are."""
        return len(self.node.inputs)

    def __getitem__(self, index: int) -> str:
        """Return an operand."""
        return self.node.inputs[index]

    def has(self, index: int) -> bool:
        """Return whether an optional operand is there."""
        return index < self.count and bool(self.node.inputs[index])

    def wants(self, index: int) -> bool:
        """Return whether the gradient of an operand is asked for."""
        return index < self.count and self.wanted[index]

    def type(self, value: str | int) -> TensorType:
        """Return the type of a value, or of an operand given by its position."""
        return self.builder.type_of(self[value] if isinstance(value, int) else value)

    def add(self, op: str, *inputs: str, **attrs: object) -> str:
        """Return the result of an op on values."""
        return self.builder.add(op, *inputs, hint=f"{self.node.name}.grad", **attrs)  # type: ignore[arg-type]

    def sum(self, *values: str) -> str:
        """Return values of one shape added up."""
        total = values[0]
        for value in values[1:]:
            total = self.add("add", total, value)
        return total

    def times(self, *values: str | float) -> str:
        """Return the product of values; the first is no number."""
        product = str(values[0])
        for value in values[1:]:
            other = value if isinstance(value, str) else self.scalar(value, product)
            product = self.add("mul", product, other)
        return product

    def scalar(self, value: float, like: str) -> str:
        """Return a scalar constant of the dtype of a value."""
        return self.builder.constant(value, self.type(like).dtype.numpy)

    def zeros(self, kind: TensorType) -> str:
        """Return zeros of a type."""
        none = self.builder.constant(0, kind.dtype.numpy)
        return self.add("expand", none, shape=kind.shape) if kind.shape else none

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Return a value in another shape."""
        return self.add("reshape", value, shape=tuple(shape))

    def cast(self, value: str, to: TensorType) -> str:
        """Return a value in the dtype of a type; one that is narrower is stored so, whatever the model runs
        in."""
        kind = self.type(value).dtype
        if kind == to.dtype:
            return value
        rounds = {"rounds": True} if to.dtype.is_float and to.dtype.bits < kind.bits else {}
        return self.add("cast", value, to=to.dtype.name, **rounds)

    def wide(self, value: str) -> str:
        """Return a value in fp32 where it is in fewer bits: sums and roots need the digits."""
        kind = self.type(value)
        return self.cast(value, TensorType(FP32, kind.shape)) if kind.dtype.bits < FP32.bits else value

    def swapped(self, value: str) -> str:
        """Return a value with its last two axes exchanged."""
        rank = self.type(value).rank
        return self.add("transpose", value, perm=(*range(rank - 2), rank - 1, rank - 2))

    def through(self, *results: str) -> tuple[str, ...]:
        """Return the gradients of the operands through other nodes that make the same results of them."""
        return self.through_each(pair for pair in zip(results, self.given, strict=True) if pair[1])

    def through_each(self, parts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """Return the operands' gradients through nodes that make parts of the results, with a gradient each.

        A part is gone back through before the next is asked for, so that what it holds need not be kept.
        """
        sums = Sums(self.builder)
        wanted = {v for v, asked in zip(self.node.inputs, self.wanted, strict=True) if v and asked}
        for result, given in parts:
            nodes = _between(self.builder, [result], self.node.inputs)
            sums.put(result, given, self.node.name)
            pull_back(self.builder, nodes, sums, reached(nodes, wanted))
        inputs = self.node.inputs  # an operand that stands twice has one gradient, the sum
        return tuple("" if v in inputs[:i] else sums.of(v) for i, v in enumerate(inputs))


BackwardRule = Callable[[Back], Sequence[str]]
R = TypeVar("R", bound=BackwardRule)
GRADIENTS: dict[str, BackwardRule] = {}
FLAT: dict[str, str] = {}  # ops whose gradient is 0 wherever there is one, and why
NO_GRADIENT: dict[str, str] = {}  # ops without a rule, and why


def gradient(*names: str) -> Callable[[R], R]:
    """List a function as the gradient rule of ops."""

    def listed(rule: R) -> R:
        for name in names:
            _unlisted(name)
            GRADIENTS[name] = rule
        return rule

    return listed


def flat(reason: str, *names: str) -> None:
    """List ops whose results do not change with their operands, but in steps: no gradient passes them."""
    for name in names:
        _unlisted(name)
        FLAT[name] = reason


def no_gradient(reason: str, *names: str) -> None:
    """List ops that have no gradient rule; a model that needs one is refused with the reason."""
    for name in names:
        _unlisted(name)
        NO_GRADIENT[name] = reason


def _unlisted(name: str) -> None:
    if name in GRADIENTS or name in FLAT or name in NO_GRADIENT:
        raise ValueError(f"the gradient of op {name} is listed twice")


class Sums:
    """The gradients of values, each the sum of what its readers give back, in their order.

    Gradients of parts that lie side by side are joined, not padded with zeros and added.
    """

    def __init__(self, builder: NodeBuilder) -> None:
        self.builder = builder
        self._parts: dict[str, list[_Part]] = {}
        self._sums: dict[str, str] = {}

    def of(self, value: str) -> str:
        """Return the gradient of a value, all of whose readers have given theirs; "" without one."""
        if value not in self._sums:
            parts = self._parts.get(value, [])
            if not parts:
                return ""
            outer, self.builder.origin = self.builder.origin, parts[-1].origin
            self._sums[value] = self._sum(parts)
            self.builder.origin = outer
        return self._sums[value]

    def put(self, value: str, gradient: str, hint: str) -> None:
        """Add a gradient, which may have the shape that the value was broadcast to."""
        whole = undone(self.builder, gradient, self.builder.type_of(value), f"{hint}.grad")
        self._parts.setdefault(value, []).append(_Part(whole, f"{hint}.grad", self.builder.origin))

    def _sum(self, parts: Sequence[_Part]) -> str:
        total, *rest = _side_by_side(self.builder, parts)
        whole = total.gradient
        for part in rest:
            whole = self.builder.add("add", whole, part.gradient, hint=part.hint)
        return whole


@dataclass(frozen=True)
class _Part:
    """What one reader gives back, and of which node the nodes come that add it."""

    gradient: str
    hint: str
    origin: str


def _side_by_side(builder: NodeBuilder, parts: Sequence[_Part]) -> list[_Part]:
    """Return parts of which those that are padded with zeros to fill an axis together are one.

    They must all be cut along the same axis, lie one behind another from its start to its end, and overlap
    nowhere.
    """
    padded: dict[int, dict[int, tuple[int, str, _Part]]] = {}
    for part in parts:
        node = builder.producer(part.gradient, "pad")
        at = None if node is None else _along(node, builder.type_of(node.inputs[0]).shape)
        if node is not None and at is not None:
            axis, start, end = at
            padded.setdefault(axis, {}).setdefault(start, (end, node.inputs[0], part))
    for axis, cut in padded.items():
        chosen, place = list[tuple[str, _Part]](), 0
        while place in cut:
            place, value, part = cut[place]
            chosen.append((value, part))
        if len(chosen) > 1 and place == builder.type_of(parts[0].gradient).shape[axis]:
            first = chosen[0][1]
            whole = builder.add("concat", *(value for value, _ in chosen), hint=first.hint, axis=axis)
            inside = [part for _, part in chosen]
            rest = [part for part in parts if not any(part is other for other in inside)]
            return [replace(first, gradient=whole), *rest]
    return list(parts)


def _along(node: Node, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return the one axis along which a node pads with zeros, and where on it its operand comes to lie."""
    pads, rank = integers(node.attrs, "pads"), len(shape)
    axes = [i for i in range(rank) if pads[i] or pads[rank + i]]
    if len(axes) != 1 or min(pads) < 0 or node.attrs.get("value", 0) or not shape[axes[0]]:
        return None
    (axis,) = axes
    return axis, pads[axis], pads[axis] + shape[axis]


def undone(builder: NodeBuilder, gradient: str, kind: TensorType, hint: str) -> str:
    """Return the gradient of a value of a type, given that of the value broadcast: its copies' sum."""
    given = builder.type_of(gradient)
    if given.shape != kind.shape:
        ahead = given.rank - kind.rank
        more = (i for i, (a, b) in enumerate(zip(given.shape[ahead:], kind.shape, strict=True)) if a != b)
        axes = (*range(ahead), *(ahead + i for i in more))
        gradient = builder.add("reduce_sum", gradient, hint=hint, axes=axes, keepdims=True)
        gradient = builder.add("reshape", gradient, hint=hint, shape=kind.shape)
    if given.dtype != kind.dtype:
        gradient = builder.add("cast", gradient, hint=hint, to=kind.dtype.name)
    return gradient


def reached(nodes: Iterable[Node], sources: Collection[str]) -> set[str]:
    """Return the float values that depend on sources, themselves included, by ways that a gradient takes."""
    active = set(sources)
    for node in nodes:
        if node.op not in FLAT and active.intersection(node.inputs):
            active.update(v for v, t in zip(node.outputs, node.types, strict=True) if t.dtype.is_float)
    return active


def pull_back(builder: NodeBuilder, nodes: Sequence[Node], sums: Sums, active: Collection[str]) -> None:
    """Add to `sums` the gradients of active values through nodes, given in their order, last node first.

    Nodes that this makes say in `origin` which node they come from.
    Raises `UserError` for an op on the way that has no gradient rule.
    """
    for node in reversed(nodes):
        given = tuple(sums.of(v) for v in node.outputs)
        wanted = tuple(v in active for v in node.inputs)
        if not any(given) or not any(wanted) or node.op in FLAT:
            continue
        outer = builder.origin
        builder.origin = outer or f"{node.origin or node.name} (backward)"
        try:
            for value, gradient in zip(node.inputs, _gradients(builder, node, given, wanted), strict=False):
                if gradient and value in active:
                    sums.put(value, gradient, node.name)
        finally:
            builder.origin = outer


def _gradients(
    builder: NodeBuilder, node: Node, given: tuple[str, ...], wanted: tuple[bool, ...]
) -> Sequence[str]:
    """Return what a node's rule gives."""
    if node.op not in GRADIENTS:
        why = NO_GRADIENT.get(node.op, "it has no rule")
        raise UserError(f"{node.op} %{node.output} has no gradient: {why} ({node.origin or node.name})")
    try:
        return GRADIENTS[node.op](Back(builder, node, given, wanted))
    except UserError as error:
        raise UserError(f"the gradient of {node.op} %{node.output}: {error}") from None


def _between(builder: NodeBuilder, results: Iterable[str], sources: Collection[str]) -> list[Node]:
    """Return the nodes that make results of sources, in order."""
    nodes: dict[str, Node] = {}

    def visit(value: str) -> None:
        node = builder.producer(value) if value and value not in sources else None
        if node is not None and node.name not in nodes:
            for operand in node.inputs:
                visit(operand)
            nodes[node.name] = node

    for value in results:
        visit(value)
    return list(nodes.values())


def kept(shape: Sequence[int], axes: Collection[int]) -> tuple[int, ...]:
    """Return a shape with the axes that a reduction takes away left as 1."""
    return tuple(1 if i in axes else size for i, size in enumerate(shape))


def reduced_axes(back: Back) -> tuple[int, ...]:
    """Return the axes of a node that reduces."""
    return integers(back.node.attrs, "axes")
