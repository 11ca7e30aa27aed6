"""Attention as one op, for a kernel that keeps the scores to itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from mtia_emu.kernels.rows.tape import Source, Tape, parse

from ..graph import Const, Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building, scalar
from .causal_ramps import ramp_diagonal
from .fuse_maps import splice, tape_of
from .fuse_tails import product_extras, product_tape

HIDDEN = -3e4  # what adds this or less to a score leaves nothing of its power, in any float format


@dataclass(frozen=True)
class FuseAttention(Rules):
    """Make softmax(q k^T and elementwise work on it) v the op `attention`: its scores reach no shared memory.

    Heads that share keys stay shared. Of a constant causal mask the op is told the diagonal, so that what is
    hidden need not be computed. A guard that makes rows with nothing to see 0 becomes part of the op.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_Fuser().rule,)


@dataclass(frozen=True)
class ScoresTape:
    """The scores on their way to the softmax: a tape of the product and others, and the shape they have."""

    product: Node
    tape: Tape
    extras: tuple[str, ...]


@dataclass(frozen=True)
class AttentionNodes:
    """The nodes of one attention: the product with the values, the softmax, a guard behind it, the scores."""

    values: Node
    softmax: Node
    guard: Node | None
    scores: ScoresTape


@dataclass
class Diagonals:
    """The diagonals of the masks looked at so far, by name and by how they hide."""

    known: dict[tuple[str, bool], int | None] = field(default_factory=dict)

    def of(self, nodes: AttentionNodes, match: Match) -> tuple[int, int] | None:
        """Return which operand of the scores' tape is a causal mask, and its diagonal; None for no mask.

        A key j is hidden from query i where j > i + diagonal.
        """
        scores, shape = nodes.scores, nodes.softmax.type.shape
        for index, name in enumerate(scores.extras, 1):
            where, kind = mask_use(scores.tape, index, scores.extras, match), match.type_of(name)
            if where is None or kind.shape[-2:] != shape[-2:] or kind.size != shape[-2] * shape[-1]:
                continue
            if (name, where) not in self.known:
                self.known[name, where] = _diagonal_at(name, where, match)
            diagonal = self.known[name, where]
            if diagonal is not None:
                return index, diagonal
        return None


def attention_at(node: Node, match: Match) -> AttentionNodes | Skip | None:
    """Return the attention that ends in a product with values, softmax(..) @ v; why it is none, or None."""
    if node.op not in ("matmul", "matmul_map") or any(match.type_of(v).rank != 4 for v in node.inputs[:2]):
        return None
    softmax, guard = _softmax(node.inputs[0], match)
    if softmax is None:
        return None
    if softmax.type.rank != 4 or softmax.attrs["axis"] != 3 or not node.type.dtype.is_float:
        return Skip("the softmax is not over the keys of [batch, heads, queries, keys]")
    scores = _scores(softmax.inputs[0], match)
    if not isinstance(scores, ScoresTape):
        return scores
    if guard and not _is_guard(guard, scores.extras, match):
        return Skip("what follows the softmax is no guard of rows that see nothing")
    nodes = AttentionNodes(node, softmax, guard, scores)
    return _unfit(node, softmax, scores, match) or nodes


@dataclass
class _Fuser:
    """The rule for one graph."""

    diagonals: Diagonals = field(default_factory=Diagonals)

    def rule(self, node: Node, match: Match) -> Rewrite | Skip | None:
        """softmax(..) @ v."""
        nodes = attention_at(node, match)
        return self._fused(nodes, match) if isinstance(nodes, AttentionNodes) else nodes

    def _fused(self, nodes: AttentionNodes, match: Match) -> Rewrite:
        node, scores = nodes.values, nodes.scores
        b = building(node, match)
        batch, heads, queries, _ = nodes.softmax.type.shape
        left, right = scores.product.inputs[:2]
        q = b.add("reshape", left, shape=(batch, heads, queries, match.type_of(left).shape[3]))
        k = b.add("transpose", right, perm=(0, 1, 3, 2))
        attrs: dict[str, Any] = {"tape": str(scores.tape)} | ({"guarded": True} if nodes.guard else {})
        mask = self.diagonals.of(nodes, match)
        attrs |= {"mask": mask[0], "diagonal": mask[1]} if mask else {}
        result = b.add("attention", q, k, node.inputs[1], *scores.extras, fold=False, **attrs)
        after = product_tape(node)
        if not after.steps:
            return become(node, b, b.add("reshape", result, shape=node.type.shape))
        plain = b.add("reshape", result, shape=node.type.shape)  # the tail of the product, on its own again
        kind = node.type.dtype.name
        return become(node, b, b.add("map", plain, *product_extras(node), tape=str(after), to=kind))


