"""Elementwise work that follows a product, done on its tiles: residuals, gates, masks."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.kernels.tape import Tape, parse

from ..graph import Match, Node, Rewrite, Skip
from ..ops.matmul_map import epilogue
from .base import Rule, Rules, become, building
from .maps import splice, tape_of


@dataclass(frozen=True)
class Tails(Rules):
    """Fuse an elementwise op into the product that it follows, also behind a reshape that keeps columns."""

    max_inputs: int = 6

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._fuse,)

    def _fuse(self, node: Node, match: Match) -> Rewrite | Skip | None:
        after = tape_of(node, match)
        if after is None:
            return None
        for position, value in enumerate(node.inputs):
            found = _product(value, node, match)
            if found is None:
                continue
            maker, before = found
            if len(maker.inputs) + len(node.inputs) > self.max_inputs + 3:
                return Skip("the fused product would have too many operands")
            inputs = (maker.output, *product_extras(maker))
            names, tape = splice(before, inputs, after, node.inputs, position, maker.type.dtype)
            if names[0] != maker.output:
                return Skip("the product is used in more than one place")
            b = building(node, match)
            a, right = maker.inputs[:2]
            fused = b.add("matmul_map", a, right, *names[1:], tape=str(tape), shape=node.type.shape, to=node.type.dtype.name)
            return become(node, b, fused)
        return None


def _product(value: str, node: Node, match: Match) -> tuple[Node, Tape] | None:
    """Return the product that `value` is, seen through a reshape, and its own tape; only for a single user."""
    if match.only_user(value) is not node or match.type_of(value).shape != node.type.shape:
        return None
    view = match.producer(value, "reshape")
    source = view.inputs[0] if view is not None else value
    maker = match.producer(source, "matmul", "matmul_map")
    if maker is None or (view is not None and match.only_user(source) is not view):
        return None
    if maker.type.shape[-1] != node.type.shape[-1] or not maker.type.dtype.is_float:
        return None
    if view is not None and any(match.type_of(v).size > 1 for v in product_extras(maker)):
        return None  # what broadcasts over the product's shape may not over the reshaped one
    return maker, product_tape(maker)


def product_extras(maker: Node) -> tuple[str, ...]:
    """Return the operands of a product's own tape, in its order: for matmul scale, then bias."""
    if maker.op == "matmul_map":
        return maker.inputs[2:]
    bias, scale = (*maker.inputs[2:], "", "")[:2]
    return tuple(v for v in (scale, bias) if v)


def product_tape(maker: Node) -> Tape:
    """Return what a product does to its result before it stores it; x0 is the result."""
    if maker.op == "matmul_map":
        return parse(str(maker.attrs["tape"]))
    bias, scale = (*maker.inputs[2:], "", "")[:2]
    return epilogue((bool(scale), bool(bias)), str(maker.attrs.get("activation", "none")))
