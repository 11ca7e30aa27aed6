"""Graphs as a training step wants them: what draws at random, what rounds, and what nobody reads."""

from __future__ import annotations

from dataclasses import replace

from mtia_emu.types import UINT32, TensorType

from ..graph import Graph, freeze_attrs
from ..ops.draws import PHILOX, rows_drawn


def redrawn(graph: Graph, draw: str) -> Graph:
    """Return a graph whose random bits are of the input `draw`, where it draws any."""
    nodes = [
        replace(node, inputs=(*node.inputs[:2], draw)) if node.op == PHILOX else node for node in graph.nodes
    ]
    if not rows_drawn(nodes):
        return graph
    inputs = {**graph.inputs, draw: TensorType(UINT32, ())}
    return Graph(graph.name, tuple(nodes), inputs, graph.outputs, graph.consts, graph.notes).prune()


def unrounded(graph: Graph, own: str) -> Graph:
    """Return the graph whose roundings to the model's own type follow the precision of training."""
    nodes = [
        replace(node, attrs=freeze_attrs({k: v for k, v in node.attrs.items() if k != "rounds"}))
        if node.op == "cast" and node.attrs["to"] == own
        else node
        for node in graph.nodes
    ]
    return graph.with_nodes(nodes)


def only_read(graph: Graph) -> Graph:
    """Return the graph without inputs that nothing reads and that are no state."""
    read = {v for node in graph.nodes for v in node.inputs} | set(graph.states.values())
    inputs = {name: kind for name, kind in graph.inputs.items() if name in read}
    return Graph(graph.name, graph.nodes, inputs, graph.outputs, graph.consts, graph.notes).with_states(
        graph.states
    )
