"""Mixtures of experts as exporters spell them, made products with the experts that rows are routed to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from mtia_emu.streams import parse
from mtia_emu.streams.routing import FLAG
from mtia_emu.types import TensorType

from ..build import NodeBuilder
from ..graph import Const, Match, Node, Rewrite, Skip
from ..ops.collectives import ROUTED
from ..ops.expert_matmul import LAW, ROUTED_PRODUCTS
from .base import Rule, Rules, become, building
from .dense_experts import summed_apart, summed_together

SWAP = (0, 2, 1)
FAR = 64  # nodes behind a value among which its routing is looked for
CHOOSE = ("topk",)


@dataclass(frozen=True)
class RouteExperts(Rules):
    """Make products with gathered weights, and with all experts of which each row takes one, expert products.

    The first is matmul(gather(weights, chosen), x), a vector for each choice. The second is what exporters
    write for rows sorted by expert: a product with each expert, and a chain of where(row < end, ...) over
    them. Where every expert computes every row and a mask of zeros hides what a row is not routed to, what is
    hidden is not computed. `law` is how popular experts are where no values tell: see `streams.parse`.
    """

    law: str = LAW
    rounds: ClassVar[int] = 2

    @property
    def rules(self) -> tuple[Rule, ...]:
        parse(self.law, FLAG)
        return (
            _gathered,
            _gathered_together,
            _sorted,
            summed_apart,
            summed_together,
            partial(_by_law, self.law),
        )


def _by_law(law: str, node: Node, match: Match) -> Rewrite | None:
    """Say by which law rows go to experts."""
    if node.op not in (*ROUTED_PRODUCTS, *ROUTED) or node.attrs.get("law", LAW) == law:
        return None
    b = building(node, match)
    return become(node, b, b.add(node.op, *node.inputs, **{**node.attrs, "law": law}))


def _gathered(node: Node, match: Match) -> Rewrite | Skip | None:
    """matmul(gather(weights, chosen), x), in either order."""
    if node.op != "matmul" or len([v for v in node.inputs if v]) > 2 or node.attrs:
        return None
    for at in (0, 1):
        found = _weights(match, node.inputs[at])
        if found is None:
            continue
        weights, indices, turned = found
        x = node.inputs[1 - at]
        lead = match.type_of(node.inputs[at]).shape[:-2]
        rows, kind = math.prod(lead), match.type_of(x)
        k = kind.shape[-1 if at else -2]
        if kind.size // max(math.prod(kind.shape[:-2]), 1) != k or node.type.shape[:-2] != lead:
            return Skip("several rows meet each gathered weight")
        b = building(node, match)
        right = weights if turned == bool(at == 0) else b.add("transpose", weights, perm=SWAP)
        chosen, each = _choices(b, match, indices, rows)
        left = _tokens(b, match, x, b.type_of(chosen).shape)
        if not left:
            wide = b.add("expand", x, shape=(*lead, *kind.shape[-2:])) if kind.shape[:-2] != lead else x
            left = b.add("reshape", wide, shape=(rows, k))
        made = _product(b, (left, right, chosen), each)
        return become(node, b, b.add("reshape", made, shape=node.type.shape))
    return None


def _gathered_together(node: Node, match: Match) -> Rewrite | None:
    """x @ the weights of a token's choices beside one another, [tokens, k, each * n]."""
    if node.op != "matmul" or len(node.inputs) > 2 or node.attrs or node.type.rank != 3:
        return None
    flat = match.producer(node.inputs[1], "reshape")
    swap = match.producer(flat.inputs[0], "transpose") if flat is not None else None
    if swap is None or swap.attrs["perm"] != (0, 2, 1, 3):
        return None
    tokens, k, each, n = swap.type.shape
    found = _weights(match, swap.inputs[0])
    x = match.type_of(node.inputs[0])
    if found is None or found[2] or node.type.shape != (tokens, 1, each * n) or x.shape[1:] != (1, k):
        return None
    b = building(node, match)
    rows = x.shape[0]
    wide = b.add("expand", node.inputs[0], shape=(tokens, 1, k)) if rows != tokens else node.inputs[0]
    chosen = b.add("reshape", found[1], shape=(tokens, each))
    made = b.add("expert_matmul", b.add("reshape", wide, shape=(tokens, k)), found[0], chosen)
    return become(node, b, b.add("reshape", made, shape=node.type.shape))


def _product(b: NodeBuilder, operands: tuple[str, str, str], each: int) -> str:
    """Return a product with routed experts; `each` of its choices are of one token."""
    hint: dict[str, Any] = {"each": each} if each > 1 and b.type_of(operands[2]).shape[1] == 1 else {}
    return b.add("expert_matmul", *operands, **hint)


def _weights(match: Match, value: str) -> tuple[str, str, bool] | None:
    """Return the weights [experts, .., ..] that are gathered, the indices, and whether they are turned."""
    turned = False
    swap = match.producer(value, "transpose")
    if swap is not None:
        rank = swap.type.rank
        if swap.attrs["perm"] != (*range(rank - 2), rank - 1, rank - 2):
            return None
        turned, value = True, swap.inputs[0]
    gather = match.producer(value, "gather", "gather_nd")
    if gather is None or match.type_of(gather.inputs[0]).rank != 3 or not gather.type.dtype.is_float:
        return None
    indices = match.type_of(gather.inputs[1])
    if gather.op == "gather":
        plain = gather.attrs["axis"] == 0
    else:
        plain = gather.attrs.get("batch_dims", 0) == 0 and indices.rank > 0 and indices.shape[-1] == 1
    if not plain or gather.type.size == 0 or gather.type.rank < 3:
        return None
    return gather.inputs[0], gather.inputs[1], turned


