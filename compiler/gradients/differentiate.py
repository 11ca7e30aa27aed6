"""From a graph to the graph that gives gradients as well: the rules of its ops, walked from the loss back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtia_emu.errors import UserError, nearest

from ..build import NodeBuilder
from ..graph import Graph
from ..ops import Sums, pull_back, reached


def differentiate(
    graph: Graph, loss: str, wrt: Sequence[str], names: Mapping[str, str] | None = None
) -> Graph:
    """Return the graph with the gradients of a loss as further outputs, `grad.VALUE` for each of `wrt`.

    The loss is one float; `wrt` are floats that it depends on: inputs, constants or what nodes make. One that
    it does not depend on has the gradient 0. `names` gives outputs other names. New nodes say in `origin`
    which node they come from. The graph is meant to be as imported, before passes for a chip: those then fuse
    and map forward and backward alike. Raises `UserError` for values of another kind and for ops without a
    rule.
    """
    builder = NodeBuilder(graph)
    gradients = gradients_of(builder, graph, loss, wrt)
    outputs = list(graph.outputs)
    for value, gradient in gradients.items():
        name = (names or {}).get(value, f"grad.{value}")
        outputs.append(named(builder, gradient, name))
    return joined(graph, builder, outputs)


def gradients_of(builder: NodeBuilder, graph: Graph, loss: str, wrt: Sequence[str]) -> dict[str, str]:
    """Return the gradient of a loss by each value of `wrt`, as values of a builder over the graph."""
    _check(graph, loss, wrt)
    sums = Sums(builder)
    active = reached(graph.nodes, set(wrt))
    if loss in active:
        sums.put(loss, builder.constant(1, graph.type_of(loss).dtype.numpy, hint="grad.loss"), "loss")
        pull_back(builder, graph.nodes, sums, active)
    gradients = {}
    for value in wrt:
        kind = graph.type_of(value)
        zero = builder.constant(0, kind.dtype.numpy)
        gradients[value] = sums.of(value) or builder.add("expand", zero, hint="grad", shape=kind.shape)
    return gradients


def _check(graph: Graph, loss: str, wrt: Sequence[str]) -> None:
    for value in (loss, *wrt):
        if not graph.has(value):
            known = [v for node in graph.nodes for v in node.outputs] + list(graph.inputs)
            raise UserError(f"graph {graph.name} has no value %{value}{nearest(value, known)}")
        kind = graph.type_of(value)
        if not kind.dtype.is_float:
            raise UserError(f"%{value} : {kind} is no float, and has no gradient")
    if graph.type_of(loss).size != 1:
        raise UserError(f"the loss %{loss} is {graph.type_of(loss)} (right: one number; sum or average it)")


def named(builder: NodeBuilder, value: str, name: str) -> str:
    """Return `name` as a copy of a value: what an output is called."""
    from ..graph import Node

    kind = builder.type_of(value)
    builder.declare(name, kind)
    builder.nodes.append(Node(name, "copy", (value,), (name,), (kind,), {}, builder.origin))
    return name


def joined(graph: Graph, builder: NodeBuilder, outputs: Sequence[str]) -> Graph:
    """Return the graph with the nodes and constants of a builder over it, without copies of made values."""
    whole = graph.with_nodes(
        (*graph.nodes, *builder.nodes), consts={**graph.consts, **builder.consts}, outputs=outputs
    )
    return _without_copies(whole).prune()


def _without_copies(graph: Graph) -> Graph:
    """Return the graph with outputs that are copies of a node's only-read result under the result's place."""
    from dataclasses import replace

    renames: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "copy" or node.output not in graph.outputs:
            continue
        source = node.inputs[0]
        maker = graph.producer(source)
        if maker is not None and source not in graph.outputs and source not in renames:
            renames[source] = node.output
    nodes = []
    for node in graph.nodes:
        if node.op == "copy" and renames.get(node.inputs[0]) == node.output:
            continue
        outputs = tuple(renames.get(v, v) for v in node.outputs)
        name = outputs[0] if outputs != node.outputs else node.name
        nodes.append(replace(node.renamed(renames), outputs=outputs, name=name))
    return graph.with_nodes(nodes)
