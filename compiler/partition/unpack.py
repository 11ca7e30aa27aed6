"""Products whose columns are taken apart again (queries, keys and values in one) made one for each piece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtia_emu.types import TensorType

from ..build import NodeBuilder
from ..graph import Const, Graph, Match, Node, Rewrite
from ..ops.base import integers
from .heads import is_normed


def unpacked(graph: Graph) -> Graph:
    """Return a graph in which each piece of such a product is one with its own columns of weight and bias.

    Heads, and the halves of gated networks, can then be split over ranks; on each the pieces are joined again
    where that is faster. A product stays whose whole result anything reads, and one with a piece that is
    normed, a latent: that is not split.
    """
    slices = [node for node in graph.nodes if node.op == "slice"]
    whole = {node.inputs[0] for node in slices if is_normed(graph, node.output)}
    apart = {node.name for node in slices if node.inputs[0] not in whole}

    def rule(node: Node, match: Match) -> Rewrite | None:
        return _apart(node, match) if node.name in apart else None

    return graph.rewrite(rule).prune() if apart else graph


def _apart(node: Node, match: Match) -> Rewrite | None:
    columns = _columns(node, match)
    if columns is None or not _is_cut(node.inputs[0], match):
        return None
    product, bias = _product(node.inputs[0], match)
    if product is None:
        return None
    b = NodeBuilder(match)
    b.origin = product.origin or product.name
    operands = [product.inputs[0], _part(b, match, product.inputs[1], columns)]
    if len(product.inputs) > 2 and product.inputs[2]:
        operands.append(_part(b, match, product.inputs[2], columns))
    made = b.add("matmul", *operands, **product.attrs)
    if bias:
        made = b.add("add", made, _part(b, match, bias, columns))
    return b.rewrite({node.output: made})


def _columns(node: Node, match: Match) -> range | None:
    """Return what a slice takes of the last dimension, all of the others; None for another node."""
    if node.op != "slice" or not node.type.size:
        return None
    shape = match.type_of(node.inputs[0]).shape
    starts, ends, steps = (integers(node.attrs, name) for name in ("starts", "ends", "steps"))
    taken = [range(*bounds) for bounds in zip(starts, ends, steps, strict=True)]
    plain = all(r == range(size) for r, size in zip(taken[:-1], shape[:-1], strict=True))
    return taken[-1] if plain and taken[-1].step == 1 else None


def _is_cut(value: str, match: Match) -> bool:
    """Return whether all that reads a value takes some of its columns."""
    return not match.is_output(value) and all(
        _columns(user, match) is not None for user in match.users(value)
    )


def _product(value: str, match: Match) -> tuple[Node | None, str]:
    """Return the product by a constant matrix that a value is, and the bias that is added ("": none)."""
    node, bias = match.producer(value, "matmul", "add"), ""
    if node is not None and node.op == "add":
        sides = [(a, b) for a, b in (node.inputs, node.inputs[::-1]) if _is_row(match, b, node.type.shape)]
        if not sides:
            return None, ""
        (before, bias) = sides[0]
        if len(match.users(before)) != 1 or match.is_output(before):
            return None, ""
        node = match.producer(before, "matmul")
    if node is None or any(node.inputs[3:]) or node.attrs.get("activation", "none") != "none":
        return None, ""
    weight = match.const(node.inputs[1])
    rows = len(node.inputs) < 3 or not node.inputs[2] or _is_row(match, node.inputs[2], node.type.shape)
    return (node, bias) if weight is not None and weight.type.rank == 2 and rows else (None, "")


def _is_row(match: Match, value: str, shape: Sequence[int]) -> bool:
    """Return whether a value is a constant with an element for each column alone."""
    const = match.const(value)
    return const is not None and const.type.shape[-1:] == shape[-1:] and const.type.size == shape[-1]


def _part(b: NodeBuilder, match: Match, value: str, columns: range) -> str:
    """Return a constant's columns, read when they are needed."""
    const = match.const(value)
    assert const is not None
    kind = TensorType(const.type.dtype, (*const.type.shape[:-1], len(columns)))

    def load() -> np.ndarray:
        return np.ascontiguousarray(const.array(value)[..., columns.start : columns.stop])

    name = b.fresh(f"{value}.{columns.start}")
    return b.put(name, Const(kind, load if const.present else None))
