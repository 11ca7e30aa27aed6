"""Losses over a model's output: each adds the input that holds the targets, and makes one number of both.

All are computed in fp32, whatever the model's own type, and are means over all targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.types import FP32, INT64, TensorType

from ..build import NodeBuilder
from ..graph import Graph
from .arithmetic import Arithmetic
from .differentiate import joined, named

LEAST_LOG = -100.0  # of a probability of 0: as torch.nn.BCELoss bounds it
LEAST_SHARE = 1.2e-38  # the least normal number of fp32
MOVES = ("reshape", "transpose", "cast", "slice", "copy", "concat")  # of a value, not of its form
SHARES = ("softmax", "sigmoid", "min", "max", "where")  # what gives probabilities, or may bound to them
OF_SCORES = {"cross-entropy": 1, "bce-with-logits": 2}  # and which of those are not scores, the first so many
IGNORED = -100  # the label of what does not count: as torch.nn.CrossEntropyLoss has it


@dataclass(frozen=True)
class Loss:
    """A loss by name: what it takes, the type of its targets by that of the model's output, and its nodes."""

    name: str
    text: str
    targets: Callable[[TensorType], TensorType]
    build: Callable[[Arithmetic, str, str], str]


def with_loss(graph: Graph, kind: str, output: str = "", target: str = "target", name: str = "loss") -> Graph:
    """Return a graph with a loss of one of its outputs as its first output, and its targets as an input.

    `output` is the first float of the graph's outputs where it is not named. The model's own outputs stay
    behind the loss. Raises `UserError` for an output or a name that does not fit.
    """
    loss = loss_named(kind)
    output = output or first_float(graph)
    if output not in graph.outputs:
        raise refuse_unknown("output", output, graph.outputs)
    for taken in (target, name):
        if graph.has(taken):
            raise UserError(f"the model has a value %{taken} already (right: another name for it)")
    whole = Graph(
        graph.name,
        graph.nodes,
        {**graph.inputs, target: loss.targets(graph.type_of(output))},
        graph.outputs,
        graph.consts,
        graph.notes,
    )
    whole = whole.with_notes((*graph.notes, *_doubts(graph, kind, output)))
    builder = NodeBuilder(whole)
    builder.origin = kind
    value = named(builder, loss.build(Arithmetic(builder, name), output, target), name)
    return joined(whole, builder, (value, *graph.outputs))


def _doubts(graph: Graph, kind: str, output: str) -> tuple[str, ...]:
    """Return what to say of an output that seems to be of another form than its loss is of."""
    value, node = output, graph.producer(output)
    while node is not None and node.op in MOVES:
        value = node.inputs[0]
        node = graph.producer(value)
    made = node.op if node is not None else ""
    if kind == "bce" and made not in SHARES:
        return (
            f"loss bce is of probabilities, and %{output} comes from {made or 'an input'}, which may give "
            "any number (of scores it is bce-with-logits)",
        )
    if kind in OF_SCORES and made in SHARES[: OF_SCORES[kind]]:
        return (f"loss {kind} is of scores, and %{output} is a {made} already: it is taken twice",)
    return ()


def loss_named(kind: str) -> Loss:
    """Return the loss of that name; raise `UserError` with the nearest one."""
    if kind not in LOSSES:
        raise refuse_unknown("loss", kind, LOSSES)
    return LOSSES[kind]


def first_float(graph: Graph) -> str:
    """Return the first output of floats; raise `UserError` where there is none."""
    floats = [v for v in graph.outputs if graph.type_of(v).dtype.is_float]
    if not floats:
        raise UserError(f"graph {graph.name} has no output of floats to make a loss of")
    return floats[0]


def _classes(kind: TensorType) -> TensorType:
    if kind.rank < 1:
        raise UserError(f"cross-entropy is of scores [.., classes], not of {kind}")
    return TensorType(INT64, kind.shape[:-1])


def _cross_entropy(a: Arithmetic, scores: str, labels: str) -> str:
    """Return the mean of -log softmax(scores)[label] over labels that are not `IGNORED`.

    The place of a label is found by comparing, which is elementwise work that fuses.
    """
    kind = a.builder.type_of(scores)
    likely = a("log_softmax", a.wide(scores), axis=kind.rank - 1)
    column = a("reshape", labels, shape=(*kind.shape[:-1], 1))
    hit = a("equal", column, a.builder.constant(np.arange(kind.shape[-1], dtype=np.int64)))
    taken = a("where", hit, likely, a.number(0, likely))
    each = a("reduce_sum", taken, axes=(kind.rank - 1,), keepdims=False)
    counted = a.wide(a("not", a("equal", labels, IGNORED)))
    return a("neg", a("div", a.total(each), a.total(counted)))


def _same(kind: TensorType) -> TensorType:
    return TensorType(FP32, kind.shape)


def _bce_with_logits(a: Arithmetic, scores: str, targets: str) -> str:
    """Return the mean of softplus(s) - s t: -t log sigmoid(s) - (1 - t) log(1 - sigmoid(s)), stable."""
    s = a.wide(scores)
    return a.total(a("sub", a("softplus", s), a("mul", s, targets)), "mean")


def _bce(a: Arithmetic, shares: str, targets: str) -> str:
    """Return the mean of -t log p - (1 - t) log(1 - p); of a share of 0 the logarithm is `LEAST_LOG`."""
    p = a.wide(shares)

    def log(share: str) -> str:
        some = a("greater", share, 0)  # the slope of a logarithm at 0 would be no number
        return a("where", some, a("log", a("max", share, LEAST_SHARE)), a.number(LEAST_LOG, share))

    pairs = ((targets, p), (a("sub", 1, targets), a("sub", 1, p)))
    terms = [a("mul", t, log(share)) for t, share in pairs]
    return a("neg", a.total(a("add", *terms), "mean"))


def _mse(a: Arithmetic, values: str, targets: str) -> str:
    gap = a("sub", a.wide(values), targets)
    return a.total(a("mul", gap, gap), "mean")


LOSSES = {
    loss.name: loss
    for loss in (
        Loss(
            "cross-entropy",
            "scores [.., classes] and int64 labels; -100 is not counted",
            _classes,
            _cross_entropy,
        ),
        Loss("bce-with-logits", "scores and fp32 shares of the same shape", _same, _bce_with_logits),
        Loss("bce", "probabilities and fp32 shares of the same shape", _same, _bce),
        Loss("mse", "values and fp32 targets of the same shape", _same, _mse),
    )
}
