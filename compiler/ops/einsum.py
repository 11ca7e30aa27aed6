"""Einsum as transposes, reshapes and matmuls, operands joined from the left."""

from __future__ import annotations

import math
import string

import numpy as np

from mtia_emu.errors import UserError

from .spelling import Call


def einsum(c: Call, equation: str, operands: list[str]) -> str:
    """Return the value of an equation: sums over letters that only one operand has, then batched matmuls."""
    terms, result = _parse(c, equation, operands)
    pairs = [_diagonal(c, value, term) for value, term in zip(operands, terms, strict=True)]
    sizes: dict[str, int] = {}
    for value, term in pairs:
        for letter, size in zip(term, c.type(value).shape, strict=True):
            if size != 1 or letter not in sizes:
                if sizes.get(letter, 1) not in (1, size):
                    raise UserError(f"Einsum: {equation!r}: '{letter}' is {sizes[letter]} and {size}")
                sizes[letter] = size
    pairs = [_without_ones(c, value, term, sizes) for value, term in pairs]
    while len(pairs) > 1:
        later = set(result).union(*(set(term) for _, term in pairs[2:]))
        kept = "".join(x for x in sizes if x in later and (x in pairs[0][1] or x in pairs[1][1]))
        reduced = [_sum_alone(c, i, pairs[:2], kept) for i in (0, 1)]
        pairs = [(_product(c, reduced[0], reduced[1], kept, sizes), kept), *pairs[2:]]
    value, term = _sum_alone(c, 0, pairs, result)
    missing = [x for x in result if x not in term]  # of size 1 wherever they stood
    value = c.reshape(value, (*(1 for _ in missing), *c.type(value).shape))
    return _arrange(c, value, "".join(missing) + term, result)


def _parse(c: Call, equation: str, operands: list[str]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result, those of an ellipsis written out."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = [x for x in left if x.isalpha()]
        result = ("..." if "..." in left else "") + "".join(
            sorted(x for x in letters if letters.count(x) == 1)
        )
    ranks = [c.type(v).rank for v in operands]
    fits = len(terms) == len(operands)
    spans = [r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=False)]
    if not fits or any(s < 0 or (s and "..." not in t) for s, t in zip(spans, terms, strict=True)):
        shown = [str(c.type(v)) for v in operands]
        raise UserError(f"Einsum: equation {equation!r} does not fit operands {shown}")
    free = [x for x in string.ascii_letters if x not in equation]
    names = "".join(free[: max(spans, default=0)])
    out = [t.replace("...", names[len(names) - s :]) for t, s in zip(terms, spans, strict=True)]
    result = result.replace("...", names)
    if not set(result) <= set("".join(out)) or len(set(result)) != len(result):
        raise UserError(
            f"Einsum: equation {equation!r} has a result letter twice, or one that no operand has"
        )
    return out, result


def _diagonal(c: Call, value: str, term: str) -> tuple[str, str]:
    """Return a value and its letters, each once: where one stands twice, the diagonal is taken."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first, second = [i for i, x in enumerate(term) if x == letter][:2]
            rest = [i for i in range(len(term)) if i not in (first, second)]
            shape = c.type(value).shape
            if shape[first] != shape[second]:
                raise UserError(f"Einsum: '{letter}' is {shape[first]} and {shape[second]}")
            moved = c.add("transpose", value, perm=(*rest, first, second))
            size = shape[first]
            flat = c.reshape(moved, (*(shape[i] for i in rest), size * size))
            places = c.constant(np.arange(size, dtype=np.int64) * (size + 1))
            value = c.add("gather", flat, places, axis=len(rest))
            term = "".join(term[i] for i in rest) + letter
    return value, term


def _without_ones(c: Call, value: str, term: str, sizes: dict[str, int]) -> tuple[str, str]:
    """Return a value without the axes of size 1 that stand for larger ones: it is the same along them."""
    shape = c.type(value).shape
    kept = [i for i, letter in enumerate(term) if shape[i] == sizes[letter]]
    return c.reshape(value, [shape[i] for i in kept]), "".join(term[i] for i in kept)


def _sum_alone(c: Call, index: int, pairs: list[tuple[str, str]], result: str) -> tuple[str, str]:
    """Return an operand summed over the letters that neither another operand nor the result has."""
    value, term = pairs[index]
    others = set(result).union(*(set(t) for i, (_, t) in enumerate(pairs) if i != index))
    axes = tuple(i for i, letter in enumerate(term) if letter not in others)
    if not axes:
        return value, term
    value = c.add("reduce_sum", value, axes=axes, keepdims=False)
    return value, "".join(x for x in term if x in others)


def _arrange(c: Call, value: str, term: str, order: str) -> str:
    return c.add("transpose", value, perm=tuple(term.index(letter) for letter in order))


def _product(
    c: Call, first: tuple[str, str], second: tuple[str, str], result: str, sizes: dict[str, int]
) -> str:
    """Return the product of two operands, each a value and its letters, with the letters of the result."""
    (a, left), (b, right) = first, second
    batch = [x for x in left if x in right and x in result]
    inner = [x for x in left if x in right and x not in result]
    rows = [x for x in left if x not in right]
    columns = [x for x in right if x not in left]
    shape = {
        name: [sizes[x] for x in group]
        for name, group in (("b", batch), ("m", rows), ("k", inner), ("n", columns))
    }
    m, k, n = (math.prod(shape[x]) for x in "mkn")
    lhs = c.reshape(_arrange(c, a, left, "".join(batch + rows + inner)), (*shape["b"], m, k))
    rhs = c.reshape(_arrange(c, b, right, "".join(batch + inner + columns)), (*shape["b"], k, n))
    product = c.add("matmul" if inner else "mul", lhs, rhs)  # an outer product is elementwise
    full = c.reshape(product, (*shape["b"], *shape["m"], *shape["n"]))
    return _arrange(c, full, "".join(batch + rows + columns), result)