def _choices(b: NodeBuilder, match: Match, indices: str, rows: int) -> tuple[str, int]:
    """Return choices [tokens, each], and how many a token has; [rows, 1] where these are not seen."""
    value, node = indices, match.producer(indices)
    while node is not None and node.op == "reshape":
        value, node = node.inputs[0], match.producer(node.inputs[0])
    kind = match.type_of(value)
    chosen = node is not None and node.op in CHOOSE and value == node.outputs[1]
    if kind.rank == 2 and (chosen or kind.shape[1] > 1):
        return value, kind.shape[1]
    return b.add("reshape", indices, shape=(rows, 1)), _chosen_behind(match, indices, rows)


def _tokens(b: NodeBuilder, match: Match, value: str, chosen: tuple[int, ...]) -> str:
    """Return rows [tokens, k] that a value repeats for each choice; "" where each choice has its own."""
    tokens, each = chosen
    node = match.producer(value)
    while node is not None and node.op == "reshape":
        value, node = node.inputs[0], match.producer(node.inputs[0])
    if node is None or node.op not in ("expand", "tile") or each < 2:
        return ""
    before, after = match.type_of(node.inputs[0]).shape, node.type.shape
    spread = len(before) == len(after) and before[:2] == (tokens, 1) and after[:2] == (tokens, each)
    if not spread or before[2:] != after[2:]:
        return ""
    return b.add("reshape", node.inputs[0], shape=(tokens, math.prod(before[2:])))


def _chosen_behind(match: Match, value: str, rows: int) -> int:
    """Return how many experts a token chooses: by the choice, of so many rows in all, behind a value."""
    pending, seen = [value], {value}
    while pending and len(seen) < FAR:
        node = match.producer(pending.pop(0))
        if node is None:
            continue
        if node.op in CHOOSE and node.types[1].rank == 2 and node.types[1].size == rows:
            return node.types[1].shape[1]
        new = [v for v in node.inputs if v and v not in seen]
        seen.update(new)
        pending += new
    return 1


def _sorted(node: Node, match: Match) -> Rewrite | Skip | None:
    """where(row < end of expert 0, x @ w0, where(row < end of expert 1, x @ w1, ...))."""
    chain = _chain(node, match) if node.op == "where" else None
    if chain is None:
        return None
    ends, products = chain
    user = match.only_user(node.output)
    if user is not None and user.op == "where" and user.inputs[2] == node.output and _chain(user, match):
        return None  # a part of a longer chain
    x = products[0].inputs[0]
    rows = match.type_of(x).shape[0]
    weights = [match.const(p.inputs[1]) for p in products]
    consts = [w for w in weights if w is not None]
    if len(consts) < len(products) or any(w.type != consts[0].type for w in consts):
        return Skip("the experts' weights are not constants of one shape")
    b = building(node, match)
    kind = consts[0].type
    name = b.fresh(f"{products[0].inputs[1]}.experts")
    stacked = b.put(name, Const(TensorType(kind.dtype, (len(consts), *kind.shape)), _stack(consts)))
    chosen = _expert_of(b, ends)
    made = _product(b, (x, stacked, chosen), _chosen_behind(match, ends[0].inputs[1], rows))
    return become(node, b, made)


def _chain(node: Node, match: Match) -> tuple[list[Node], list[Node]] | None:
    """Return the comparisons of a chain and the products that it takes, one more; None for another chain."""
    ends: list[Node] = []
    products: list[Node] = []
    current: Node | None = node
    while current is not None and current.op == "where":
        less = match.producer(current.inputs[0], "less")
        product = match.producer(current.inputs[1], "matmul")
        if less is None or product is None or not _alike(match, [*ends[:1], less], [*products[:1], product]):
            return None
        ends.append(less)
        products.append(product)
        current = match.producer(current.inputs[2], "where", "matmul")
    if current is None or not products or not _alike(match, ends[:1], [products[0], current]):
        return None
    return ends, [*products, current]


def _alike(match: Match, ends: Sequence[Node], products: Sequence[Node]) -> bool:
    """Return whether comparisons are of the same rows, and products of the same matrix."""
    x = match.type_of(products[0].inputs[0])
    row = match.type_of(ends[0].inputs[0])
    of_rows = x.rank == 2 and row.shape == (x.shape[0], 1)
    same_rows = all(e.inputs[0] == ends[0].inputs[0] and match.type_of(e.inputs[1]).size == 1 for e in ends)
    plain = all(len([v for v in p.inputs if v]) == 2 and not p.attrs for p in products)
    return of_rows and same_rows and plain and all(p.inputs[0] == products[0].inputs[0] for p in products)


def _stack(consts: Sequence[Const]) -> Callable[[], np.ndarray] | None:
    """Return what loads constants of one shape as one; None where a value is absent."""
    if not all(c.present for c in consts):
        return None
    return lambda: np.stack([c.array() for c in consts])


def _expert_of(b: NodeBuilder, ends: Sequence[Node]) -> str:
    """Return the expert of each row, int64[rows, 1]: the first that ends behind it, else the last."""
    last = len(ends)
    each = [b.add("reshape", e.inputs[1], shape=(1,)) for e in ends]
    bounds = b.add("reshape", b.add("concat", *each, axis=0) if last > 1 else each[0], shape=(1, last))
    before = b.add("less", ends[0].inputs[0], bounds)
    numbers = b.constant(np.arange(last, dtype=np.float32).reshape(1, last))
    most = b.constant(np.asarray(last, np.float32))
    first = b.add("reduce_min", b.add("where", before, numbers, most), axes=(1,), keepdims=True)
    return b.add("cast", first, to="int64")
