"""Weights of few bits meet the product that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building
from .fuse_tails import product_extras, product_tape


@dataclass(frozen=True)
class KeepPacked(Rules):
    """Make x @ dequantise(codes, scales) one product, so that weights move as codes all the way to the PEs.

    Codes that something else reads too are moved for each of their readers.
    """

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_packed,)


def _packed(node: Node, match: Match) -> Rewrite | Skip | None:
    """x @ dequantise(...), with whatever follows on the tile."""
    if node.op not in ("matmul", "matmul_map"):
        return None
    weights = match.producer(node.inputs[1], "dequantise")
    if weights is None:
        return None
    if match.type_of(node.inputs[0]).dtype != weights.type.dtype or not weights.type.dtype.is_float:
        return Skip("operand and scales differ in dtype")
    zeros = weights.inputs[2] if len(weights.inputs) > 2 else ""
    b = building(node, match)
    attrs: dict[str, Any] = dict(weights.attrs) | {
        "tape": str(product_tape(node)),
        "shape": node.type.shape,
        "to": node.type.dtype.name,
    }
    operands = (node.inputs[0], *weights.inputs[:2], zeros, *product_extras(node))
    return become(node, b, b.add("matmul_packed", *operands, fold=False, **attrs))
