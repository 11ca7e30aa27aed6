"""The gradients of the rare ops: what is taken by index is added to where it was taken from."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT64

from .backward import Back, gradient
from .base import axis_of, integer


@gradient("gather_elements")
def _gather_elements(b: Back) -> tuple[str, str]:
    axis = axis_of(b.node.attrs, b.type(0).rank)
    return b.add("scatter_elements", b.zeros(b.type(0)), b[1], b.grad, axis=axis, reduction="add"), ""


@gradient("gather_nd")
def _gather_nd(b: Back) -> tuple[str, str]:
    batch, indices = integer(b.node.attrs, "batch_dims", 0), b[1]
    shape = b.type(indices).shape
    for axis in reversed(range(batch)):  # the index of a batch stands before the others
        places = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        lead = b.builder.constant(places, b.type(indices).dtype.numpy)
        lead = b.add("expand", lead, shape=(*shape[:-1], 1))
        indices = b.add("concat", lead, indices, axis=len(shape) - 1)
    return b.add("scatter_nd", b.zeros(b.type(0)), indices, b.grad, reduction="add"), ""


def _replaces(b: Back) -> bool:
    """Return whether updates replace what is there, and are not added to it."""
    reduction = str(b.node.attrs.get("reduction", "none"))
    if reduction not in ("none", "add"):
        raise UserError(f"its reduction is {reduction} (right: none or add)")
    return reduction == "none"


@gradient("scatter_elements")
def _scatter_elements(b: Back) -> tuple[str, str, str]:
    """Of what is added to: g, and its elements there. What is replaced must differ, to be told apart."""
    axis, given = axis_of(b.node.attrs, b.type(0).rank), b.grad
    if _replaces(b):
        given = b.add("scatter_elements", b.grad, b[1], b.zeros(b.type(2)), axis=axis)
    return given, "", b.add("gather_elements", b.grad, b[1], axis=axis)


@gradient("scatter_nd")
def _scatter_nd(b: Back) -> tuple[str, str, str]:
    """Of what is added to: g, and its slices there. What is replaced must differ, to be told apart."""
    given = b.grad
    if _replaces(b):
        given = b.add("scatter_nd", b.grad, b[1], b.zeros(b.type(2)))
    return given, "", b.add("gather_nd", b.grad, b[1])


@gradient("one_hot")
def _one_hot(b: Back) -> tuple[str, str]:
    axis, values = axis_of(b.node.attrs, b.type(0).rank + 1), b.builder
    kind = b.type(b.grad)
    on_off = values.constant([0, 1], kind.dtype.numpy)
    hit = b.add("one_hot", b[0], on_off, axis=axis, depth=integer(b.node.attrs, "depth"))
    axes = tuple(range(kind.rank))
    on = b.add("reduce_sum", b.times(b.grad, hit), axes=axes, keepdims=False)
    off = b.add("sub", b.add("reduce_sum", b.grad, axes=axes, keepdims=False), on)
    return "", b.add("concat", b.reshape(off, (1,)), b.reshape(on, (1,)), axis=0)


@gradient("topk")
def _topk(b: Back) -> tuple[str]:
    axis = axis_of(b.node.attrs, b.type(0).rank)
    places = b.node.outputs[1]
    assert b.type(places).dtype == INT64
    return (b.add("scatter_elements", b.zeros(b.type(0)), places, b.grad, axis=axis, reduction="add"),)


@gradient("cumsum")
def _cumsum(b: Back) -> tuple[str]:
    turned = not b.node.attrs.get("reverse", False)
    axis, excludes = axis_of(b.node.attrs, b.type(0).rank), bool(b.node.attrs.get("exclusive", False))
    return (b.add("cumsum", b.grad, axis=axis, exclusive=excludes, reverse=turned),)


@gradient("range")
def _range(b: Back) -> tuple[str, str]:
    steps = b.builder.constant(np.arange(b.type(b.grad).size), b.type(b.grad).dtype.numpy)
    total = b.add("reduce_sum", b.grad, axes=(0,), keepdims=False)
    return total, b.add("reduce_sum", b.times(b.grad, steps), axes=(0,), keepdims=False)
