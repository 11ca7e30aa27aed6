"""Mixtures in which every expert computes every row and a mask hides what a row is not routed to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ..build import NodeBuilder
from ..graph import Match, Node, Rewrite, Skip
from .base import become, building, either
from .expert_masks import MASKS, Column, Mask, column_of, mask_of
from .expert_rows import EXPERT, FEATURE, ONE, ChoiceRows, Roles, RoutedRows

NEAR = 64  # nodes behind a sum over experts among which its mask is looked for
SEEN = Skip("an expert that a row is not routed to adds to it, or is no product of its rows")


def summed_apart(node: Node, match: Match) -> Rewrite | Skip | None:
    """expert 0 of x * share 0 + expert 1 of x * share 1 + ..."""
    if node.op != "add" or not node.type.dtype.is_float:
        return None
    user = match.only_user(node.output)
    if user is not None and user.op == "add" and user.type.shape == node.type.shape:
        return None  # a part of a longer sum
    terms = list(_terms(node, match, node.type.shape))
    found = [(term, _times_share(match, term)) for term in terms]
    shared = [(term, times) for term, times in found if times is not None]
    mask = shared[0][1].column.mask if shared else None
    if mask is None or match.type_of(mask.chosen).shape[-1] >= mask.experts:
        return None
    own = {times.column.expert: (term, times) for term, times in shared if times.column.mask == mask}
    if sorted(own) != list(range(mask.experts)):
        return Skip(f"{len(own)} of {mask.experts} experts are added up")
    b = building(node, match)
    routed = RoutedRows(match, b, mask)
    if node.type.shape[:-1] != routed.lead:
        return Skip("the sum is not of the rows that are routed")
    roles = (*range(len(routed.lead)), FEATURE)
    lanes = [own[e][1] for e in range(mask.experts)]
    left = routed.rows(tuple(times.value for times in lanes), roles)
    share = routed.rows(tuple(times.share for times in lanes), (*roles[:-1], ONE))
    made = _sum(routed, routed.product(left, share)) if left is not None and share is not None else ""
    if not made:
        return SEEN
    total, taken = b.add("reshape", made, shape=node.type.shape), {term for term, _ in own.values()}
    for term in terms:
        if term not in taken and not _zero(match, term):
            total = b.add("add", total, term)
    return become(node, b, total)


def _terms(node: Node, match: Match, shape: tuple[int, ...]) -> Iterator[str]:
    """Return what a sum of sums adds up."""
    pending = list(node.inputs)
    while pending:
        value = pending.pop(0)
        inner = match.producer(value, "add")
        if inner is not None and match.only_user(value) is not None and inner.type.shape == shape:
            pending[:0] = inner.inputs
        else:
            yield value


def _zero(match: Match, value: str) -> bool:
    """Return whether a value is a constant of zeros, with which sums begin."""
    const = match.const(value)
    return const is not None and const.present and not const.array(value).any()


@dataclass(frozen=True)
class TimesShare:
    """A product of what an expert makes and its share, a column of a mask."""

    value: str
    share: str
    column: Column


def _times_share(match: Match, term: str) -> TimesShare | None:
    """Return the two operands of a product with a column of a mask."""
    node = match.producer(term, "mul")
    if node is None or match.only_user(term) is None:
        return None
    for value, share in either(node):
        column = column_of(match, share)
        if column is not None and match.type_of(value).shape == node.type.shape:
            return TimesShare(value, share, column)
    return None


def _sum(routed: RoutedRows, rows: ChoiceRows | None) -> str:
    """Return the sum over a token's choices, "" for what is no sum of these alone."""
    return routed.summed(rows) if rows is not None and rows.routed and rows.hidden else ""


