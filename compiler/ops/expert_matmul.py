"""Products of rows with the experts that they are routed to, and how rows are put in turns of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.streams.routing import loads, reached
from mtia_emu.types import FP32, INT32, CopyWork, DType, ExpertsWork, TensorType, dtype_of

from ..graph import Attrs
from .backward import Back, gradient, no_gradient
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, integer, need, register
from .embedding_bag import rows_of
from .layout import WHOLE, Layout, NodeSplit, Query, splits
from .matmul import product

ROUTED_PRODUCTS = ("expert_matmul", "expert_matmul_packed")  # with routed experts: x, weights, chosen, ...
LAW = "uniform"  # by which rows go to experts, where nothing is said


def expert_loads(rows: int, experts: int, each: int, attrs: Attrs) -> tuple[int, ...]:
    """Return how many of `rows` rows, each for `each` experts, an expert is thought to get, [experts].

    Where there are `of` experts in all, these are the most popular: those of the rank with most to do.
    """
    hint, among = integer(attrs, "each", 1), integer(attrs, "of", experts)
    if each == 1 and hint > 1 and rows % hint == 0:
        rows, each = rows // hint, min(hint, among)
    own = loads(str(attrs.get("law", LAW)), rows, among, each)[:experts]
    return own if any(own) or not rows else (1, *own[1:])


def rank_shares(attrs: Attrs) -> tuple[float, ...]:
    """Return the share of rows that go to each rank in an exchange with experts, the fullest first."""
    law = str(attrs.get("law", LAW))
    return reached(law, integer(attrs, "experts"), integer(attrs, "each"), integer(attrs, "size"))


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, weights, chosen = (need(t) for t in types[:3])
    if x.rank != 2 or weights.rank != 3 or chosen.rank != 2:
        raise UserError(
            "needs x [rows, k], weights [experts, k, n] and chosen [tokens, each], not "
            f"{x}, {weights}, {chosen}"
        )
    index_dtype(chosen)
    if x.dtype != weights.dtype:
        raise UserError(f"operands differ in dtype: {x.dtype} and {weights.dtype}")
    if x.shape[1] != weights.shape[1]:
        raise UserError(f"inner sizes differ: {x} and {weights}")
    tokens, each = chosen.shape
    if x.shape[0] not in (tokens, tokens * each):
        raise UserError(f"{x} has neither a row a token of {chosen} nor one for each of its experts")
    among = integer(attrs, "of", weights.shape[0])
    if not 0 < each <= among or among < weights.shape[0]:
        raise UserError(f"a token goes to {each} of {among} experts (right: 1 to all of them)")
    return (TensorType(_summed(x.dtype), (tokens * each, weights.shape[2])),)


def _summed(kind: DType) -> DType:
    """Return the type of sums of products: of operands of 8 bits, that of the accumulators."""
    return (FP32 if kind.is_float else INT32) if kind.bits == 8 else kind


def _expert_matmul(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, weights = array(arrays[0]), array(arrays[1])
    return (routed_product(x, weights.__getitem__, weights.shape, array(arrays[2]), attrs),)


def routed_product(
    x: Array, weights: Callable[[int], Array], shape: tuple[int, ...], chosen: Array, attrs: Attrs
) -> Array:
    """Return each choice of a token times the weights of its expert, [tokens * each, n].

    `weights` gives those [k, n] of one of the experts of `shape` [experts, k, n].
    """
    experts, _, n = shape
    chosen = _experts_of(chosen, experts, attrs)
    tokens, each = chosen.shape
    rows = np.repeat(x, each, axis=0) if len(x) == tokens else x
    out = np.zeros((tokens * each, n), _summed(dtype_of(x)).numpy)
    flat = chosen.reshape(-1)
    for expert in np.unique(flat):
        mine = flat == expert
        if expert < experts:
            out[mine] = product(rows[mine], weights(int(expert)))
    if (flat == experts).any():
        out[flat == experts] = out[np.argmin(flat)]
    return out


def _experts_of(chosen: Array, experts: int, attrs: Attrs) -> Array:
    """Return the experts chosen; `experts` for one that is not among these, where there are more (`of`).

    Where none is among these, the first choice goes to the first: what is not anyone's needs a row to copy.
    """
    if integer(attrs, "of", experts) == experts:
        return rows_of(chosen, experts, "expert")
    own = np.where((chosen < 0) | (chosen >= experts), experts, chosen)
    if own.size and own.min() == experts:
        own.reshape(-1)[0] = 0
    return own


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    weights = need(types[1])
    return routed_count(types, results, attrs, weights.bytes // max(weights.shape[0], 1))


def routed_count(types: Types, results: tuple[TensorType, ...], attrs: Attrs, expert_bytes: int) -> Count:
    """Return the work of a product with routed experts, of whose weights `expert_bytes` are read each."""
    x, weights, chosen = (need(t) for t in types[:3])
    experts, k, n = weights.shape
    rows = results[0].shape[0]
    there = [load for load in expert_loads(chosen.shape[0], experts, chosen.shape[1], attrs) if load]
    if "of" in attrs:
        rows = sum(there)
    read = x.bytes + len(there) * expert_bytes + chosen.bytes
    sizes = {"batch": len(there), "m": -(-rows // max(len(there), 1)), "k": k, "n": n, "rows": rows}
    sizes["expert_bytes"] = expert_bytes
    return Count(ExpertsWork, sizes, read_bytes=read)


register(
    Op(
        "expert_matmul",
        "out[t * each + j] = x[t] @ weights[chosen[t, j]], of weights [experts, k, n]; x may have one for "
        "each choice. Weights of experts that nobody chooses are not read; `law` is how popular experts are "
        "where no values tell, `each` how many rows one after another are of the same token, `of` how many "
        "experts there are where others have the rest: a choice outside these gives the row of the first "
        "choice of the lowest expert. Products of 8 bits stay sums in fp32 or int32",
        (3, 3),
        _infer,
        _expert_matmul,
        _count,
        (),
        ("law", "each", "of"),
    )
)


@splits("expert_matmul")
def _split(query: Query) -> NodeSplit:
    """Split tokens as they come, weights as those of any product, and experts over their own axes.

    A rank multiplies the rows that go to its experts; it has zeros for all others, and the result owes a sum.
    Rows that come so from a product by the same choices are taken as they come.
    """
    policy, (x, _, chosen) = query.policy, query.layouts
    assert x is not None and chosen is not None
    (tokens, each), (experts, _, n) = need(query.types[2]).shape, need(query.types[1]).shape
    weights = query.free[1]
    inner = x.dims[1] if weights else WHOLE
    columns = policy.dividing(policy.model, n) if weights and not inner else WHOLE
    left = tuple(a for a in policy.experts if a not in inner)
    over = policy.dividing(left, experts) if weights else WHOLE
    taken = {*inner, *columns, *over, *policy.model}
    came = x.settled.dims[0] or chosen.settled.dims[0]
    rows = policy.dividing(tuple(a for a in came if a not in taken), tokens)
    result = Layout((rows, columns)).owing((*inner, *over))
    mask = f"{experts} by {query.node.inputs[2]}"
    if over and not inner:
        result = replace(result, mask=mask)
    own = x.mask == mask and set(x.sums) == set(over) and need(query.types[0]).shape[0] == tokens * each
    wanted = (
        Layout((rows, inner), x.sums if own else ()),
        Layout((over, inner, columns)),
        Layout((rows, WHOLE)),
    )
    return NodeSplit(wanted, (result,), {"of": experts} if over else {}, lookup=over, indices=2)


def _infer_route(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    chosen = need(types[0])
    index_dtype(chosen)
    integer(attrs, "experts")
    turns, rows = integer(attrs, "turns"), integer(attrs, "rows")
    if chosen.rank != 2 or min(turns, rows) < 1:
        raise UserError(
            f"needs chosen [tokens, each], and at least 1 of turns and rows, not {chosen}, {turns}, {rows}"
        )
    shapes = ((turns, 2), (1, turns * rows), (1, turns * rows), (1, chosen.size))
    return tuple(TensorType(INT32, shape) for shape in shapes)


def _route(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    """Sort by expert, and cut each expert's rows into turns."""
    chosen = array(arrays[0])
    turns, rows, experts = (integer(attrs, name) for name in ("turns", "rows", "experts"))
    flat = _experts_of(chosen, experts, attrs).reshape(-1)
    order = np.argsort(flat, kind="stable")[: np.count_nonzero(flat < experts)]
    begin = np.searchsorted(flat[order], np.arange(experts))
    nth = np.arange(len(order)) - begin[flat[order]]  # of the rows of its expert
    new = nth % rows == 0
    turn = np.cumsum(new) - 1
    if len(order) and turn[-1] >= turns:
        raise UserError(f"routing takes {turn[-1] + 1} turns, there are {turns}")
    table, source, place = np.zeros((turns, 2)), np.zeros(turns * rows), np.zeros(len(flat))
    table[turn[new], 0] = flat[order][new]
    np.add.at(table[:, 1], turn, 1)
    at = turn * rows + nth % rows
    source[at], place[order] = order, at
    token = source // max(chosen.shape[1], 1)
    rows_of_turns = (x.reshape(1, -1) for x in (token, source, place))
    return tuple(x.astype(np.int32) for x in (table, *rows_of_turns))


