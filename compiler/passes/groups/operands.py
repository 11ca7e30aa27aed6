"""Products that take an operand as it lies, transposed, in one kernel: BLAS reads it by its strides."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.types import ProductWork

from ...graph import Node
from ...ops.base import integers
from .base import MarkedGraph, Marking, NodeGroup


@dataclass(frozen=True)
class MarkOperands(Marking):
    """Mark transposes that products alone read with the first of these, in its place.

    The axis whose elements lie side by side must be one of the two that a product goes along: so `x^T g` and
    `g w^T`, the gradients of a product, move nothing.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        free, flow = {node.name for node in marked.free}, marked.flow
        moves: dict[str, list[str]] = {}
        for node in marked.free:
            readers = flow.readers(node)
            products = [name for name in flow.in_order(readers & free) if _is_product(marked, name)]
            if _by_strides(node) and products and all(name and _is_product(marked, name) for name in readers):
                moves.setdefault(products[0], []).append(node.name)
        return marked.with_groups(
            NodeGroup(flow.in_order((*each, name)), name, flow.works[name]) for name, each in moves.items()
        )


def _is_product(marked: MarkedGraph, name: str) -> bool:
    return isinstance(marked.flow.works.get(name), ProductWork)


def _by_strides(node: Node) -> bool:
    """Return whether a product can read a transpose's operand in its place."""
    if node.op != "transpose":
        return False
    perm = integers(node.attrs, "perm")
    return len(perm) - 1 in perm[-2:]