def _alone(value: str, match: Match) -> Node | None:
    """Return the node that makes a value of which there is one reader."""
    return match.producer(value) if match.only_user(value) is not None else None


def _seen_through(value: str, match: Match) -> str:
    """Return the value behind reshapes that regroup heads and rows, [b,g,r*m,n] and [b,g*r,m,n]."""
    node = _alone(value, match)
    while node is not None and node.op == "reshape" and node.type.rank == 4:
        before, after = match.type_of(node.inputs[0]).shape, node.type.shape
        regroups = len(before) == 4 and (before[0], before[3]) == (after[0], after[3])
        if not regroups or 0 in before or (before[1] % after[1] and after[1] % before[1]):
            break
        value = node.inputs[0]
        node = _alone(value, match)
    return value


def _softmax(value: str, match: Match) -> tuple[Node | None, Node | None]:
    """Return the softmax behind a value, and the elementwise node between them, where there is one."""
    value = _seen_through(value, match)
    node = _alone(value, match)
    if node is not None and node.op == "cast" and node.type.dtype.is_float:
        node = _alone(node.inputs[0], match)
    if node is not None and node.op == "softmax":
        return node, None
    if node is None or node.op not in ("map", "where"):
        return None, None
    for operand in dict.fromkeys(node.inputs):
        maker = match.producer(operand, "softmax")
        readers = match.users(operand)
        if maker is not None and [n.name for n in readers] == [node.name] and not match.is_output(operand):
            return maker, node
    return None, None


def _scores(value: str, match: Match) -> ScoresTape | Skip | None:
    """Return the product behind a value through elementwise work of its own shape."""
    chain: list[tuple[Node, int]] = []
    while True:
        value = _seen_through(value, match)
        node = _alone(value, match)
        if node is None:
            return (
                Skip(f"%{value} has other users") if match.producer(value, "matmul", "matmul_map") else None
            )
        if node.op in ("matmul", "matmul_map"):
            break
        tape = tape_of(node, match)
        position = _wide_operand(node, match) if tape is not None else None
        if position is None:
            return None
        chain.append((node, position))
        value = node.inputs[position]
    names, tape, between = [node.output, *product_extras(node)], product_tape(node), node.type.dtype
    for user, position in reversed(chain):
        after = tape_of(user, match)
        assert after is not None
        inputs = list(user.inputs)
        inputs[position] = node.output  # seen through reshapes
        names, tape = splice(tape, tuple(names), after, tuple(inputs), position, between)
        between = user.type.dtype
    return ScoresTape(node, tape, tuple(names[1:])) if names[0] == node.output else None


def _wide_operand(node: Node, match: Match) -> int | None:
    """Return which operand of an elementwise node has its shape and leads to a product."""
    for position, value in enumerate(node.inputs):
        if match.type_of(value).shape != node.type.shape or node.inputs.count(value) > 1:
            continue
        maker = _alone(_seen_through(value, match), match)
        if maker is not None and (maker.op in ("matmul", "matmul_map") or tape_of(maker, match) is not None):
            return position
    return None


