"""Graphs to be split, and what is asked of each split of them."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.collectives import COLLECTIVES
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import Split, propagate
from mtia_emu.compiler.reference import evaluate

from mtia_emu import api

Inputs = dict[str, np.ndarray]


@cache
def model(name: str, **dims: int) -> tuple[Graph, Inputs]:
    """Return a model of the zoo with random weights, and inputs for it."""
    with api.open_model(f"zoo:{name}", dims, execute_seed=0) as source:
        graph = source.graph()
        held = {
            k: type(c)(c.type, None if c.data is None else np.array(c.array(k)))
            for k, c in graph.consts.items()
        }
        return graph.with_nodes(graph.nodes, consts=held), source.inputs(graph, 0)


def split(name: str, parallel: str, **dims: int) -> Split:
    """Return a model of the zoo split as a text says."""
    return propagate(model(name, **dims)[0], parse_parallel(parallel))


def exchanges(made: Split) -> dict[str, int]:
    """Return how many exchanges of each kind there are."""
    return dict(Counter(node.op for node in made.nodes if node.op in COLLECTIVES))


def error(name: str, parallel: str, **dims: int) -> float:
    """Return how far a split model's outputs are from one rank's, of the largest."""
    graph, inputs = model(name, **dims)
    right, got = evaluate(graph, inputs), evaluate_split(split(name, parallel, **dims), inputs)
    return max(
        float(np.max(np.abs(got[k].astype(float) - x.astype(float))) / np.max(np.abs(x.astype(float))))
        for k, x in right.items()
    )
