"""Sequences and optionals of static length: lists of our values, known while a model is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtia_emu.errors import UserError

from ..ops import Unsupported
from .scan import pick
from .scope import Nothing, Scope, Tensors, Value, graph_attr

if TYPE_CHECKING:
    from .importer import Importer

PARTS = 4096  # of a tensor that is split into a sequence
Special = Callable[["Importer", Any, "tuple[Value, ...]", Scope], "Sequence[Value]"]


def scalar(importer: Importer, value: Value) -> int | None:
    """Return a known number; None for what depends on the data."""
    if not isinstance(value, str):
        return None
    data = importer.builder.known(value)
    return None if data is None or data.size != 1 else int(data.reshape(-1)[0])


def position(importer: Importer, value: Value) -> int:
    """Return a known position in a sequence."""
    place = scalar(importer, value)
    if place is None:
        raise Unsupported("its position depends on the data", importer.tensor(value))
    return place


def known_sequence(importer: Importer, value: Value) -> tuple[str, ...]:
    """Return the items of a sequence."""
    if not isinstance(value, Tensors):
        raise Unsupported("its sequence is not known")
    if not value.rows:
        return value.items
    count = importer.builder.type_of(value.rows).shape[0]
    return tuple(pick(importer.builder, value.rows, 0, at) for at in range(count))


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
    sizes = _sizes(importer, shape[axis], inputs[1] if len(inputs) > 1 else "")
    parts = [
        _part(importer, x, axis, int(end - size), int(end))
        for size, end in zip(sizes, np.cumsum(sizes), strict=True)
    ]
    if attrs.get("keepdims", 1) == 0 and len(inputs) < 2:
        parts = [builder.add("reshape", v, shape=shape[:axis] + shape[axis + 1 :]) for v in parts]
    return [Tensors(tuple(parts))]


def _sizes(importer: Importer, length: int, given: Value) -> np.ndarray:
    """Return the sizes [parts] of the parts of an axis: ones, equal ones with a rest, or those given."""
    if not given:
        return np.ones(_few(importer, length), np.int64)
    data = importer.builder.known(importer.tensor(given))
    if data is None:
        raise Unsupported("its sizes depend on the data", importer.tensor(given))
    each = int(data.reshape(-1)[0]) if data.ndim == 0 else 0
    if each <= 0:
        _few(importer, data.size)
        return data
    count = _few(importer, -(-length // each))
    return np.asarray([min(each, length - i * each) for i in range(count)])


def _few(importer: Importer, parts: int) -> int:
    """Return a number of parts; raise `UserError` where it is large."""
    if parts > PARTS:
        raise UserError(f"it makes a sequence of {parts} parts (right: at most {PARTS})")
    importer.once.spend(parts)
    return parts


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
    items = list(known_sequence(importer, inputs[0]))
    place = position(importer, inputs[2]) if len(inputs) > 2 and inputs[2] else len(items)
    items.insert(place, importer.tensor(inputs[1]))
    return [Tensors(tuple(items))]


def _sequence_at(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    return [known_sequence(importer, inputs[0])[position(importer, inputs[1])]]


def _sequence_erase(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    items = list(known_sequence(importer, inputs[0]))
    del items[position(importer, inputs[1]) if len(inputs) > 1 and inputs[1] else -1]
    return [Tensors(tuple(items))]


def _sequence_length(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    return [importer.builder.constant(np.asarray(len(known_sequence(importer, inputs[0])), np.int64))]


def _concat_from_sequence(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope
) -> Sequence[Value]:
    sequence, attrs = inputs[0], importer.attributes(node, scope)
    axis, new = attrs.get("axis", 0), attrs.get("new_axis", 0)
    if not isinstance(sequence, Tensors):
        raise Unsupported("its operand is not a sequence")
    if sequence.rows:
        return [_joined(importer, sequence.rows, axis, new)]
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


def _joined(importer: Importer, rows: str, axis: int, new: int) -> str:
    """Return items that stand along a value's first axis joined along another: a new one, or theirs."""
    builder = importer.builder
    shape = builder.type_of(rows).shape
    axis %= len(shape) if new else len(shape) - 1
    order = (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))
    moved = builder.add("transpose", rows, perm=order)
    if new:
        return moved
    sizes = [shape[i] for i in order]
    return builder.add(
        "reshape", moved, shape=(*sizes[:axis], sizes[axis] * sizes[axis + 1], *sizes[axis + 2 :])
    )


def _optional(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    return [inputs[0] if inputs and inputs[0] else Nothing()]


def _has_element(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    given = bool(inputs) and bool(inputs[0]) and not isinstance(inputs[0], Nothing)
    return [importer.builder.constant(np.asarray(given))]


def _get_element(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    if isinstance(inputs[0], Nothing):
        raise Unsupported("its optional is empty")
    return [inputs[0]]


def _map(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return sequences of what the body makes of each item of the first operand, and of those beside it."""
    body, count = graph_attr(node, "body"), len(known_sequence(importer, inputs[0]))
    columns = [
        known_sequence(importer, v) if isinstance(v, Tensors) else (importer.tensor(v),) * count
        for v in inputs
    ]
    if any(len(column) != count for column in columns):
        raise UserError(f"SequenceMap over sequences of lengths {[len(column) for column in columns]}")
    made: list[list[str]] = []
    for items in zip(*columns, strict=True):
        inner = Scope(scope.opsets, scope, {}, scope.attrs)
        inner.values.update(zip([i.name for i in body.input], items, strict=True))
        made.append([importer.tensor(v) for v in importer.graph(body, inner)])
    return [Tensors(tuple(row[i] for row in made)) for i in range(len(node.output))]


def _identity(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    return inputs[:1]


SEQUENCES: dict[str, Special] = {
    "SplitToSequence": _split_to_sequence,
    "SequenceEmpty": _sequence_empty,
    "SequenceConstruct": _sequence_construct,
    "SequenceInsert": _sequence_insert,
    "SequenceErase": _sequence_erase,
    "SequenceAt": _sequence_at,
    "SequenceLength": _sequence_length,
    "ConcatFromSequence": _concat_from_sequence,
    "Optional": _optional,
    "OptionalHasElement": _has_element,
    "OptionalGetElement": _get_element,
    "SequenceMap": _map,
    "Identity": _identity,
}
