"""A training step that was exported whole: what lives in place in it, and which weights it does not train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..graph import Graph
from ..next_values import next_values
from ..ops.attention_paged import paged_states

SHOWN = 3  # names in a note
WEIGHED = {"matmul": (0, 1), "conv": (1,), "gather": (0,), "embedding_bag": (0,)}  # where an op has weights


def with_exported_states(graph: Graph, nodes: Iterable[Any]) -> Graph:
    """Return a graph imported from ONNX nodes with its states, and what to say of them.

    Caches in pages say so themselves. That an output of a training step is the next value of an input is
    inferred, and the note says so.
    """
    stated = paged_states(nodes)
    inferred = {} if stated else next_values(graph)
    notes = (*graph.notes, *_inferred_note(graph, inferred), *_frozen_note(graph, nodes, inferred))
    return graph.with_notes(notes).with_states(stated or inferred)


def _inferred_note(graph: Graph, inferred: Mapping[str, str]) -> Iterator[str]:
    """Say which next values were inferred, by the largest of them."""
    if inferred:
        new = max(inferred, key=lambda name: graph.type_of(name).size)
        shown = f"%{new} of %{inferred[new]}" + (", ..." if len(inferred) > 1 else "")
        yield (
            f"a training step: {len(inferred)} outputs are taken as next values of the inputs that "
            f"arithmetic makes them of ({shown}); they lie in the inputs' memory, and keep their "
            "own type where the model runs in a narrower one"
        )


def _frozen_note(graph: Graph, nodes: Iterable[Any], inferred: Mapping[str, str]) -> Iterator[str]:
    """Name the weights that are constants of a graph with gradients."""
    if not (inferred or _has_gradients(graph, nodes)):
        return
    frozen = {
        node.inputs[index]: None
        for node in graph.nodes
        for index in WEIGHED.get(node.op, ())
        if (const := graph.const(node.inputs[index])) is not None
        and const.type.rank > 1
        and const.type.dtype.is_float
    }
    if frozen:
        more = ", ..." if len(frozen) > SHOWN else ""
        shown = ", ".join(f"%{name}" for name in list(frozen)[:SHOWN]) + more
        yield (
            f"weights of this training graph are constants, which no step changes: {len(frozen)} ({shown}); "
            "for weights that are trained: export them as inputs"
        )


def _has_gradients(graph: Graph, nodes: Iterable[Any]) -> bool:
    """Return whether a graph computes gradients, by operators of onnxruntime-training or names of outputs."""
    named = any("grad" in name.lower() for name in graph.outputs)
    return named or any(n.domain == "com.microsoft" and "Grad" in n.op_type for n in nodes)
