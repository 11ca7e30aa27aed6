"""Dropout: elements that are set to 0 at random while a model is trained."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError

from .draws import drawn, kept, rows_drawn
from .spelling import Call, onnx

RATIO = 0.5  # of elements that are dropped where nothing is said


@onnx("Dropout")
def _dropout(c: Call) -> tuple[str, ...]:
    """In training mode the mask is that of draw 0: a training step draws another at each of its batches.

    ONNX leaves open how the mask follows from `seed`; it says nothing here.
    """
    trains = c.has(2) and bool(c.known(2, "training_mode").any())
    ratio = float(c.known(1, "ratio").reshape(-1)[0]) if trains and c.has(1) else RATIO
    if trains and not 0 <= ratio < 1:
        raise UserError(f"Dropout: ratio is {ratio} (right: from 0 to below 1)")
    if not trains or ratio == 0:
        if c.wants(1):
            return c[0], c.add("expand", c.constant(np.asarray(True)), shape=c.type(0).shape)
        return (c[0],)
    kind, draw = c.type(0), c.constant(np.asarray(0, np.uint32))
    mask = kept(c.builder, drawn(c.builder, kind.shape, rows_drawn(c.builder.nodes), draw), ratio)
    return _scaled(c, mask, ratio), mask


@onnx("com.microsoft::DropoutGrad")
def _dropout_grad(c: Call) -> str:
    """The gradient passes where an element was kept; without training mode it passes everywhere."""
    if c.has(3) and not c.known(3, "training_mode").any():
        return c[0]
    return _scaled(c, c[1], float(c.known(2, "ratio").reshape(-1)[0]) if c.has(2) else RATIO)


def _scaled(c: Call, mask: str, ratio: float) -> str:
    """Return what is kept of the first operand, larger by as much as its mean would else fall."""
    scale, none = (c.constant(np.asarray(v).astype(c.type(0).dtype.numpy)) for v in (1 / (1 - ratio), 0))
    return c.add("where", mask, c.add("mul", c[0], scale), none)
