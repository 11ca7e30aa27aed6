"""Causal convolution that carries the end of its input from step to step, as onnxruntime spells it."""

from __future__ import annotations

from mtia_emu.errors import UserError

from .spelling import Call, Unsupported, onnx


@onnx("com.microsoft::CausalConvWithState")
def _causal_conv(c: Call) -> tuple[str, str]:
    """Return a depthwise convolution [b, channels, s] over the state and the input, and the new state."""
    x, weight = c.type(0).shape, c.type(1).shape
    if c.attr("ndim", 1) != 1 or len(x) != 3 or len(weight) != 3:
        raise Unsupported(f"it has {c.attr('ndim', 1)} dimensions and {c.type(0)} (right: 1, of rank 3)")
    if c.attr("state_window", 0):
        raise Unsupported("its state is a window of several steps (state_window)")
    held = weight[2] - 1
    if weight[:2] != (x[1], 1) or (c.has(3) and c.type(3).shape != (x[0], x[1], held)):
        raise UserError(f"{c.op}: weights {c.type(1)} and its state do not fit {c.type(0)}")
    if c.has(3):
        whole = c.add("concat", c[3], c[0], axis=2)
    else:
        whole = c.add("pad", c[0], pads=(0, 0, held, 0, 0, 0), value=0.0)
    out = c.compose("Conv", whole, c[1], c.optional(2), group=x[1])
    kind = c.attr("activation", "none")
    if kind not in ("none", "silu", "swish"):
        raise UserError(f"{c.op}: activation {kind!r} is none of none, silu, swish")
    ends = tuple(c.type(whole).shape)
    state = c.add("slice", whole, starts=(0, 0, ends[2] - held), ends=ends, steps=(1, 1, 1))
    return (out if kind == "none" else c.add("silu", out)), state
