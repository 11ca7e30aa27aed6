"""ONNX's `Gradient` operator: the slopes of one value of the graph by others, by our gradient rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ops import Sums, Unsupported, pull_back, reached
from .scope import GRADIENT, Scope, Value

if TYPE_CHECKING:
    from .importer import Importer


def _gradient(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return the gradient of the sum of `y` by each of `xs`; `zs` are held still, also where made of `xs`.

    The operands are the very values that `xs` and `zs` name: `y` at other values would be another graph.
    """
    attrs, builder = importer.attributes(node, scope), importer.builder
    names = [*attrs.get("xs", ()), *attrs.get("zs", ())]
    given = [importer.tensor(v) for v in inputs]
    for name, value in zip(names, given, strict=True):
        if scope.find(name) != value:
            raise Unsupported(
                f"its operand %{value} is not %{name}, whose gradient it names (right: the same)"
            )
    found = scope.find(str(attrs.get("y", "")))
    if not isinstance(found, str):
        raise Unsupported(f"there is no value %{attrs.get('y', '')} to take the gradient of")
    count = len(attrs.get("xs", ()))
    wanted, still = given[:count], set(given[count:])
    for value in (found, *wanted):
        if not builder.type_of(value).dtype.is_float:
            raise Unsupported(f"%{value} is no float, and has no gradient")
    nodes = [n for n in builder.nodes if not still.intersection(n.outputs)]
    sums, active = Sums(builder), reached(nodes, set(wanted) - still)
    if found in active:
        kind = builder.type_of(found)
        one = builder.constant(1, kind.dtype.numpy)
        sums.put(found, builder.add("expand", one, shape=kind.shape), node.name)
        pull_back(builder, nodes, sums, active)
    return [sums.of(v) or _zeros(importer, v) for v in wanted]


def _zeros(importer: Importer, value: str) -> str:
    kind = importer.builder.type_of(value)
    zero = importer.builder.constant(0, kind.dtype.numpy)
    return importer.builder.add("expand", zero, shape=kind.shape)


GRADIENTS = {GRADIENT: _gradient}
