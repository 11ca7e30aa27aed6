"""The optimizer of onnxruntime-training, whose weights come as sequences, by our own optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..gradients.arithmetic import Arithmetic
from ..gradients.optimisers import AdamW, Moment
from ..ops import Unsupported
from .scope import Scope, Tensors, Value
from .sequences import known_sequence

if TYPE_CHECKING:
    from .importer import Importer

Special = Callable[["Importer", Any, "tuple[Value, ...]", Scope], "Sequence[Value]"]


def _adamw(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return that it was done, and the next weights and moments, a sequence each."""
    attrs = importer.attributes(node, scope)
    if attrs.get("adam_mode", 0) != 0 or not attrs.get("correct_bias", 1):
        raise Unsupported("its adam_mode is not 0, or it corrects no bias (right: as torch.optim.AdamW)")
    if len(inputs) > 6 and inputs[6]:
        raise Unsupported("its update signal may leave the weights as they are")
    rule = AdamW(
        beta1=float(attrs.get("alpha", 0.9)),
        beta2=float(attrs.get("beta", 0.999)),
        eps=float(attrs.get("epsilon", 1e-8)),
        weight_decay=float(attrs.get("weight_decay", 0.01)),
    )
    builder = importer.builder
    a = Arithmetic(builder, node.name or "AdamW")
    rate, step = (a("reshape", a.wide(importer.tensor(v)), shape=()) for v in inputs[:2])
    groups = zip(*(known_sequence(importer, v) for v in inputs[2:6]), strict=True)
    results = []
    for weight, gradient, mean, square in groups:
        state = {"mean": mean, "square": square}
        new, after = rule.update(a, weight, gradient, state, Moment(rate, step))
        results.append((new, after["mean"], after["square"]))
    done = builder.constant(np.array([True]))
    return [done, *(Tensors(tuple(kind)) for kind in zip(*results, strict=True))]


OPTIMIZERS: dict[str, Special] = {"com.microsoft::AdamWOptimizer": _adamw}