def _count_route(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    read, written = need(types[0]).bytes, sum(t.bytes for t in results)
    return Count(CopyWork, read_bytes=read, write_bytes=written)


register(
    Op(
        "route",
        "rows in turns of experts: a table [turns, 2] of each turn's expert and its rows, the token and the "
        "choice of each row of a turn, and where each choice of chosen [tokens, each] went. Where there are "
        "`of` experts, a choice outside these goes nowhere: it is said to have gone where the first did",
        (1, 1),
        _infer_route,
        _route,
        _count_route,
        ("experts", "turns", "rows"),
        ("of",),
    )
)

no_gradient("it is of whole numbers", "route")


@gradient("expert_matmul")
def _back(b: Back) -> tuple[str, str, str]:
    """Of a row by its expert: g W^T, summed over a token's choices; of W: x^T g over the expert's rows.

    The second is a product for each expert of all rows, those of other experts as 0.
    """
    tokens, each = b.type(2).shape
    experts, k, _ = b.type(1).shape
    x = weights = ""
    if b.wants(0):
        attrs = {name: v for name, v in b.node.attrs.items() if name == "law"}
        x = b.add("expert_matmul", b.grad, b.swapped(b[1]), b[2], **attrs)
        if b.type(0).shape[0] != tokens * each:
            x = b.add("reduce_sum", b.reshape(x, (tokens, each, k)), axes=(1,), keepdims=False)
    if b.wants(1):
        rows = b[0]
        if b.type(0).shape[0] != tokens * each:
            rows = b.add("expand", b.reshape(rows, (tokens, 1, k)), shape=(tokens, each, k))
            rows = b.reshape(rows, (tokens * each, k))
        chosen = b.reshape(b[2], (1, tokens * each, 1))
        places = np.arange(experts).reshape(-1, 1, 1).astype(b.type(2).dtype.numpy)
        mine = b.cast(b.add("equal", chosen, b.builder.constant(places)), b.type(0))
        weights = b.add("matmul", b.swapped(b.times(mine, rows)), b.grad)
    return x, weights, ""
