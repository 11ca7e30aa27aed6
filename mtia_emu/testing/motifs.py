"""The pieces of which random graphs are made: what exporters write, and what looks like it but is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtia_emu.compiler.graph import Const

from ..types import FP32, dtype
from .grower import Grower

EPSILON = 0.1  # large, so that norms of nearly equal numbers do not magnify rounding
SMOOTH = ("relu", "sigmoid", "tanh", "gelu", "silu")  # keep magnitudes, and do not jump
Motif = Callable[[Grower], None]
MOTIFS: dict[str, Motif] = {}


def motif(make: Motif) -> Motif:
    """List a function that adds nodes to a graph, under its name."""
    MOTIFS[make.__name__] = make
    return make


@motif
def product(g: Grower) -> None:
    """x @ w with some of: factors before and after, a bias or what looks like one, an activation, a tail."""
    x = g.value(2, 4)
    k, n = g.of(x)[-1], g.size()
    left = g.either("mul", x, g.number(0.5)) if g.chance() else x
    weight = g.const((k, n), k**-0.5 if k else 1.0)
    if g.chance():
        weight = g.op("transpose", g.const((n, k), k**-0.5 if k else 1.0), perm=(1, 0))
    y = g.add(g.op("matmul", left, weight))
    if g.chance():
        y = g.either("mul", y, g.number(0.25)) if g.chance() else g.op("div", y, g.number(3.0))
    if g.chance():
        y = g.either("add", y, g.const(g.pick(((n,), (1, n), (1,), (g.of(y)[-2], 1)))))
    if g.chance():
        y = g.op(g.pick(SMOOTH), y)
    g.add(y)
    tail(g)


@motif
def tail(g: Grower) -> None:
    """Work on the last value: a residual, a gate, a view in between."""
    y = g.values[-1] if g.values else g.value(1, 4)
    shape = g.of(y)
    if len(shape) > 2 and g.chance():
        y = g.op(
            "reshape",
            y,
            shape=(int(np.prod(shape[:-1])), shape[-1]),
        )
    for _ in range(g.pick(range(3))):
        y = g.either(g.pick(("add", "mul", "max")), y, g.pick((g.like(y), y)))
        if g.chance():
            y = g.either("mul", y, g.op("sigmoid", y))
    g.add(g.op("tanh", y) if g.chance() else y)


@motif
def products(g: Grower) -> None:
    """a @ b of two activations with batches, one of which may be shared, the right side maybe transposed."""
    batch, m, k, n = g.shape(0, 2), g.size(), g.size(), g.size()
    shared = tuple(s if g.chance() else 1 for s in batch)[g.pick(range(len(batch) + 1)) :]
    a = g.input((*(batch if g.chance() else shared), m, k))
    if g.chance():
        b = g.input((*shared, k, n))
    else:
        b = g.input((*shared, n, k))
        rank = len(g.of(b))
        b = g.op("transpose", b, perm=(*range(rank - 2), rank - 1, rank - 2))
    bias = g.const((n,)) if g.chance() else ""
    scale = g.const(g.pick(((1,), (n,)))) if g.chance() else ""
    activation = g.pick(("none", *SMOOTH))
    g.add(g.op("matmul", a, b, *((bias, scale) if scale else (bias,)), activation=activation))
    tail(g)


@motif
def norm(g: Grower) -> None:
    """A root-mean-square or layer norm in one of its spellings, some of them over the wrong axis."""
    x = wide = g.value(1, 4)
    rank = len(g.of(x))
    outer = g.chance()  # casts around the norm, as narrow models have them
    if outer:
        wide = g.op("cast", x, to="fp32")
    axes = (rank - 1,) if g.pick(range(5)) else (g.pick(range(rank)),)
    if g.chance():
        wide = g.op("sub", wide, g.op("reduce_mean", wide, axes=axes, keepdims=True))
    real = g.b.type_of(wide).dtype.numpy
    two = g.b.constant(2.0, real)
    square = g.op("mul", wide, wide) if g.chance() else g.op("pow", wide, two)
    mean = g.op("reduce_mean", square, axes=axes, keepdims=True)
    shifted = g.either("add", mean, g.b.constant(EPSILON, real))
    spelling = g.pick(("rsqrt", "reciprocal", "div", "quotient", "pow"))
    if spelling == "div":
        y = g.op("div", wide, g.op("sqrt", shifted))
    elif spelling == "pow":
        y = g.either("mul", wide, g.op("pow", shifted, g.b.constant(-0.5, real)))
    else:
        root = {
            "rsqrt": lambda: g.op("rsqrt", shifted),
            "reciprocal": lambda: g.op("reciprocal", g.op("sqrt", shifted)),
            "quotient": lambda: g.op("div", g.b.constant(1.0, real), g.op("sqrt", shifted)),
        }[spelling]()
        y = g.either("mul", wide, root)
    _weighted(g, x, y, late=outer and g.chance())


def _weighted(g: Grower, x: str, y: str, *, late: bool) -> None:
    """Multiply a norm by a weight and add a bias; `late` casts back after the weight, not before."""
    own = g.kind.name
    n = g.of(x)[-1]
    weight = g.const(g.pick(((n,), (1, n), (g.of(x)[-2] if len(g.of(x)) > 1 else n, 1))))
    if late:
        y = g.op("cast", g.either("mul", g.op("cast", weight, to="fp32"), g.op("cast", y, to="fp32")), to=own)
    else:
        y = g.either("mul", weight, g.op("cast", y, to=own))
    g.add(
        g.either("add", y, g.const(g.pick(((n,), (g.of(y)[-2], 1) if len(g.of(y)) > 1 else (n,)))))
        if g.chance()
        else y
    )


@motif
def rotary(g: Grower) -> None:
    """Half-rotated x by cos and sin, as rotary embeddings are written; sometimes the wrong half first."""
    lead, half = g.shape(1, 3), g.pick((1, 2, 3))
    x = g.input((*lead, 2 * half))
    if g.chance():
        x = g.add(
            g.op(
                "transpose",
                g.input((*lead[1:], lead[0], 2 * half)),
                perm=(len(lead) - 1, *range(len(lead) - 1), len(lead)),
            )
        )
    shape = g.of(x)
    ones, zeros = (1,) * len(shape), (0,) * len(shape)
    low = g.op("slice", x, starts=zeros, ends=(*shape[:-1], half), steps=ones)
    high = g.op("slice", x, starts=(*zeros[:-1], half), ends=shape, steps=ones)
    first, second = (high, low) if g.pick(range(4)) else (low, high)
    turned = g.op("concat", g.op("neg", first), second, axis=len(shape) - 1)
    cos, sin = (g.const(shape[g.pick(range(len(shape))) :]) for _ in range(2))
    g.add(g.either("add", g.either("mul", x, cos), g.either("mul", turned, sin)))


@motif
def attention(g: Grower) -> None:
    """softmax(q k + mask) v over heads, keys and values shared by groups of heads."""
    b, groups, times, m, s, d = (
        g.pick((1, 2)),
        g.pick((1, 2, 3)),
        g.pick((1, 2)),
        g.size(),
        g.size(),
        g.pick((2, 4)),
    )
    heads = groups * times
    q = _split_heads(g, b, m, heads, d)
    k, v = (_repeated(g, _split_heads(g, b, s, groups, d), times) for _ in range(2))
    factor = g.pick(("", "q", "k", "scores", "div"))
    q = g.either("mul", q, g.number(d**-0.5)) if factor == "q" else q
    k = g.either("mul", k, g.number(d**-0.5)) if factor == "k" else k
    if g.chance():
        turned = g.op("transpose", k, perm=(0, 1, 3, 2))
    else:
        flat = g.op("transpose", g.op("reshape", k, shape=(b * heads, s, d)), perm=(0, 2, 1))
        turned = g.op("reshape", flat, shape=(b, heads, d, s))
    scores = g.op("matmul", q, turned)
    if factor in ("scores", "div"):
        scores = (
            g.op("div", scores, g.number(d**0.5))
            if factor == "div"
            else g.either("mul", scores, g.number(d**-0.5))
        )
    scores = _masked(g, scores)
    weights = g.op("softmax", scores, axis=3)
    if g.chance():
        weights = g.op("where", g.op("isnan", weights), g.number(0.0), weights)
    mixed = g.op("matmul", weights, v)
    g.add(g.op("reshape", g.op("transpose", mixed, perm=(0, 2, 1, 3)), shape=(b, m, heads * d)))


def _split_heads(g: Grower, b: int, s: int, heads: int, d: int) -> str:
    """Return [b, heads, s, d], maybe split from [b, s, heads * d]."""
    if g.chance():
        return g.input((b, heads, s, d))
    x = g.input((b, s, heads * d))
    return g.op("transpose", g.op("reshape", x, shape=(b, s, heads, d)), perm=(0, 2, 1, 3))


def _repeated(g: Grower, kv: str, times: int) -> str:
    """Return kv with each head repeated in place."""
    b, groups, s, d = g.of(kv)
    if times == 1:
        return kv
    wide = g.op("expand", g.op("reshape", kv, shape=(b, groups, 1, s, d)), shape=(b, groups, times, s, d))
    return g.op("reshape", wide, shape=(b, groups * times, s, d))


def _causal(g: Grower, scores: str, m: int, s: int, spelling: str) -> str:
    """Return scores without those of later keys, some rows of which may see nothing at all."""
    seen = np.arange(s)[None, :] <= np.arange(m)[:, None] + g.pick((s - m, 0, 1, -1))
    hidden = float(np.finfo(np.float32).min) if g.kind == FP32 else -60000.0  # below all scores
    if (
        spelling == "seen" or not seen.any(axis=1).all()
    ):  # adding to a row without a key would round its scores
        return g.op("where", g.b.constant(seen), scores, g.number(hidden))
    return g.either("add", scores, g.b.constant(np.where(seen, 0.0, g.pick((-np.inf, hidden))), g.kind.numpy))


def _masked(g: Grower, scores: str) -> str:
    """Return scores with a mask added, or put in by `where`: for all heads, for each, of rank 2 to 4."""
    b, heads, m, s = g.of(scores)
    shape = g.pick(((m, s), (1, 1, m, s), (b, 1, m, s), (1, heads, m, s), (heads, m, s), (b, heads, m, s)))
    spelling = g.pick(("none", "add", "computed", "where", "causal", "seen"))
    if spelling == "none":
        return scores
    if spelling in ("causal", "seen"):
        return _causal(g, scores, m, s, spelling)
    mask = g.input(shape) if spelling == "computed" else g.const(shape)
    if spelling == "where":
        allowed = g.op("less", g.op("abs", mask), g.number(1.0))
        return g.op("where", allowed, scores, g.number(-100.0))
    return g.either("add", scores, g.op("tanh", mask) if spelling == "computed" else mask)


@motif
def bag(g: Grower) -> None:
    """Pooled rows of a table: as one op, or a gather and a reduction over this axis or that."""
    rows, d, bags, pooling = g.pick((3, 8)), g.pick((1, 4, 6)), g.size(), g.pick((1, 2, 5))
    spelling = g.pick(("op", "gather", "bytes"))
    ids = g.input((bags, pooling), g.pick(("int64", "int32")))
    mode = g.pick(("sum", "mean", "max"))
    if spelling == "op":
        offsets = np.minimum(np.sort(g.rng.integers(0, bags * pooling + 1, g.size() + 1)), bags * pooling)
        flat = g.op("reshape", ids, shape=(bags * pooling,))
        weights = (g.input((bags * pooling,)),) if mode == "sum" and g.chance() else ()
        ends = g.b.constant(offsets.astype(np.int64))
        g.add(g.op("embedding_bag", g.const((rows, d)), flat, ends, *weights, mode=mode))
        return
    looked = g.op("gather", g.const((rows, d)), ids, axis=0)
    if spelling == "bytes":
        looked = g.op("cast", _dequantised(g, rows, d, ids), to=g.kind.name)
    axis = 1 if g.pick(range(4)) else g.pick((0, 2))
    g.add(g.op(f"reduce_{mode}", looked, axes=(axis,), keepdims=g.chance()))


def _dequantised(g: Grower, rows: int, d: int, ids: str) -> str:
    """Return rows stored in eight bits, with a scale and an offset each."""
    table, scale, offset = (
        g.b.put(g.b.fresh("q"), Const.of(x))
        for x in (
            g.rng.integers(0, 256, (rows, d), np.uint8),
            g.rng.random((rows, 1), np.float32) / 100,
            g.rng.random((rows, 1), np.float32) - 0.5,
        )
    )
    wide = g.op("cast", g.op("gather", table, ids, axis=0), to="fp32")
    scaled = g.either("mul", wide, g.op("gather", scale, ids, axis=0))
    return g.either("add", scaled, g.op("gather", offset, ids, axis=0))


@motif
def elementwise(g: Grower) -> None:
    """A chain of elementwise work over values that broadcast, with casts and comparisons in it."""
    x = g.value()
    for _ in range(g.pick(range(1, 6))):
        spelling = g.pick(("unary", "binary", "binary", "silu", "quotient", "where", "cast", "power"))
        if spelling == "unary":
            x = g.op(g.pick((*SMOOTH, "neg", "abs", "softplus")), x)
        elif spelling == "binary":
            x = g.op(g.pick(("add", "sub", "max", "min")), *g.pick(((x, g.like(x)), (g.like(x), x))))
        elif spelling == "silu":
            x = g.either("mul", x, g.op("sigmoid", x))
        elif spelling == "quotient":
            x = g.op(
                "div",
                x,
                g.op("sqrt", g.op("add", g.op("abs", g.like(x)), g.number(1.0)))
                if g.chance()
                else g.number(7.0),
            )
        elif spelling == "where":
            x = g.op("where", g.op("less", g.value(0, 0), g.number(0.0)), x, g.like(x))
        elif spelling == "cast":
            x = g.op("cast", g.op("cast", x, to=g.pick(("fp32", "fp64"))), to=g.kind.name)
        else:
            x = g.op("pow", g.op("tanh", x), g.number(g.pick((2.0, 3.0))))
        if g.chance():
            g.add(x)
    g.add(x)


@motif
def integers(g: Grower) -> None:
    """Arithmetic of integers and truth values, and what leads from them to floats."""
    kind = g.pick(("int64", "int32", "int8", "uint8"))
    x = g.input(g.shape(0, 3), kind)
    for _ in range(g.pick(range(1, 4))):
        other = g.b.constant(g.rng.integers(1, 9, g.of(x)[-1:]), dtype(kind).numpy)
        x = g.op(g.pick(("add", "mul", "max", "min", "mod", "div")), x, other)
    truth = g.op(g.pick(("equal", "less", "greater_equal")), x, g.b.constant(5, dtype(kind).numpy))
    if g.chance():
        truth = g.op(g.pick(("and", "or", "xor")), truth, g.op("not", g.op("cast", x, to="bool")))
    g.extra += [x, truth]
    y = g.op("where", truth, g.op("cast", x, to=g.kind.name), g.number(-1.0))
    g.add(g.op("mul", y, g.number(1 / 64)))


@motif
def move(g: Grower) -> None:
    """Moves of elements, one after another."""
    x = g.value()
    for _ in range(g.pick(range(1, 5))):
        x = _moved(
            g, x, g.pick(("transpose", "reshape", "slice", "concat", "expand", "pad", "tile", "gather"))
        )
        if g.chance():
            g.add(x)
    g.add(x)


def _moved(g: Grower, x: str, spelling: str) -> str:
    shape = g.of(x)
    rank, axis = len(shape), g.pick(range(max(len(shape), 1)))
    if int(np.prod(shape)) > 2048:
        spelling = "slice"
    if spelling == "reshape" or not rank:
        return g.op(
            "reshape",
            x,
            shape=g.pick(((int(np.prod(shape)),), (*shape, 1)[:5] if rank < 5 else shape, shape)),
        )
    if spelling == "transpose":
        return g.op("transpose", x, perm=g.order(rank))
    if spelling == "slice":
        starts, steps = (tuple(g.pick(c) for _ in shape) for c in ((0, 0, 1), (1, 1, 2)))
        starts = tuple(min(a, n) for a, n in zip(starts, shape, strict=True))
        if g.pick(range(6)) == 0:
            return g.op("slice", x, starts=tuple(n - 1 for n in shape), ends=(-1,) * rank, steps=(-1,) * rank)
        return g.op("slice", x, starts=starts, ends=shape, steps=steps)
    if spelling == "concat":
        same = [v for v in g.values if g.of(v) == shape]
        return g.op("concat", x, g.pick((x, *same)), axis=axis)
    if spelling == "expand":
        return g.op("expand", x, shape=(2, *(g.size() if n == 1 else n for n in shape))[g.pick((0, 1)) :])
    if spelling == "pad":
        return g.op(
            "pad", x, pads=tuple(g.pick((0, 1, 2)) for _ in range(2 * rank)), value=g.pick((0.0, 1.5))
        )
    if spelling == "tile":
        return g.op("tile", x, repeats=tuple(g.pick((1, 2)) for _ in shape))
    if not shape[axis]:
        return x
    ids = g.rng.integers(-shape[axis], shape[axis], g.shape(0, 2))
    return g.op("gather", x, g.b.constant(ids, np.dtype(np.int64)), axis=axis)


@motif
def reduction(g: Grower) -> None:
    """A reduction over any axes, or a softmax over any axis."""
    x = g.value(1, 4)
    rank = len(g.of(x))
    if g.chance():
        g.add(g.op(g.pick(("softmax", "log_softmax")), x, axis=g.pick(range(rank))))
        return
    axes = tuple(a for a in range(rank) if g.chance()) or (rank - 1,)
    kind = g.pick(("sum", "mean", "max", "min"))
    g.add(g.op(f"reduce_{kind}", g.op("tanh", x), axes=axes, keepdims=g.chance()))
    if g.chance():
        whole = g.input(g.shape(1, 2), "int32")
        g.extra.append(g.op(f"reduce_{kind}", whole, axes=(0,), keepdims=g.chance()))


@motif
def rare(g: Grower) -> None:
    """What runs on a core: running sums, the largest elements."""
    x = g.op("tanh", g.value(1, 3))
    rank = len(g.of(x))
    axis = g.pick(range(rank))
    g.add(g.op("cumsum", x, axis=axis, exclusive=False, reverse=g.chance()))
