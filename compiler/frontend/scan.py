"""Scan: a loop over slices of its operands, written out step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtia_emu.errors import UserError

from ..build import NodeBuilder
from ..ops import Unsupported
from ..ops.scan import STEPS
from .roll import rolled
from .scope import Scope, Value, graph_attr

if TYPE_CHECKING:
    from .importer import Importer


def stack(builder: NodeBuilder, parts: Sequence[str], axis: int) -> str:
    """Return tensors of one shape, one after the other along a new axis."""
    shapes = [builder.type_of(v).shape for v in parts]
    rows = [
        builder.add("reshape", v, shape=(*s[:axis], 1, *s[axis:])) for v, s in zip(parts, shapes, strict=True)
    ]
    return builder.add("concat", *rows, axis=axis)


def pick(builder: NodeBuilder, x: str, axis: int, at: int) -> str:
    """Return one element along an axis, which goes."""
    shape = builder.type_of(x).shape
    starts = [at if i == axis else 0 for i in range(len(shape))]
    ends = [at + 1 if i == axis else s for i, s in enumerate(shape)]
    taken = builder.add("slice", x, starts=starts, ends=ends, steps=[1] * len(shape))
    return builder.add("reshape", taken, shape=shape[:axis] + shape[axis + 1 :])


def scan(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return the last states and the stacked results of a Scan."""
    attrs, builder = importer.attributes(node, scope), importer.builder
    if scope.opsets.get("", 1) >= 9:
        return _steps(importer, node, [importer.tensor(v) for v in inputs], scope, attrs)
    if inputs[0]:  # operator set 8: the first operand is lengths, and a batch comes first
        raise Unsupported("its sequences are of unequal length")
    values = [importer.tensor(v) for v in inputs[1:]]
    attrs["scan_input_directions"] = attrs.pop("directions", ())
    batch = builder.type_of(values[0]).shape[0]
    each = [
        _steps(importer, node, [pick(builder, v, 0, b) for v in values], scope, attrs) for b in range(batch)
    ]
    return [stack(builder, items, 0) for items in zip(*each, strict=True)]


def _steps(
    importer: Importer, node: Any, values: list[str], scope: Scope, attrs: dict[str, Any]
) -> list[str]:
    body, builder = graph_attr(node, "body"), importer.builder
    count = int(attrs["num_scan_inputs"])
    states, scanned = values[: len(values) - count], values[len(values) - count :]
    axes = _axes(builder, scanned, attrs.get("scan_input_axes", ()))
    back = tuple(attrs.get("scan_input_directions", ())) or (0,) * count
    lengths = {builder.type_of(v).shape[a] for v, a in zip(scanned, axes, strict=True)}
    if len(lengths) != 1 or not 0 < min(lengths) <= STEPS:
        raise UserError(f"Scan over {sorted(lengths)} steps (right: one length for all, 1 to {STEPS})")
    (length,) = lengths
    results: list[list[str]] = []
    carried = [states]
    before = len(builder.nodes)
    for t in range(length):
        turns = zip(scanned, axes, back, strict=True)
        slices = [pick(builder, v, a, length - 1 - t if r else t) for v, a, r in turns]
        inner = Scope(scope.opsets, scope, {}, scope.attrs)
        inner.values.update(zip([i.name for i in body.input], [*states, *slices], strict=True))
        row = [importer.tensor(v) for v in importer.graph(body, inner)]
        states = row[: len(states)]
        carried.append(states)
        results.append(row[len(states) :])
    importer.loop(node, length, before)
    columns = list(zip(*results, strict=True))
    once = rolled(builder, list(zip(*carried, strict=True)), columns)
    last, stacks = once or (states, [stack(builder, column, 0) for column in columns])
    return last + _turned(builder, stacks, attrs)


def _axes(builder: NodeBuilder, values: list[str], given: Sequence[int]) -> list[int]:
    axes = list(given) or [0] * len(values)
    return [a % builder.type_of(v).rank for a, v in zip(axes, values, strict=True)]


def _turned(builder: NodeBuilder, stacks: list[str], attrs: dict[str, Any]) -> list[str]:
    """Return results stacked along the first axis as a Scan asks for them: another axis, or backwards."""
    axes = list(attrs.get("scan_output_axes", ())) or [0] * len(stacks)
    back = list(attrs.get("scan_output_directions", ())) or [0] * len(stacks)
    out = []
    for value, axis, reverse in zip(stacks, axes, back, strict=True):
        kind = builder.type_of(value)
        if reverse:
            starts, ends = [kind.shape[0] - 1, *[0] * (kind.rank - 1)], [-1, *kind.shape[1:]]
            value = builder.add("slice", value, starts=starts, ends=ends, steps=[-1, *[1] * (kind.rank - 1)])
        order = list(range(1, kind.rank))
        order.insert(axis % kind.rank, 0)
        out.append(builder.add("transpose", value, perm=tuple(order)))
    return out
