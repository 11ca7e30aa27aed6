"""Einsum of one or two operands as transposes, reshapes and one matmul."""

from __future__ import annotations

import math

from mtia_emu.errors import UserError

from .spelling import Call, Unsupported


def einsum(c: Call, equation: str, operands: list[str]) -> str:
    """Return the value of an equation: sums over letters that only one operand has, then a batched matmul."""
    terms, result = _parse(c, equation, operands)
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=True):
        for letter, size in zip(term, c.type(value).shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise Unsupported(
                    f"its equation, {equation}, broadcasts '{letter}': {sizes[letter]} and {size}"
                )
    reduced = [_sum_alone(c, i, terms, operands, result) for i in range(len(operands))]
    if len(reduced) == 1:
        value, term = reduced[0]
        return _arrange(c, value, term, result)
    return _product(c, *reduced[0], *reduced[1], result, sizes)


def _parse(c: Call, equation: str, operands: list[str]) -> tuple[list[str], str]:
    text = equation.replace(" ", "")
    if "." in text:
        raise Unsupported(f"its equation, {equation}, has an ellipsis")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(x for x in set(left) - {","} if left.count(x) == 1))
    if len(terms) != len(operands) or any(
        len(t) != c.type(v).rank for t, v in zip(terms, operands, strict=False)
    ):
        raise UserError(
            f"Einsum: equation {equation!r} does not fit operands {[str(c.type(v)) for v in operands]}"
        )
    if any(len(set(t)) != len(t) for t in (*terms, result)):
        raise Unsupported(f"its equation, {equation}, repeats a letter in one term")
    if not set(result) <= set(left):
        raise UserError(f"Einsum: equation {equation!r} has a result letter that no operand has")
    return terms, result


def _sum_alone(c: Call, index: int, terms: list[str], operands: list[str], result: str) -> tuple[str, str]:
    others = set(result).union(*(set(t) for i, t in enumerate(terms) if i != index))
    term = terms[index]
    axes = tuple(i for i, letter in enumerate(term) if letter not in others)
    if not axes:
        return operands[index], term
    value = c.add("reduce_sum", operands[index], axes=axes, keepdims=False)
    return value, "".join(x for x in term if x in others)


def _arrange(c: Call, value: str, term: str, wanted: str) -> str:
    return c.add("transpose", value, perm=tuple(term.index(letter) for letter in wanted))


def _product(c: Call, a: str, left: str, b: str, right: str, result: str, sizes: dict[str, int]) -> str:
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
