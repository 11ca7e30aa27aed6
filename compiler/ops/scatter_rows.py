"""Rows of a matrix changed where indices say."""

from __future__ import annotations

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import SCATTERS, scatter
from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, need, register, same_dtype, word
from .embedding_bag import rows_of
from .layout import WHOLE, Layout, NodeSplit, Query, splits


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices, updates = (need(t) for t in types)
    index_dtype(indices)
    same_dtype([x, updates], "rows and updates")
    word(attrs, "reduction", "none", tuple(SCATTERS))
    if x.rank != 2 or updates.shape != (*indices.shape, x.shape[1]):
        raise UserError(f"rows {x}, indices {indices} and updates {updates} do not fit")
    return (x,)


def _scatter_rows(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices, updates = (array(a) for a in arrays)
    at = rows_of(indices, x.shape[0])
    return (scatter(word(attrs, "reduction", "none", tuple(SCATTERS)), x, (at,), updates),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count indices, updates and what they are added to, the rows that change, and the copy of all others."""
    x, indices, updates = (need(t) for t in types)
    changed = updates.bytes if attrs.get("reduction", "none") != "none" else 0
    return Count(
        CopyWork,
        read_bytes=x.bytes + indices.bytes + updates.bytes + changed,
        write_bytes=x.bytes + updates.bytes,
        moved_bytes=x.bytes,
    )


register(
    Op(
        "scatter_rows",
        "x[r,d] with rows changed: row indices[i] by updates[i,d], one after another",
        (3, 3),
        _infer,
        _scatter_rows,
        _count,
        (),
        ("reduction",),
    )
)


@splits("scatter_rows")
def _split(query: Query) -> NodeSplit:
    """Split the columns of a table that is cut into such: which rows change is known everywhere."""
    (base, indices, updates), columns = query.layouts, WHOLE
    assert base is not None and indices is not None and updates is not None
    for layout, free in ((updates, query.free[2]), (base, query.free[0])):
        lie = layout.settled.dims[-1]
        columns = lie if lie and not free and set(lie) <= {*query.policy.lookup} else columns
    onto, at = Layout((WHOLE, columns)), Layout.whole(len(indices.dims))
    return NodeSplit((onto, at, Layout((*at.dims, columns))), (onto,))


@gradient("scatter_rows")
def _back(b: Back) -> tuple[str, str, str]:
    """Of rows added to: g, and its rows there. Rows that are replaced must differ, to be told apart."""
    reduction = word(b.node.attrs, "reduction", "none", tuple(SCATTERS))
    if reduction not in ("none", "add"):
        raise UserError(f"its reduction is {reduction} (right: none or add)")
    given = b.grad
    if reduction == "none":
        given = b.add("scatter_rows", b.grad, b[1], b.zeros(b.type(2)))
    return given, "", b.add("gather", b.grad, b[1], axis=0)
