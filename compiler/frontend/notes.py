"""What the user should hear of a model that is not in its graph, or is easily meant otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtia_emu.types import TensorType

from ..graph import Graph, Node
from .scope import subgraphs

STEPS = 16  # of a loop that is worth a word
MOVES = ("reshape", "slice", "concat", "transpose", "expand")


@dataclass(frozen=True)
class Loop:
    """A loop that was written out, and which of all nodes made are its steps'."""

    name: str
    steps: int
    first: int
    last: int


def notes(model: Any, inputs: Mapping[str, TensorType]) -> tuple[str, ...]:
    """Return what to say of a ModelProto and its inputs, bound to sizes."""
    return (*_sharding(model), *_empty(model, inputs))


def _sharding(model: Any) -> Iterator[str]:
    """Say that annotations for many devices (IR 11 and later) are left aside."""
    bodies = (model.graph.node, *(f.node for f in model.functions))
    count = sum(bool(node.device_configurations) for nodes in bodies for node in _all(nodes))
    if count or model.configuration:
        yield (
            f"the model says how to spread it over devices ({len(model.configuration)} configurations, "
            f"{count} nodes annotated); that is for --system NAME --parallel onnx only"
        )


def _all(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all(graph.node)


def _empty(model: Any, inputs: Mapping[str, TensorType]) -> Iterator[str]:
    """Name the inputs that the model itself fixes at no elements: some exporters write 0 for any size."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        fixed = [a for a, d in enumerate(dims) if d.HasField("dim_value") and not d.dim_value]
        kind = inputs.get(value.name)
        if kind is not None and any(kind.shape[a] == 0 for a in fixed):
            yield (
                f"input {value.name} : {kind} is empty, as the model says; for another size: "
                f"--dim {value.name}:{fixed[0]}=SIZE"
            )


def written_out(loops: Iterable[Loop], nodes: Sequence[Node], graph: Graph) -> list[str]:
    """Return what to say of long loops whose steps, among all nodes made, are in the graph."""
    live, said = {node.name for node in graph.nodes if node.op not in MOVES}, []
    for loop in loops:
        count = sum(node.name in live for node in nodes[loop.first : loop.last])
        if count >= loop.steps >= STEPS:
            said.append(
                f"{loop.name} is written out: {loop.steps} steps, {count} nodes, launched one by one here "
                "and on a GPU, no kernel for such a loop being known: launches decide their ratio"
            )
    return said
