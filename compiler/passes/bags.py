"""Embedding bags spelled as a gather and a reduction, also of rows stored in eight bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mtia_emu.types import UINT8, TensorType

from ..graph import Const, Match, Node, Rewrite
from ..ops.embedding_bag import TAIL_BYTES
from .base import Rule, Rules, become, building, either

MODES = {"reduce_sum": "sum", "reduce_mean": "mean", "reduce_max": "max"}


@dataclass(frozen=True)
class Bags(Rules):
    """Make reduce(gather(table[r,d], indices[b,p]), axis 1) an embedding bag: rows are pooled on the way in.

    Rows spelled as uint8 values times a scale plus an offset, all three gathered, become one table of packed rows.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_bag, _quantised_bag)


def _bag(node: Node, match: Match) -> Rewrite | None:
    if node.op not in MODES or node.attrs["axes"] != (1,):
        return None
    rows = match.producer(node.inputs[0], "gather")
    if rows is None or match.only_user(rows.output) is not node or not _looks_up(rows, match):
        return None
    table, indices = rows.inputs
    return _pooled(node, match, table, indices) if match.type_of(table).dtype.is_float else None


def _looks_up(rows: Node, match: Match) -> bool:
    """Return whether a gather takes rows of a matrix by indices [bags, pooling]."""
    table, indices = (match.type_of(v) for v in rows.inputs)
    return rows.attrs["axis"] == 0 and table.rank == 2 and indices.rank == 2 and indices.shape[1] > 0


def _pooled(node: Node, match: Match, table: str, indices: str, packed: Const | None = None) -> Rewrite:
    """Return the bag in place of the reduction; `packed` is a quantised table to add under the name `table`."""
    b = building(node, match)
    if packed is not None:
        table = b.put(b.fresh(table), packed)
    kind = match.type_of(indices)
    bags, pooling = kind.shape
    flat = b.add("reshape", indices, shape=(bags * pooling,))
    offsets = b.constant(np.arange(bags + 1) * pooling, kind.dtype.numpy, hint="offsets")
    quantised = {"quantised": True} if packed is not None else {}
    pooled = b.add("embedding_bag", table, flat, offsets, mode=MODES[node.op], fold=False, **quantised)
    return become(node, b, b.add("reshape", pooled, shape=node.type.shape))


def _quantised_bag(node: Node, match: Match) -> Rewrite | None:
    """reduce(cast(gather(q)) * gather(scale) + gather(offset)), each operand order."""
    if node.op not in MODES or node.attrs["axes"] != (1,):
        return None
    shifted = match.producer(node.inputs[0], "add")
    if shifted is None or match.only_user(shifted.output) is not node:
        return None
    for product, offset in either(shifted):
        scaled = match.producer(product, "mul")
        for values, scale in either(scaled) if scaled is not None else ():
            wide = match.producer(values, "cast")
            found = [match.producer(wide.inputs[0] if wide is not None else "", "gather"), match.producer(scale, "gather"),
                     match.producer(offset, "gather")]
            rows, scales, offsets = found
            if rows is None or scales is None or offsets is None or len({f.inputs[1] for f in found if f}) > 1:
                continue
            packed = _packed(rows, scales, offsets, match)
            if packed is not None:
                return _pooled(node, match, f"{rows.inputs[0]}.rows", rows.inputs[1], packed)
    return None


def _packed(rows: Node, scales: Node, offsets: Node, match: Match) -> Const | None:
    """Return the constant of packed rows: values, scale, offset; None where the three are not constants that fit."""
    names = [g.inputs[0] for g in (rows, scales, offsets)]
    parts = [match.const(n) for n in names]
    if not all(_looks_up(g, match) for g in (rows, scales, offsets)) or any(p is None for p in parts):
        return None
    table, scale, offset = (p for p in parts if p is not None)
    tails = {(t.type.dtype.name, t.type.shape) for t in (scale, offset)}
    if table.type.dtype != UINT8 or tails != {("fp32", (table.type.shape[0], 1))}:
        return None
    kind = TensorType(UINT8, (table.type.shape[0], table.type.shape[1] + TAIL_BYTES))
    return Const(kind, _pack(table, scale, offset) if all(p.present for p in (table, scale, offset)) else None)


def _pack(table: Const, scale: Const, offset: Const) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        tails = [np.ascontiguousarray(t.array()).view(np.uint8).reshape(-1, 4) for t in (scale, offset)]
        return np.concatenate([table.array(), *tails], axis=1)

    return load
