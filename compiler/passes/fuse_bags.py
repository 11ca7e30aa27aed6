"""Embedding bags spelled as a gather and a reduction, also of rows stored in eight bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtia_emu.types import UINT8, TensorType

from ..graph import Const, Match, Node, Rewrite, Skip
from ..ops.embedding_bag import TAIL_BYTES
from .base import Rule, Rules, become, building, either

MOST_BAGS = 1 << 26
MODES = {"reduce_sum": "sum", "reduce_mean": "mean", "reduce_max": "max"}


@dataclass(frozen=True)
class FuseBags(Rules):
    """Make reduce(gather(table[r,d], indices[b,p]), axis 1) an embedding bag: rows are pooled on the way in.

    Rows spelled as uint8 values times a scale plus an offset, all three gathered, become one table of packed
    rows.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_bag, _quantised_bag)


def _bag(node: Node, match: Match) -> Rewrite | Skip | None:
    """reduce(gather(table, indices))."""
    rows = match.producer(node.inputs[0], "gather") if node.op in MODES else None
    if rows is None or not match.type_of(rows.inputs[0]).dtype.is_float:
        return None
    if not _looks_up(rows, match):
        return Skip("the gather does not take rows of a matrix, some for each bag")
    if node.attrs["axes"] != (1,):
        return Skip(f"the reduction is over axes {list(node.attrs['axes'])}, not over a bag's rows, axis 1")
    if match.only_user(rows.output) is not node:
        return Skip("the gathered rows have other users")
    table, indices = rows.inputs
    return _pooled(node, match, table, indices)


def _looks_up(rows: Node, match: Match) -> bool:
    """Return whether a gather takes rows of a matrix by indices [bags, pooling]."""
    table, indices = (match.type_of(v) for v in rows.inputs)
    return rows.attrs["axis"] == 0 and table.rank == 2 and indices.rank == 2 and indices.shape[1] > 0


def _pooled(
    node: Node, match: Match, table: str, indices: str, packed: Const | None = None
) -> Rewrite | Skip:
    """Return the bag in place of the reduction; `packed` is a quantised table, to be named after `table`."""
    if match.type_of(indices).shape[0] > MOST_BAGS:
        return Skip(f"offsets of more than {MOST_BAGS} bags are not written out")
    b = building(node, match)
    if packed is not None:
        table = b.put(b.fresh(f"{table}.rows"), packed)
    kind = match.type_of(indices)
    bags, pooling = kind.shape
    flat = b.add("reshape", indices, shape=(bags * pooling,))
    offsets = b.constant(np.arange(bags + 1) * pooling, kind.dtype.numpy, hint="offsets")
    attrs: dict[str, Any] = {"mode": MODES[node.op]} | ({"quantised": True} if packed is not None else {})
    pooled = b.add("embedding_bag", table, flat, offsets, fold=False, **attrs)
    return become(node, b, b.add("reshape", pooled, shape=node.type.shape))


def _quantised_bag(node: Node, match: Match) -> Rewrite | Skip | None:
    """reduce(cast(gather(q)) * gather(scale) + gather(offset)), each operand order."""
    shifted = match.producer(node.inputs[0], "add") if node.op in MODES else None
    rows = _dequantised(shifted, match) if shifted is not None else None
    if shifted is None or rows is None:
        return None
    if node.attrs["axes"] != (1,):
        return Skip(f"the reduction is over axes {list(node.attrs['axes'])}, not over a bag's rows, axis 1")
    if match.only_user(shifted.output) is not node:
        return Skip("the rows have other users")
    packed = _packed(rows, match)
    if packed is None:
        return Skip(
            "values, scale and offset are not constants uint8[rows, dim], fp32[rows, 1], fp32[rows, 1]"
        )
    table, indices = rows[0].inputs
    return _pooled(node, match, table, indices, packed)


def _dequantised(shifted: Node, match: Match) -> tuple[Node, Node, Node] | None:
    """Return the gathers of values, scale and offset by the same indices; None where there are none."""
    for product, offset in either(shifted):
        scaled = match.producer(product, "mul")
        for values, scale in either(scaled) if scaled is not None else ():
            wide = match.producer(values, "cast")
            rows = match.producer(wide.inputs[0], "gather") if wide is not None else None
            scales, offsets = match.producer(scale, "gather"), match.producer(offset, "gather")
            if rows is None or scales is None or offsets is None:
                continue
            if rows.inputs[1] == scales.inputs[1] == offsets.inputs[1]:
                return rows, scales, offsets
    return None


def _packed(gathers: tuple[Node, Node, Node], match: Match) -> Const | None:
    """Return the constant of packed rows: values, scale, offset; None where these do not fit."""
    parts = [match.const(g.inputs[0]) for g in gathers]
    if not all(_looks_up(g, match) for g in gathers) or any(p is None for p in parts):
        return None
    table, scale, offset = (p for p in parts if p is not None)
    rows, dim = table.type.shape
    tails = {(t.type.dtype.name, t.type.shape) for t in (scale, offset)}
    if table.type.dtype != UINT8 or tails != {("fp32", (rows, 1))}:
        return None
    present = table.present and scale.present and offset.present
    return Const(
        TensorType(UINT8, (rows, dim + TAIL_BYTES)), _pack(table, scale, offset) if present else None
    )


def _pack(table: Const, scale: Const, offset: Const) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        tails = [np.ascontiguousarray(t.array()).view(np.uint8).reshape(-1, 4) for t in (scale, offset)]
        return np.concatenate([table.array(), *tails], axis=1)

    return load
