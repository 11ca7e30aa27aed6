"""Constants, branches, loops and sequences: the ONNX ops that are not functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops import Unsupported
from . import bags
from .scope import Scope, Tensors, Value, graph_attr

if TYPE_CHECKING:
    from .importer import Importer

UNROLL = 4096  # iterations of a loop

Special = Callable[["Importer", Any, "tuple[Value, ...]", Scope], "Sequence[Value]"]


def _constant(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    for attr in node.attribute:
        if attr.name == "value" and attr.type == 4:
            return [importer._tensor(attr.t, node.output[0])]
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
    raise Unsupported(f"a constant given by {', '.join(attrs) or 'nothing'}")


def _if(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    condition = importer.builder.known(importer.tensor(inputs[0]))
    if condition is None:
        raise Unsupported("its condition depends on the data", importer.tensor(inputs[0]))
    branch = graph_attr(node, "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
    return importer.graph(branch, Scope(scope.opsets, scope, {}, scope.attrs))


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
    trips = _scalar(importer, inputs[0]) if inputs and inputs[0] else UNROLL + 1
    going = _scalar(importer, inputs[1]) if len(inputs) > 1 and inputs[1] else True
    carried = list(inputs[2:])
    scans: list[list[str]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    count = 0
    if trips is None or going is None:
        raise Unsupported(f"its length depends on the data, and it is no embedding bag: {why}")
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
        going = _scalar(importer, results[0])
        if going is None:
            raise Unsupported(f"its condition depends on the data, and it is no embedding bag: {why}")
        carried = results[1 : 1 + len(carried)]
        for scan, value in zip(scans, results[1 + len(carried) :], strict=True):
            scan.append(importer.tensor(value))
        count += 1
    return [*carried, *(_stack(importer, scan) for scan in scans)]


def _iteration(importer: Importer, body: Any, inner: Scope, why: str) -> list[Value]:
    """Return the results of one iteration; raise `Unsupported` for the first node in it that has none."""
    before = len(importer.failures)
    results = importer.graph(body, inner)
    if len(importer.failures) > before:
        first = importer.failures[before]
        del importer.failures[before:]
        fault = f"{first.op} {first.node} in it fails: {first.reason}"
        raise Unsupported(f"it is no embedding bag ({why}), and {fault}")
    return results


def _stack(importer: Importer, parts: list[str]) -> str:
    if not parts:
        raise Unsupported("it runs 0 times, and its scan outputs have no known shape")
    builder = importer.builder
    rows = [builder.add("reshape", v, shape=(1, *builder.type_of(v).shape)) for v in parts]
    return builder.add("concat", *rows, axis=0)


def _scalar(importer: Importer, value: Value) -> int | None:
    if not isinstance(value, str):
        return None
    data = importer.builder.known(value)
    return None if data is None or data.size != 1 else int(data.reshape(-1)[0])


def _sequence_empty(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    return [Tensors()]


def _split_to_sequence(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    builder, attrs = importer.builder, importer.attributes(node, scope)
    x = importer.tensor(inputs[0])
    shape = builder.type_of(x).shape
    axis = attrs.get("axis", 0) % len(shape)
    sizes = np.ones(shape[axis], np.int64)
    if len(inputs) > 1 and inputs[1]:
        data = builder.known(importer.tensor(inputs[1]))
        if data is None:
            raise Unsupported("its sizes depend on the data")
        each = int(data.reshape(-1)[0]) if data.ndim == 0 else 0
        sizes = (
            np.asarray([min(each, shape[axis] - i) for i in range(0, shape[axis], each)])
            if each > 0
            else data
        )
    parts = [
        _part(importer, x, axis, int(end - size), int(end))
        for size, end in zip(sizes, np.cumsum(sizes), strict=True)
    ]
    if attrs.get("keepdims", 1) == 0 and len(inputs) < 2:
        parts = [builder.add("reshape", v, shape=shape[:axis] + shape[axis + 1 :]) for v in parts]
    return [Tensors(tuple(parts))]


def _part(importer: Importer, x: str, axis: int, start: int, end: int) -> str:
    shape = importer.builder.type_of(x).shape
    starts = [start if i == axis else 0 for i in range(len(shape))]
    ends = [end if i == axis else s for i, s in enumerate(shape)]
    return importer.builder.add("slice", x, starts=starts, ends=ends, steps=[1] * len(shape))


def _sequence_construct(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    return [Tensors(tuple(importer.tensor(v) for v in inputs))]


def _sequence_insert(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    sequence = inputs[0]
    if not isinstance(sequence, Tensors) or sequence.rows:
        raise Unsupported("its sequence is not known")
    items = list(sequence.items)
    place = _scalar(importer, inputs[2]) if len(inputs) > 2 and inputs[2] else len(items)
    if place is None:
        raise Unsupported("its position depends on the data")
    items.insert(place, importer.tensor(inputs[1]))
    return [Tensors(tuple(items))]


def _sequence_at(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    sequence, place = inputs[0], _scalar(importer, inputs[1])
    if not isinstance(sequence, Tensors) or sequence.rows or place is None:
        raise Unsupported("its sequence or position is not known")
    return [sequence.items[place]]


def _sequence_length(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    if not isinstance(inputs[0], Tensors) or inputs[0].rows:
        raise Unsupported("its sequence is not known")
    return [importer.builder.constant(np.asarray(len(inputs[0].items), np.int64))]


def _concat_from_sequence(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    sequence, attrs = inputs[0], importer.attributes(node, scope)
    axis, new = attrs.get("axis", 0), attrs.get("new_axis", 0)
    if not isinstance(sequence, Tensors):
        raise Unsupported("its operand is not a sequence")
    if sequence.rows:
        if axis not in (0, -2) or new:
            raise Unsupported("it joins the bags of an embedding along another axis than the first")
        return [sequence.rows]
    if not sequence.items:
        raise Unsupported("its sequence is empty")
    builder = importer.builder
    parts = list(sequence.items)
    rank = len(builder.type_of(parts[0]).shape) + (1 if new else 0)
    axis %= rank
    if new:
        shapes = [builder.type_of(v).shape for v in parts]
        parts = [
            builder.add("reshape", v, shape=(*s[:axis], 1, *s[axis:]))
            for v, s in zip(parts, shapes, strict=True)
        ]
    return [builder.add("concat", *parts, axis=axis)]


SPECIAL: dict[str, Special] = {
    "Constant": _constant,
    "If": _if,
    "Loop": _loop,
    "SplitToSequence": _split_to_sequence,
    "SequenceEmpty": _sequence_empty,
    "SequenceConstruct": _sequence_construct,
    "SequenceInsert": _sequence_insert,
    "SequenceAt": _sequence_at,
    "SequenceLength": _sequence_length,
    "ConcatFromSequence": _concat_from_sequence,
}
