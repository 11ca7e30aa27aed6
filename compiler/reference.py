"""Executing a graph by the references of its ops: the values that every later stage is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np

from mtia_emu.errors import UserError, refuse_unknown

from . import ops
from .graph import Attrs, Graph, Node

OnCore = Callable[[Sequence[np.ndarray], Attrs], tuple[np.ndarray, ...]]


def evaluate(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    note: Callable[[str, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return the graph's outputs by name, in their types' shapes; raise `UserError` for wrong inputs.

    `note` is shown each value that a node makes, with its name.
    """
    values = _checked(graph, inputs)
    last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    for index, node in enumerate(graph.nodes):
        results = _run(graph, node, values)
        values.update(zip(node.outputs, results, strict=True))
        if note is not None:
            for value, array in zip(node.outputs, results, strict=True):
                note(value, array)
        for value in node.inputs:  # what nobody reads any more is let go
            if last[value] == index and value not in graph.outputs:
                values.pop(value, None)
    return {name: _value(graph, name, values) for name in graph.outputs}


def _value(graph: Graph, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    const = graph.const(name)
    return values[name] if const is None else const.array(name)


def _run(graph: Graph, node: Node, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    arrays = [_value(graph, v, values) if v else None for v in node.inputs]
    try:
        results = ops.reference(node.op, arrays, node.attrs)
    except UserError as error:
        raise UserError(f"{node.op} %{node.output}: {error} ({node.origin or node.name})") from None
    for value, kind, array in zip(node.outputs, node.types, results, strict=True):
        if array.shape != kind.shape or array.dtype != kind.dtype.numpy:
            raise AssertionError(f"{node.op} %{value} : {kind} gave {array.dtype}{list(array.shape)}")
    return results


def _checked(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name in inputs:
        if name not in graph.inputs:
            raise refuse_unknown("input", name, graph.inputs)
    values: dict[str, np.ndarray] = {}
    for name, kind in graph.inputs.items():
        if name not in inputs:
            raise UserError(f"input {name} : {kind} is not given")
        array = np.asarray(inputs[name])
        if array.shape != kind.shape or array.dtype != kind.dtype.numpy:
            raise UserError(f"input {name} is {kind}, the array given is {array.dtype}{list(array.shape)}")
        values[name] = array
    return values


def core_library() -> dict[str, OnCore]:
    """Return the reference of every op there is now, for the ones that run on a core."""
    return {name: partial(_on_core, name) for name in ops.OPS}


def _on_core(name: str, arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Return the values of an op, of any shape; the attribute `omitted` says which operands are not there."""
    operands: list[np.ndarray | None] = list(arrays)
    for index in cast(tuple[int, ...], attrs.get("omitted", ())):
        operands.insert(index, None)
    return ops.reference(name, operands, attrs)
