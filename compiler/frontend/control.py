"""Constants, branches and loops: the ONNX ops that are not functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops import Unsupported
from . import bags
from .gradient import GRADIENTS
from .optimizer import OPTIMIZERS
from .ragged import make_range
from .roll import rolled
from .scan import scan, stack
from .scope import Absent, Scope, Value, graph_attr
from .sequences import SEQUENCES, Special, scalar

if TYPE_CHECKING:
    from .importer import Importer

UNROLL = 4096  # iterations of a loop


def _constant(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    if any(attr.ref_attr_name for attr in node.attribute):
        return _new_constant(importer, node, scope)
    return importer.once.of("constant", node, lambda: _new_constant(importer, node, scope))


def _new_constant(importer: Importer, node: Any, scope: Scope) -> Sequence[Value]:
    for attr in node.attribute:
        if attr.name == "value" and attr.type == 4:
            return [importer.stored(attr.t, node.output[0])]
        if attr.name == "sparse_value" and attr.type == 11:
            return [importer.stored(attr.sparse_tensor, node.output[0])]
    attrs = importer.attributes(node, scope)
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, kind in kinds.items():
        if name in attrs:
            return [importer.builder.constant(np.asarray(attrs[name], kind), hint=node.output[0])]
    if isinstance(attrs.get("value"), np.ndarray):
        return [importer.builder.constant(attrs["value"], hint=node.output[0])]
    raise Unsupported(f"a constant given by {', '.join(attrs) or 'nothing'}")  # strings


def _if(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return the results of the branch that is taken; of both, selected, where that depends on the data."""
    condition = importer.tensor(inputs[0])
    known = importer.builder.known(condition)
    if known is not None:
        branch = graph_attr(node, "then_branch" if bool(known.reshape(-1)[0]) else "else_branch")
        return importer.graph(branch, Scope(scope.opsets, scope, {}, scope.attrs))
    branches = [
        importer.graph(graph_attr(node, name), Scope(scope.opsets, scope, {}, scope.attrs))
        for name in ("then_branch", "else_branch")
    ]
    return [_select(importer, condition, a, b) for a, b in zip(*branches, strict=True)]


def _select(importer: Importer, condition: str, a: Value, b: Value) -> Value:
    """Return a where the condition holds, else b; both are tensors of one type."""
    if isinstance(a, Absent) or isinstance(b, Absent) or a == b:
        return a
    builder = importer.builder
    if not (isinstance(a, str) and isinstance(b, str)) or builder.type_of(a) != builder.type_of(b):
        raise Unsupported(
            "its condition depends on the data, and its branches give different types", condition
        )
    flag = builder.add("reshape", condition, shape=())
    return builder.add("where", flag, a, b)


def _loop(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    matched = bags.match(importer, node, inputs, scope)
    if not isinstance(matched, str):
        return matched
    return _unroll(importer, node, inputs, scope, matched)


def _unroll(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope, why: str
) -> Sequence[Value]:
    """Return the results of a loop whose length is known, its body written out again for each iteration."""
    body = graph_attr(node, "body")
    trips = scalar(importer, inputs[0]) if inputs and inputs[0] else UNROLL + 1
    going = scalar(importer, inputs[1]) if len(inputs) > 1 and inputs[1] else True
    carried = list(inputs[2:])
    scans: list[list[str]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    states, count, before = [carried], 0, len(importer.builder.nodes)
    for known, value in zip((trips, going), inputs[:2], strict=False):
        if known is None:
            reason = f"its length depends on the data, and it is no embedding bag: {why}"
            raise Unsupported(reason, importer.tensor(value))
    assert trips is not None
    while count < trips and going:
        if count >= UNROLL:
            raise Unsupported(f"it runs more than {UNROLL} times")
        inner = Scope(scope.opsets, scope, {}, scope.attrs)
        step = [
            importer.builder.constant(np.asarray(count, np.int64)),
            importer.builder.constant(np.asarray(going)),
        ]
        inner.values.update(zip([i.name for i in body.input], [*step, *carried], strict=True))
        results = _iteration(importer, body, inner, why)
        going = scalar(importer, results[0])
        if going is None:
            reason = f"its condition depends on the data, and it is no embedding bag: {why}"
            raise Unsupported(reason, importer.tensor(results[0]))
        carried = results[1 : 1 + len(carried)]
        states.append(carried)
        for column, value in zip(scans, results[1 + len(carried) :], strict=True):
            column.append(importer.tensor(value))
        count += 1
    importer.loop(node, count, before)
    once = _rolled(importer, states, scans)
    return once or [*carried, *(_stack(importer, column) for column in scans)]


def _rolled(
    importer: Importer, states: Sequence[Sequence[Value]], scans: Sequence[Sequence[str]]
) -> list[Value] | None:
    """Return the last states and the stacked results of all iterations at once, where they are alike."""
    named = [[v for v in row if isinstance(v, str)] for row in states]
    if any(len(row) != len(states[0]) for row in named):
        return None
    once = rolled(importer.builder, list(zip(*named, strict=True)), [tuple(column) for column in scans])
    return None if once is None else [*once[0], *once[1]]


def _iteration(importer: Importer, body: Any, inner: Scope, why: str) -> list[Value]:
    """Return the results of one iteration; raise `Unsupported` for the first node in it that has none."""
    before = len(importer.failures)
    results = importer.graph(body, inner)
    if len(importer.failures) > before:
        first = importer.failures[before]
        del importer.failures[before:]
        fault = f"{first.op} {first.node} in it fails: {first.reason}"
        raise Unsupported(f"it is no embedding bag ({why}), and {fault}", first.value)
    return results


def _stack(importer: Importer, parts: list[str]) -> str:
    if not parts:
        raise Unsupported("it runs 0 times, and its scan outputs have no known shape")
    builder = importer.builder
    return stack(builder, parts, 0)


SPECIAL: dict[str, Special] = {
    "Constant": _constant,
    "If": _if,
    "Loop": _loop,
    "Range": make_range,
    "Scan": scan,
    **GRADIENTS,
    **OPTIMIZERS,
    **SEQUENCES,
}
