"""How rare ops are split over ranks: along all dimensions but the one that they order, count or index."""

from __future__ import annotations

from .base import axis_of, need
from .layout import WHOLE, Layout, NodeSplit, Query, by_rows, joint, splits


@splits("topk", "cumsum", "cumprod")
def _split_along(query: Query) -> NodeSplit:
    return by_rows(query, [axis_of(query.node.attrs, need(query.types[0]).rank)])


@splits("gather_elements", "scatter_elements")
def _split_places(query: Query) -> NodeSplit:
    """Split the dimensions in which all operands are of one size: there each element stays in its place."""
    shapes = [need(t).shape for t in query.types]
    first, axis = shapes[0], axis_of(query.node.attrs, len(shapes[0]))
    uneven = [i for i, size in enumerate(first) if i == axis or any(s[i] != size for s in shapes)]
    dims = joint(query, first, uneven)
    wanted = tuple(Layout(dims) for _ in query.types)
    return NodeSplit(wanted, (Layout(dims),))


@splits("one_hot")
def _split_classes(query: Query) -> NodeSplit:
    """Split as the classes are; all of them are known everywhere."""
    classes, values = query.layouts
    assert classes is not None and values is not None
    at = axis_of(query.node.attrs, query.node.type.rank)
    dims = classes.settled.dims
    return NodeSplit(
        (classes.settled, values.settled.without([0])), (Layout((*dims[:at], WHOLE, *dims[at:])),)
    )
