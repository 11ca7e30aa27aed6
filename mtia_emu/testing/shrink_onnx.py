"""Shrinking ONNX models, as `shrink` does graphs: nodes, then outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import UserError
from .resize_onnx import shrink_onnx_sizes
from .shrink import ddmin

Model = Any  # onnx.ModelProto


def shrink_onnx(model: Model, fails: Callable[[Model], bool]) -> Model:
    """Return a part of an ONNX model that still fails, of small sizes, without weights that no node reads.

    What a removed node made becomes an input of the type that onnx infers; a part that needs a type which
    onnx cannot infer is not tried.
    """
    whole = _Whole(model)
    every = range(len(model.graph.node))

    def bad(some: Iterable[int], outputs: list[str] | None = None) -> bool:
        small = whole.part(some, outputs)
        return small is not None and fails(small)

    kept = ddmin(list(every), bad)
    small = whole.part(kept)
    if small is None:  # nothing could be left out, and the whole has values of unknown type
        raise UserError("onnx cannot infer the types of the model's outputs")
    outputs = ddmin([v.name for v in small.graph.output], lambda some: bad(kept, list(some)))
    return shrink_onnx_sizes(whole.part(kept, outputs), fails)


class _Whole:
    """The whole model, the types of its values, and parts of it."""

    def __init__(self, model: Model) -> None:
        import onnx

        self.model, graph = model, model.graph
        try:
            typed = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception as error:  # onnx raises errors of many kinds
            raise UserError(f"onnx cannot infer the types of the model's values: {error}") from None
        self.types = {v.name: v for v in (*typed.value_info, *graph.input, *graph.output)}
        self.weights = {w.name: w for w in graph.initializer}

    def part(self, some: Iterable[int], outputs: list[str] | None = None) -> Model | None:
        """Return the model of some nodes, by index; None where a type is missing or nothing is left."""
        import onnx

        nodes = [self.model.graph.node[i] for i in sorted(some)]
        results = {v for node in nodes for v in node.output if v}
        read = {v for node in nodes for v in _reads(node)}
        ends = outputs if outputs is not None else self._sinks(results, read)
        inputs = sorted(v for v in read - results if v not in self.weights)
        if not ends or any(v not in self.types for v in (*inputs, *ends)):
            return None
        small = onnx.ModelProto()
        small.CopyFrom(self.model)
        graph = small.graph
        for field in ("node", "input", "output", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(nodes)
        graph.input.extend(self.types[v] for v in inputs)
        graph.output.extend(self.types[v] for v in ends)
        graph.initializer.extend(w for name, w in self.weights.items() if name in read)
        return small

    def _sinks(self, results: set[str], read: set[str]) -> list[str]:
        """Return the model's outputs that are made, then what is made and not read."""
        given = [v.name for v in self.model.graph.output if v.name in results]
        return given + sorted(v for v in results - read - set(given) if v in self.types)


def _reads(node: Any) -> Iterator[str]:
    """Yield the values that a node reads, also from within its subgraphs."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
            inside = {v.name for v in (*graph.input, *graph.initializer)}
            inside |= {v for n in graph.node for v in n.output}
            yield from (v for n in graph.node for v in _reads(n) if v not in inside)
            yield from (v.name for v in graph.output if v.name not in inside)