def summed_together(node: Node, match: Match) -> Rewrite | Skip | None:
    """reduce_sum over experts, or a product over them with the mask."""
    if node.op not in ("reduce_sum", "matmul") or not node.type.dtype.is_float or node.type.rank > 4:
        return None
    if node.op == "reduce_sum" and len(node.attrs["axes"]) != 1:
        return None
    if node.op == "matmul" and (node.attrs or len([v for v in node.inputs if v]) > 2):
        return None
    mask = _mask_near(match, node)
    if mask is None or match.type_of(mask.chosen).shape[-1] >= mask.experts:
        return None
    for place in range(node.type.rank):
        b = building(node, match)
        routed = RoutedRows(match, b, mask)
        made = _reduced(routed, node, place) if node.op == "reduce_sum" else _contracted(routed, node, place)
        if made:
            return become(node, b, _placed(b, routed, made, node, place))
    return SEEN


def _mask_near(match: Match, node: Node) -> Mask | None:
    """Return the mask of a routing behind a node, whose experts it sums over."""
    if node.op == "matmul":
        count = match.type_of(node.inputs[0]).shape[-1]
    else:
        count = match.type_of(node.inputs[0]).shape[node.attrs["axes"][0]]
    if count not in match.widths(*MASKS):
        return None
    pending, seen = list(node.inputs), set(node.inputs)
    while pending and len(seen) < NEAR:
        value = pending.pop(0)
        mask = mask_of(match, value) if match.type_of(value).shape[-1:] == (count,) else None
        if mask is not None and mask.experts == count:
            return mask
        maker = match.producer(value)
        new = [v for v in maker.inputs if v and v not in seen] if maker is not None else []
        seen.update(new)
        pending += new
    return None


def _roles(lead: tuple[int, ...], shape: tuple[int, ...], place: int) -> Roles | None:
    """Return what axes are of where features are at `place`, and tokens, or ones, at all others."""
    roles, left = list[int](), list(enumerate(lead))
    for axis, size in enumerate(shape):
        if axis == place:
            roles.append(FEATURE)
        elif left and size == left[0][1]:
            roles.append(left.pop(0)[0])
        elif size == 1:
            roles.append(ONE)
        else:
            return None
    return None if left else tuple(roles)


def _reduced(routed: RoutedRows, node: Node, place: int) -> str:
    """Return the sum over an axis of experts, [tokens, features]; "" where features are not at `place`."""
    (axis,), shape = node.attrs["axes"], routed.match.type_of(node.inputs[0]).shape
    kept = (*shape[:axis], *shape[axis + 1 :])
    at = place - (place > axis) if node.attrs["keepdims"] else place
    roles = _roles(routed.lead, kept, at)
    if roles is None or (node.attrs["keepdims"] and place == axis):
        return ""
    return _sum(routed, routed.rows(node.inputs[:1], (*roles[:axis], EXPERT, *roles[axis:])))


def _contracted(routed: RoutedRows, node: Node, place: int) -> str:
    """Return the product over experts as the sum of what it multiplies."""
    shapes = [routed.match.type_of(v).shape for v in node.inputs[:2]]
    rank = node.type.rank
    roles = _roles(routed.lead, node.type.shape, place)
    if (
        roles is None
        or place < rank - 2
        or 1 not in node.type.shape[-2:]
        or any(len(s) != rank for s in shapes)
    ):
        return ""
    if any(s[:-2] != node.type.shape[:-2] for s in shapes):
        return ""
    *lead, i, j = roles
    left = routed.rows(node.inputs[:1], (*lead, i, EXPERT))
    right = routed.rows(node.inputs[1:2], (*lead, EXPERT, j))
    return _sum(routed, routed.product(left, right)) if left is not None and right is not None else ""


def _placed(b: NodeBuilder, routed: RoutedRows, made: str, node: Node, place: int) -> str:
    """Return [tokens, features] as the node's result, which has features at `place`."""
    size = node.type.shape[place]
    before = prod(node.type.shape[:place])
    if before == routed.tokens:
        return b.add("reshape", made, shape=node.type.shape)
    parts = b.add("reshape", made, shape=(before, routed.tokens // before, size))
    return b.add("reshape", b.add("transpose", parts, perm=(0, 2, 1)), shape=node.type.shape)
