"""Elementwise work that follows a product, done on its tiles: residuals, gates (SwiGLU, GeGLU), masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtia_emu.kernels.rows.tape import Tape, parse

from ..gradients.marks import mark_of
from ..graph import Match, Node, Rewrite, Skip
from ..ops.matmul_map import epilogue
from .base import Rule, Rules, become, building
from .fuse_maps import splice, tape_of

PRODUCTS = ("matmul", "matmul_map", "conv")


@dataclass(frozen=True)
class FuseTails(Rules):
    """Fuse an elementwise op into the product that it follows, also behind a reshape that keeps columns.

    So a residual is added, a mask applied, and a SwiGLU's gate multiplied, on the tiles of the product.
    `max_inputs` bounds the operands of the fused product, its two factors aside.
    """

    max_inputs: int = 6

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._fuse,)

    def _fuse(self, node: Node, match: Match) -> Rewrite | Skip | None:
        after = tape_of(node, match)
        if after is None:
            return None
        skipped: Skip | None = None
        for position, value in enumerate(node.inputs):
            product = _product(value, node, match)
            if not isinstance(product, Node):
                skipped = product or skipped
                continue
            inputs = (product.output, *product_extras(product))
            tape = product_tape(product)
            names, tape = splice(tape, inputs, after, node.inputs, position, product.type.dtype)
            if len(names) - 1 > self.max_inputs:
                skipped = Skip(f"the fused product would have {len(names) - 1} operands besides its factors")
                continue
            b = building(node, match)
            if mark_of(product) != mark_of(
                node
            ):  # a gradient's product is no part of the optimiser that reads it
                b.origin = product.origin
            attrs: dict[str, Any] = {"tape": str(tape), "to": node.type.dtype.name}
            if product.op == "conv":
                joined = b.add("conv", *product.inputs[:2], *names[1:], **(dict(product.attrs) | attrs))
                return become(node, b, joined)
            attrs["shape"] = node.type.shape
            return become(node, b, b.add("matmul_map", *product.inputs[:2], *names[1:], **attrs))
        return skipped


def _product(value: str, node: Node, match: Match) -> Node | Skip | None:
    """Return the product that `value` is, seen through a reshape; it must have no other user."""
    view = match.producer(value, "reshape")
    source = view.inputs[0] if view is not None else value
    maker = match.producer(source, *PRODUCTS)
    if maker is not None and maker.op == "conv" and view is not None:
        return None
    if maker is None or not maker.type.dtype.is_float or match.type_of(value).shape != node.type.shape:
        return None
    if match.only_user(value) is not node or (view is not None and match.only_user(source) is not view):
        return Skip("the product has other users")
    if not node.type.rank or maker.type.shape[-1] != node.type.shape[-1]:
        return Skip("the product is seen in a shape of other columns")
    extras = [match.type_of(v) for v in product_extras(maker)]
    if view is not None and any(t.size > 1 or t.rank > node.type.rank for t in extras):
        return Skip("the product's own operands do not broadcast to the shape that it is seen in")
    return maker


def product_extras(maker: Node) -> tuple[str, ...]:
    """Return the operands of a product's own tape, in its order: for matmul scale, then bias."""
    if maker.op != "matmul":
        return maker.inputs[2:]
    bias, scale = (*maker.inputs[2:], "", "")[:2]
    return tuple(v for v in (scale, bias) if v)


def product_tape(maker: Node) -> Tape:
    """Return what a product does to its result before it stores it; x0 is the result."""
    if maker.op != "matmul":
        return parse(str(maker.attrs["tape"]))
    bias, scale = (*maker.inputs[2:], "", "")[:2]
    return epilogue((bool(scale), bool(bias)), str(maker.attrs.get("activation", "none")))
