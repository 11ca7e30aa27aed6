"""Work on the result of a product, done on each tile before it is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import Match, Node, Rewrite, Skip
from ..ops.matmul import ACTIVATIONS
from .base import Rule, Rules, become, building, either, scalar


@dataclass(frozen=True)
class Epilogue(Rules):
    """Fold into matmul: constant factors of operands and result (scale), an added row (bias), an activation."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_operand_scale, _result_scale, _bias, _activation)


def _plain(node: Node | None) -> bool:
    """Return whether a product has no activation yet."""
    return node is not None and node.attrs.get("activation", "none") == "none"


def _parts(node: Node) -> tuple[str, str, str, str]:
    """Return a, b, bias and scale, "" where absent."""
    a, b, *extras = node.inputs
    bias, scale = (*extras, "", "")[:2]
    return a, b, bias, scale


def _operand_scale(node: Node, match: Match) -> Rewrite | None:
    """(a c) b = (a b) c for a number c, behind views too: attention scales queries or keys."""
    if node.op != "matmul" or not node.type.dtype.is_float:
        return None
    a, b, bias, scale = _parts(node)
    for index, value in ((0, a), (1, b)):
        turned = match.producer(value, "transpose")
        product = match.producer(turned.inputs[0] if turned is not None else value, "mul")
        if product is None or (turned is not None and match.only_user(turned.inputs[0]) is None):
            continue
        if match.only_user(value) is None:
            continue
        for x, c in either(product):
            factor = scalar(match, c)
            before = 1.0 if not scale else scalar(match, scale)
            if factor is None or before is None or match.type_of(x) != product.type:
                continue
            make = building(node, match)
            bare = make.add("transpose", x, **turned.attrs) if turned is not None else x
            left, right = (bare, b) if index == 0 else (a, bare)
            number = make.constant([factor * before], node.type.dtype.numpy)
            return become(node, make, make.add("matmul", left, right, bias, number, **node.attrs))
    return None


def _result_scale(node: Node, match: Match) -> Rewrite | None:
    """(a b) c for a number c."""
    if node.op != "mul" or not node.type.dtype.is_float:
        return None
    for value, c in either(node):
        product, factor = match.producer(value, "matmul"), scalar(match, c)
        if product is None or factor is None or match.only_user(value) is not node or not _plain(product):
            continue
        a, b, bias, scale = _parts(product)
        before = 1.0 if not scale else scalar(match, scale)
        if bias or before is None or product.type != node.type:
            continue
        make = building(node, match)
        number = make.constant([factor * before], node.type.dtype.numpy)
        return become(node, make, make.add("matmul", a, b, "", number, **product.attrs))
    return None


def _bias(node: Node, match: Match) -> Rewrite | Skip | None:
    """a b + row."""
    if node.op != "add":
        return None
    for value, row in either(node):
        product = match.producer(value, "matmul")
        if product is None or not _plain(product) or not product.type.dtype.is_float:
            continue
        a, b, bias, scale = _parts(product)
        if bias:
            return Skip("the product has a bias already")
        if match.only_user(value) is not node:
            return Skip("the product has other users")
        if product.type != node.type or math.prod(match.type_of(row).shape) != node.type.shape[-1]:
            continue
        make = building(node, match)
        flat = make.add("reshape", row, shape=node.type.shape[-1:])
        return become(node, make, make.add("matmul", a, b, flat, *([scale] if scale else []), **product.attrs))
    return None


def _activation(node: Node, match: Match) -> Rewrite | Skip | None:
    """f(a b + row)."""
    if node.op not in ACTIVATIONS or node.op in ("copy", "none"):
        return None
    product = match.producer(node.inputs[0], "matmul")
    if product is None or not _plain(product) or product.type != node.type:
        return None
    if match.only_user(node.inputs[0]) is not node:
        return Skip("the product has other users")
    make = building(node, match)
    return become(node, make, make.add("matmul", *product.inputs, **{**product.attrs, "activation": node.op}))
