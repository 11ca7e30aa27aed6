"""Motifs of several like nodes: what passes join, and what looks like it but must stay apart."""

from __future__ import annotations

from .grower import Grower
from .motifs import SMOOTH, motif, tail


@motif
def siblings(g: Grower) -> None:
    """Products of one input with weights of many widths; some have a bias, an activation, a view."""
    x = g.value(2, 4)
    k = g.of(x)[-1]
    products = []
    for _ in range(g.pick((2, 3))):
        n = g.pick((1, 2, 4, 6))
        weight = g.const((k, n), k**-0.5 if k else 1.0)
        if not g.pick(range(4)):
            weight = g.op("transpose", g.const((n, k), k**-0.5 if k else 1.0), perm=(1, 0))
        y = g.op("matmul", x, weight)
        if g.chance():
            y = g.either("add", y, g.const((n,)))
        if not g.pick(range(3)):
            y = g.op(g.pick(SMOOTH), y)
        if not g.pick(range(3)):
            y = _seen_otherwise(g, y)
        products.append(g.add(y))
    alike = [v for v in products if g.of(v) == g.of(products[0])]
    if len(alike) > 1:
        g.add(g.op(g.pick(("mul", "add", "sub")), *alike[:2]))
    elif g.chance() and len({g.of(v)[:-1] for v in products}) == 1:
        g.add(g.op("concat", *products, axis=len(g.of(products[0])) - 1))


def _seen_otherwise(g: Grower, y: str) -> str:
    """Return a product's result split into heads, or turned."""
    shape = g.of(y)
    if shape[-1] % 2 == 0 and g.chance():
        split = g.op("reshape", y, shape=(*shape[:-1], 2, shape[-1] // 2))
        rank = len(shape) + 1
        return (
            g.op("transpose", split, perm=(*range(rank - 3), rank - 2, rank - 3, rank - 1))
            if g.chance()
            else split
        )
    return g.op("transpose", y, perm=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2))


@motif
def tables(g: Grower) -> None:
    """Several embedding bags, most of one width; joined along the features, or one feeding another."""
    bags, width = g.pick((1, 2, 4)), g.pick((1, 4, 6))
    mode = g.pick(("sum", "mean", "max"))
    bag_results = []
    for _ in range(g.pick((2, 3, 4))):
        pooling = g.pick((1, 2, 5))
        table = g.const((g.pick((3, 8)), width if g.pick(range(4)) else 2))
        ids = g.input((bags, pooling), g.pick(("int64", "int64", "int32")))
        looked = g.op("gather", table, ids, axis=0)
        pool_mode = mode if g.pick(range(4)) else "sum"
        bag_results.append(g.add(g.op(f"reduce_{pool_mode}", looked, axes=(1,), keepdims=False)))
    if g.chance():
        dense = g.const((g.of(bag_results[0])[-1], width))
        bag_results.append(g.add(g.op("matmul", bag_results[0], dense)))
    g.add(g.op("concat", *bag_results, axis=1))
    tail(g)


@motif
def cache(g: Grower) -> None:
    """What is new behind what is past, as a cache of keys grows: an output, and read here or not."""
    heads, past, new, d = g.pick((1, 2)), g.size(), g.pick((1, 2)), g.pick((2, 4))
    shape = (1, heads, past, d)
    old = g.input(shape)
    fresh = g.input((1, heads, new, d))
    if g.chance():
        fresh = g.op("mul", fresh, g.const((d,)))
    axis = 2 if g.pick(range(4)) or past != new else 1
    grown = g.op("concat", *((old, fresh) if g.pick(range(5)) else (fresh, old)), axis=axis)
    g.keep(grown)
    if g.chance():
        q = g.input((1, heads, g.pick((1, 3)), d))
        rows = len(g.of(grown))
        turned = g.op("transpose", grown, perm=(*range(rows - 2), rows - 1, rows - 2))
        if g.of(grown)[1] == heads:
            g.add(g.op("softmax", g.op("matmul", q, turned), axis=3))
    if not g.pick(range(4)):
        g.add(g.op("tanh", old))  # another reader of the past


@motif
def experts(g: Grower) -> None:
    """Rows times gathered weights, one for each choice or several; summed over choices or not."""
    tokens, each, many = g.size(), g.pick((1, 2, 3)), g.pick((3, 5))
    k, n = g.pick((1, 4, 6)), g.pick((1, 4, 6))
    chosen = g.input((tokens, each), g.pick(("int64", "int32")))
    left = g.chance()  # the weights are the left operand
    own = g.op("gather", g.const((many, n, k) if left else (many, k, n), k**-0.5), chosen, axis=0)
    rows = 1 if g.pick(range(4)) else 2
    x = g.input((tokens, each if g.chance() else 1, *((k, rows) if left else (rows, k))))
    y = g.op("matmul", own, x) if left else g.op("matmul", x, own)
    if g.chance():
        y = g.op(g.pick(SMOOTH), y)
    g.add(g.op("reduce_sum", y, axes=(1,), keepdims=False) if g.chance() else y)
    tail(g)


JOINT = ("siblings", "tables", "cache", "experts")
"""The motifs of this file, by name."""
