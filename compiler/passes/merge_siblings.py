"""Products that read one input, as one product whose columns they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from mtia_emu.types import TensorType

from ..build import NodeBuilder
from ..graph import Match, Node, Rewrite, Skip
from ..lower.views import View, packed, whole
from ..ops.base import integers
from .base import Rule, Rules, building, is_read

WEIGHTS = {"matmul": 1, "matmul_map": 1, "matmul_packed": 3}  # operands, after the first, that are the matrix


@dataclass(frozen=True)
class MergeSiblings(Rules):
    """Make products of one input with constant weights one product, of which each result is some columns.

    One launch then reads the input once and fills the array once. It costs nothing as long as each result
    stays a view: a product is left out whose result is an output, or is seen in a shape that its columns
    among the others would have to be copied for. `max_columns` bounds the joint product.
    """

    prunes: ClassVar[bool] = True
    rounds: ClassVar[int] = 1  # what it makes has no siblings left

    max_columns: int = 1 << 16

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._join,)

    def _join(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if not _is_plain(node, match) or not is_read(node, match):
            return None
        family = [n for n in match.users(node.inputs[0]) if _is_plain(n, match) and is_read(n, match)]
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
    """Return whether a node is a product of floats with a constant matrix of its own.

    What else it reads must be a constant for each column, or one value for all columns.
    """
    if node.op not in WEIGHTS or node.type.rank < 2 or not node.type.dtype.is_float:
        return False
    last = 1 + WEIGHTS[node.op]
    for value in filter(None, node.inputs[1:last]):
        weights = match.const(value)
        if weights is None or weights.type.rank != 2 or match.only_user(value) is not node:
            return False
    return all(_shared(v, match) or _by_column(v, node, match) for v in node.inputs[last:] if v)


def _shared(value: str, match: Match) -> bool:
    kind = match.type_of(value)
    return kind.rank == 0 or kind.shape[-1] == 1


def _by_column(value: str, node: Node, match: Match) -> bool:
    const = match.const(value)
    return const is not None and const.type.shape == node.type.shape[-1:]


def _alike(node: Node, match: Match) -> tuple[object, ...]:
    """Return what products must have in common to be one."""
    own = [v if not v or _shared(v, match) else match.type_of(v).dtype for v in node.inputs[2:]]
    attrs = [(k, v) for k, v in node.attrs.items() if k != "shape"]
    weights = match.type_of(node.inputs[1]).dtype
    return node.op, weights, node.type.dtype, node.type.shape[:-1], own, attrs


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
    ends = list(accumulate(n.type.shape[-1] for n in family))
    shape = (*node.type.shape[:-1], ends[-1])
    attrs = dict(node.attrs) | ({"shape": shape} if "shape" in node.attrs else {})
    operands = [_beside(b, family, i) for i in range(1, len(node.inputs))]
    product = b.add(node.op, node.inputs[0], *operands, fold=False, **attrs)
    renames = {}
    for member, end in zip(family, ends, strict=True):
        first = [0] * (len(shape) - 1) + [end - member.type.shape[-1]]
        steps = (1,) * len(shape)
        renames[member.output] = b.add("slice", product, starts=first, ends=[*shape[:-1], end], steps=steps)
    return b.rewrite(renames)


def _beside(b: NodeBuilder, family: list[Node], operand: int) -> str:
    """Return an operand of all products: the one that they share, or constants, columns beside columns."""
    values = [n.inputs[operand] for n in family]
    kind = b.type_of(values[0]) if values[0] else None
    if kind is None or (len(set(values)) == 1 and (not kind.rank or kind.shape[-1] == 1)):
        return values[0]
    return b.add("concat", *values, axis=kind.rank - 1, hint=f"{values[0]}.joined")