def _unfit(node: Node, softmax: Node, scores: ScoresTape, match: Match) -> Skip | None:
    """Return why q, k, v and the extras do not make an `attention`; None where they do."""
    batch, heads, queries, keys = softmax.type.shape
    left, right = (match.type_of(v) for v in scores.product.inputs[:2])
    values = match.type_of(node.inputs[1])
    if len({left.dtype, right.dtype, values.dtype, node.type.dtype}) > 1 or left.dtype.name == "fp64":
        return Skip(f"q is {left.dtype}, k {right.dtype}, v {values.dtype}: there is no kernel for these")
    if left.rank != 4 or right.rank != 4 or 0 in (*left.shape, *softmax.type.shape, *values.shape):
        return Skip(f"q is {left}, k {right}: not [batch, heads, rows, columns]")
    groups = right.shape[1]
    if right.shape[:2] != values.shape[:2] or (batch, groups) != left.shape[:2] or values.shape[2] != keys:
        return Skip(f"keys are {right} and values {values}: groups of heads differ")
    if heads % groups or left.shape[2] != heads // groups * queries:
        return Skip(f"{heads} heads of {queries} queries are not {left}")
    shapes = [match.type_of(v).shape for v in scores.extras]
    own = [match.type_of(v) for v in product_extras(scores.product)]
    regrouped = scores.product.type.shape != softmax.type.shape
    if regrouped and any(t.size > 1 and t.rank > 1 for t in own):
        return Skip("the product's own operands are seen in another shape")
    if any(
        len(s) > 4 or any(a not in (1, b) for a, b in zip(s[::-1], softmax.type.shape[::-1], strict=False))
        for s in shapes
    ):
        return Skip("an operand of the scores does not broadcast to them")
    return None


def _is_guard(node: Node, extras: tuple[str, ...], match: Match) -> bool:
    """Return whether a node is where(a row sees nothing, 0, weights)."""
    if node.op == "map":
        steps = parse(str(node.attrs["tape"])).steps
        if [s.function for s in steps] != ["isnan", "where"]:
            return False
        weights = steps[0].sources[0]
        return (
            steps[1].sources[0] == ~0
            and steps[1].sources[2] == weights
            and _zero(steps[1].sources[1], node, match)
        )
    empty = match.producer(node.inputs[0], "equal")
    if empty is None or scalar(match, node.inputs[1]) != 0.0:
        return False
    most, least = match.producer(empty.inputs[0], "reduce_max"), scalar(match, empty.inputs[1])
    return most is not None and most.inputs[0] in extras and least is not None and least <= HIDDEN


def _zero(source: Source, node: Node, match: Match) -> bool:
    if isinstance(source, float):
        return source == 0.0
    return source >= 0 and scalar(match, node.inputs[source]) == 0.0


def mask_use(tape: Tape, index: int, extras: tuple[str, ...], match: Match) -> bool | None:
    """Return how an input hides scores in a tape's last step: by truth (True), by what it adds (False)."""
    used = [i for i, s in enumerate(tape.steps) if index in s.sources]
    if len(used) != 1 or any(s.function != "copy" for s in tape.steps[used[0] + 1 :]):
        return None
    step = tape.steps[used[0]]
    if step.function == "add":
        return False
    if step.function != "where" or step.sources[0] != index:
        return None
    least = step.sources[2]
    if not isinstance(least, float):
        number = scalar(match, extras[least - 1]) if least > 0 else None
        least = 0.0 if number is None else number
    return True if least <= HIDDEN else None


def _diagonal_at(name: str, seen: bool, match: Match) -> int | None:
    """Return the diagonal of a mask: a constant, or a comparison of places that is too large to be one."""
    const = match.const(name)
    if const is not None and const.present:
        return _diagonal_of(const, seen=seen)
    return ramp_diagonal(name, seen, HIDDEN, match)


def _diagonal_of(mask: Const, *, seen: bool) -> int | None:
    """Return d >= 0 where a mask hides key j from query i for j > i + d and nothing else, else None."""
    data = np.asarray(mask.array()).reshape(mask.type.shape[-2:])
    with np.errstate(invalid="ignore"):
        shown = data.astype(bool) if seen else np.asarray(data == 0)
        hidden = ~shown if seen else np.asarray(data.astype(np.float32) <= HIDDEN)
    diagonal = int(shown[0].sum()) - 1
    queries, keys = shown.shape
    right = np.arange(keys)[None, :] <= np.arange(queries)[:, None] + diagonal
    return diagonal if diagonal >= 0 and (shown == right).all() and (hidden == ~right).all() else None
