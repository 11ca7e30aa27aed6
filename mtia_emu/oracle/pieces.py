"""A model in pieces: its products of integers one by one, all between them by another executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .exact import EXACT, Array

Run = Callable[[bytes, Mapping[str, Array]], dict[str, Array]]


def key_of(node: Any) -> str:
    """Return the operator of a node as `EXACT` spells it."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def bodies(node: Any) -> Iterator[Any]:
    """Yield the graphs that are attributes of a node."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def walk(nodes: Any) -> Iterator[Any]:
    """Yield nodes and those of their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from walk(body.node)


def multiplies_integers(model: Any) -> bool:
    """Return whether a model holds products of integers, wherever in it."""
    return any(key_of(n) in EXACT for part in (model.graph, *model.functions) for n in walk(part.node))


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python has them."""
    import onnx

    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in given.items()}


def outputs_of(model: Any, inputs: Mapping[str, Array], run: Run) -> dict[str, Array]:
    """Return a model's outputs by name: products of integers by `EXACT`, the rest by `run`.

    None of its products may be in a body or in a function.
    """
    from onnx import numpy_helper

    consts = {x.name: x for x in model.graph.initializer if x.name not in inputs}
    values, left = dict(inputs), []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            consts[node.output[0]] = _named(node.attribute[0].t, node.output[0])
        else:
            left.append(node)
    outputs = [o.name for o in model.graph.output]
    while left:  # nodes without results that count are left out
        piece, left = _runnable(left, {"", *values, *consts})
        kept = {name for node in left for name in reads(node)} | set(outputs)
        results = [name for node in piece for name in node.output if name in kept]
        if results:
            values |= run(_written(model, piece, values, consts, results), values)
        left = _multiplied(left, values, consts)
    return {name: values[name] if name in values else numpy_helper.to_array(consts[name]) for name in outputs}


def _named(tensor: Any, name: str) -> Any:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def reads(node: Any) -> set[str]:
    """Return the values that a node reads, those that its bodies read from outside too."""
    values = set(node.input)
    for body in bodies(node):
        own = {x.name for x in (*body.input, *body.initializer)}
        own |= {name for inner in body.node for name in inner.output}
        values |= {name for inner in body.node for name in reads(inner)} | {o.name for o in body.output}
        values -= own
    return values


def _runnable(nodes: list[Any], known: set[str]) -> tuple[list[Any], list[Any]]:
    """Return the nodes that need no product which is still to come, in an order to run in, and the others."""
    piece: list[Any] = []
    while True:  # once where the nodes stand in an order to run in
        later = []
        for node in nodes:
            if key_of(node) not in EXACT and reads(node) <= known:
                piece.append(node)
                known |= set(node.output)
            else:
                later.append(node)
        if len(later) == len(nodes):
            return piece, later
        nodes = later


def _multiplied(nodes: list[Any], values: dict[str, Array], consts: Mapping[str, Any]) -> list[Any]:
    """Add to `values` the results of the products whose operands are known; return the other nodes."""
    from onnx import numpy_helper

    known = {"", *values, *consts}
    ready = [n for n in nodes if key_of(n) in EXACT and reads(n) <= known]
    if nodes and not ready:
        raise ValueError(f"nothing gives {sorted(reads(nodes[0]) - known)[0]!r}")
    for node in ready:
        given = [
            None if not name else values[name] if name in values else numpy_helper.to_array(consts[name])
            for name in node.input
        ]
        results = EXACT[key_of(node)](given, attributes(node))
        values |= {name: x for name, x in zip(node.output, results, strict=False) if name}
    return [n for n in nodes if not any(n is r for r in ready)]


def _written(
    model: Any, nodes: list[Any], values: Mapping[str, Array], consts: Mapping[str, Any], outputs: list[str]
) -> bytes:
    """Return nodes of a model as a model of their own with these outputs."""
    from onnx import helper

    needed = {name for node in nodes for name in reads(node)}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in values.items()
        if name in needed
    ]
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
    given = [x for name, x in consts.items() if name in needed]
    graph = helper.make_graph(nodes, "piece", inputs, ends, given)
    opsets = {"opset_imports": model.opset_import, "ir_version": model.ir_version}
    return helper.make_model(graph, **opsets).SerializeToString()
