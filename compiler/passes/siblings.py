"""Products that read one input, as one product whose columns they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from mtia_emu.types import TensorType

from ..build import Builder
from ..graph import Graph, Match, Node, Outcome, Rewrite, Skip
from ..ops.base import integers
from ..views import View, packed, whole
from .base import Rule, Rules, building


@dataclass(frozen=True)
class Siblings(Rules):
    """Make products of one input with constant weights one product, of which each result is some columns.

    One launch then reads the input once and fills the array once. It costs nothing as long as each result
    stays a view: a product is left out whose result is an output, or is seen in a shape that its columns
    among the others would have to be copied for. `max_columns` bounds the joint product.
    """

    rounds: ClassVar[int] = 1  # what it makes has no siblings left

    max_columns: int = 1 << 16

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._join,)

    def apply(self, graph: Graph, most: int | None = None) -> tuple[Graph, list[Outcome]]:
        """Return as `Rules.apply` does, without the products that were joined."""
        made, outcomes = super().apply(graph, most)
        return made if made is graph else made.prune(), outcomes

    def _join(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if not _is_plain(node, match) or not _is_read(node, match):
            return None
        family = [n for n in match.users(node.inputs[0]) if _is_plain(n, match) and _is_read(n, match)]
        family = [n for n in family if _alike(n, match) == _alike(node, match)]
        if len(family) < 2:
            return None
        whole_width = sum(n.type.shape[-1] for n in family)
        if whole_width > self.max_columns:
            return Skip(f"the joint product would have {whole_width} columns, {self.max_columns} are allowed")
        reason = _why_not(node, family, match)
        family = [n for n in family if not _why_not(n, family, match)]
        if reason or len(family) < 2:
            return Skip(reason or "the products of the same input cannot be joined")
        return _joined(node, family, match)


def _is_plain(node: Node, match: Match) -> bool:
    """Return whether a node is a product of floats with a constant matrix of its own, and a constant bias."""
    if node.op != "matmul" or not node.type.dtype.is_float or len(node.inputs) > 3:
        return False
    shapes = [c.type.shape if (c := match.const(v)) else () for v in node.inputs[1:]]
    if len(shapes[0]) != 2 or any(s != shapes[0][1:] for s in shapes[1:]):
        return False
    return node.type.rank > 1 and match.only_user(node.inputs[1]) is node


def _is_read(node: Node, match: Match) -> bool:
    """Return whether anything reads a node's result: one that was joined has no reader left."""
    return bool(match.users(node.output)) or match.is_output(node.output)


def _alike(node: Node, match: Match) -> tuple[object, ...]:
    """Return what products must have in common to be one."""
    return [match.type_of(v).dtype for v in node.inputs], node.type.dtype, tuple(node.attrs.items())


def _why_not(node: Node, family: list[Node], match: Match) -> str:
    """Return why a result would have to be copied out of the joint product; "" where it need not."""
    if match.is_output(node.output):
        return f"%{node.output} is an output of the model, which lies by itself"
    alone = whole("", node.type)
    width = sum(n.type.shape[-1] for n in family)
    joint = TensorType(node.type.dtype, (*node.type.shape[:-1], width))
    among = View("", node.type.dtype, node.type.shape, packed(joint.shape))
    for reader in _copies(node.output, alone, among, match):
        return f"its columns would be copied for {reader}"
    return ""


def _copies(value: str, alone: View, among: View, match: Match) -> Iterator[str]:
    """Yield the readers, through moves of elements, that see a value as a view only where it lies alone."""
    for user in match.users(value):
        if user.op == "reshape":
            plain, seen = alone.reshape(user.type.shape), among.reshape(user.type.shape)
        elif user.op == "transpose":
            perm = integers(user.attrs, "perm")
            plain, seen = alone.transpose(perm), among.transpose(perm)
        else:
            plain = seen = None
        if plain is not None and seen is None:
            yield f"%{user.output}"
        elif plain is not None and seen is not None:
            yield from _copies(user.output, plain, seen, match)


def _joined(node: Node, family: list[Node], match: Match) -> Rewrite:
    """Return the joint product in the node's place, and slices in place of all results."""
    b = building(node, match)
    operands = [_beside(b, family, i) for i in range(1, len(node.inputs))]
    product = b.add("matmul", node.inputs[0], *operands, fold=False, **node.attrs)
    shape = b.type_of(product).shape
    ends = list(accumulate(n.type.shape[-1] for n in family))
    renames = {}
    for member, end in zip(family, ends, strict=True):
        start = end - member.type.shape[-1]
        first, last = [0] * len(shape), [*shape[:-1], end]
        first[-1] = start
        renames[member.output] = b.add("slice", product, starts=first, ends=last, steps=(1,) * len(shape))
    return b.rewrite(renames)


def _beside(b: Builder, family: list[Node], operand: int) -> str:
    """Return a constant operand of all products, columns beside columns."""
    values = [n.inputs[operand] for n in family]
    return b.add("concat", *values, axis=b.type_of(values[0]).rank - 1, hint=f"{values[0]}.joined")
