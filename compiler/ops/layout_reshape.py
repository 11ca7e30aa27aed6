"""The layout rule of a reshape: which dimensions become which, and whether a rank's parts stay together."""

from __future__ import annotations

from collections.abc import Sequence

from .base import need
from .layout import WHOLE, Axes, Layout, NodeSplit, Query


def split_reshape(query: Query) -> NodeSplit:
    """Split the dimensions that those of the operand become, where the parts of a rank stay together."""
    layout, kind = query.layouts[0], need(query.types[0])
    assert layout is not None
    want, dims = list(layout.dims), [WHOLE] * query.node.type.rank
    for before, after in _groups(kind.shape, query.node.type.shape):
        kept = _leading(query, before, want)
        placed = _spread(query, kept, after, dims)
        _keep_first(want, before, placed)
    result = Layout(tuple(dims), layout.sums, layout.mask)
    return NodeSplit((Layout(tuple(want), layout.sums),), (result,), {"shape": query.local(result)})


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Return the dimensions of two shapes of one size that become each other, the fewest together."""
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        a, b, left, right = i, j, 1, 1
        while True:
            if left <= right and i < len(before):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                left, i = (left * before[i], i + 1) if i < len(before) else (left, i)
            if left == right or (i == len(before) and j == len(after)):
                break
        groups.append((range(a, i), range(b, j)))
    return groups


def _leading(query: Query, before: range, want: list[Axes]) -> list[str]:
    """Return the axes of some dimensions that split what they are together into parts that are whole."""
    axes: list[str] = []
    shape, whole = need(query.types[0]).shape, True
    for i in before:
        if not whole:
            break
        axes += want[i]
        whole = shape[i] == query.policy.count(want[i])
    return axes


def _spread(query: Query, axes: list[str], after: range, dims: list[Axes]) -> int:
    """Split dimensions of the result over axes, the first first; return how many of them found a place."""
    shape, done = query.node.type.shape, 0
    for j in after:
        taken = query.policy.dividing(tuple(axes[done:]), shape[j])
        dims[j] = taken
        done += len(taken)
        if shape[j] != query.policy.count(taken):
            break
    return done


def _keep_first(want: list[Axes], before: range, count: int) -> None:
    """Leave only the first so many axes of some dimensions of the operand."""
    for i in before:
        want[i] = want[i][:count]
        count -= len(want[i])
