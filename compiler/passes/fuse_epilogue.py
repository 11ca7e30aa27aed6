"""Work on the result of a product, done on each tile before it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Match, Node, Rewrite, Skip
from ..ops.matmul import ACTIVATIONS
from .base import Rule, Rules, become, building, either, is_held, is_row, scalar


@dataclass(frozen=True)
class FuseEpilogue(Rules):
    """Fold into matmul: numbers that multiply operands or result (scale), a row (bias), an activation."""

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


def _factor(match: Match, scale: str, factor: str) -> float | None:
    """Return the number that is `scale` ("" for none) times `factor`; None where these are no numbers."""
    before, more = scalar(match, scale) if scale else 1.0, scalar(match, factor)
    if before is None or more is None or not is_held(before * more):
        return None
    return before * more


def _operand_scale(node: Node, match: Match) -> Rewrite | Skip | None:
    """(a c) b = (a b) c for a number c, behind a transpose too: attention scales queries or keys."""
    if node.op != "matmul" or not node.type.dtype.is_float:
        return None
    a, b, bias, scale = _parts(node)
    for index, value in ((0, a), (1, b)):
        turned = match.producer(value, "transpose")
        scaled = turned.inputs[0] if turned is not None else value
        product = match.producer(scaled, "mul")
        for x, c in either(product) if product is not None else ():
            number = _factor(match, scale, c)
            if number is None or match.type_of(x) != match.type_of(scaled):
                continue
            if match.only_user(value) is None or match.only_user(scaled) is None:
                return Skip(f"the scaled operand %{scaled} has other users")
            make = building(node, match)
            bare = make.add("transpose", x, **turned.attrs) if turned is not None else x
            left, right = (bare, b) if index == 0 else (a, bare)
            factor = make.constant([number], node.type.dtype.numpy)
            return become(node, make, make.add("matmul", left, right, bias, factor, **node.attrs))
    return None


def _result_scale(node: Node, match: Match) -> Rewrite | Skip | None:
    """(a b) c for a number c."""
    if node.op != "mul" or not node.type.dtype.is_float:
        return None
    for value, c in either(node):
        product = match.producer(value, "matmul")
        if product is None or scalar(match, c) is None or product.type != node.type:
            continue
        a, b, bias, scale = _parts(product)
        if bias or not _plain(product):
            return Skip("the product has a bias or an activation already")
        if match.only_user(value) is not node:
            return Skip("the product has other users")
        number = _factor(match, scale, c)
        if number is None:
            return Skip(
                "the product has a scale that is not one number, or a narrow format does not hold both"
            )
        make = building(node, match)
        factor = make.constant([number], node.type.dtype.numpy)
        return become(node, make, make.add("matmul", a, b, "", factor, **product.attrs))
    return None


def _bias(node: Node, match: Match) -> Rewrite | Skip | None:
    """a b + row."""
    if node.op != "add":
        return None
    for value, row in either(node):
        product = match.producer(value, "matmul")
        if product is None or not product.type.dtype.is_float or product.type != node.type or row == value:
            continue
        if not is_row(match.type_of(row), node.type.shape[-1]):
            continue
        a, b, bias, scale = _parts(product)
        if bias or not _plain(product):
            return Skip("the product has a bias or an activation already")
        if match.only_user(value) is not node:
            return Skip("the product has other users")
        make = building(node, match)
        flat = make.add("reshape", row, shape=node.type.shape[-1:])
        return become(
            node, make, make.add("matmul", a, b, flat, *([scale] if scale else []), **product.attrs)
        )
    return None


def _activation(node: Node, match: Match) -> Rewrite | Skip | None:
    """f(a b + row)."""
    if node.op not in ACTIVATIONS or node.op in ("copy", "none") or not node.type.dtype.is_float:
        return None
    product = match.producer(node.inputs[0], "matmul")
    if product is None or product.type != node.type:
        return None
    if not _plain(product):
        return Skip("the product has an activation already")
    if match.only_user(node.inputs[0]) is not node:
        return Skip("the product has other users")
    make = building(node, match)
    return become(node, make, make.add("matmul", *product.inputs, **{**product.attrs, "activation": node.op}))
