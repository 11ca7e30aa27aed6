"""Graphs before and after passes, as text.

A golden file has the passes in its first line, then a graph, then `=>` and the graph that they make of it.
UPDATE_GOLDEN=1 rewrites what follows the `=>`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes import Pass, Rules
from mtia_emu.compiler.reference import evaluate

from mtia_emu import testing
from mtia_emu.testing.judge import typed
from mtia_emu.types import TensorType

FOLDER = Path(__file__).parent / "golden"
ARROW = "=>\n"


def cases(name: str) -> list[str]:
    """Return the golden files of a pass, by name; there must be some."""
    stems = sorted(path.stem for path in FOLDER.glob(f"{name.replace('-', '_')}_*.ir"))
    assert stems, f"no golden file of pass {name}"
    return stems


def hold(case: str, tolerance: float = 1e-5) -> None:
    """Assert that a golden file's passes make its second graph of its first, of equal results."""
    path = FOLDER / f"{case}.ir"
    head, _, expected = path.read_text(encoding="utf-8").partition(ARROW)
    spelling, _, body = head.partition("\n")
    pipeline, graph = parse_passes(spelling), check(text.parse(body))
    made = text.dump(lowered(graph, pipeline))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(f"{spelling}\n{text.dump(graph)}{ARROW}{made}", encoding="utf-8")
        return
    assert made == expected
    assert made != text.dump(graph), f"{spelling} leaves the graph as it is"
    full = with_weights(graph)
    before, after = results(full), results(lowered(full, pipeline), full)
    after = {name: value.astype(before[name].dtype) for name, value in after.items()}
    testing.assert_close(after, before, tolerance)


def lowered(graph: Graph, pipeline: tuple[Pass, ...]) -> Graph:
    """Return the graph after the passes, each of which leaves a lawful one."""
    for step in pipeline:
        graph = check(step(graph), after=step.name)
    return graph


def with_weights(graph: Graph) -> Graph:
    """Return the graph with random data in place of absent weights."""
    rng = np.random.default_rng(0)
    consts = {
        name: c if c.present else replace(c, data=random(rng, c.type)) for name, c in graph.consts.items()
    }
    return graph.with_nodes(graph.nodes, consts=consts)


def random(rng: np.random.Generator, kind: TensorType) -> np.ndarray:
    """Return normal floats, or small whole numbers."""
    data = rng.standard_normal(kind.shape) if kind.dtype.is_float else rng.integers(0, 100, kind.shape)
    return np.asarray(data).astype(kind.dtype.numpy)


def results(graph: Graph, like: Graph | None = None) -> dict[str, np.ndarray]:
    """Return the outputs of a graph on the random inputs of another, in its own types; else on its own.

    What is random depends on the graph: numbers at and around those that it computes with are among it.
    """
    with np.errstate(all="ignore"):
        return evaluate(graph, typed(graph, random_inputs(like or graph)))


def outcomes(spelling: str, body: str) -> list[str]:
    """Return the reasons why the last pass does not fire, and assert that it leaves the graph as it is."""
    *before, step = parse_passes(spelling)
    graph = lowered(check(text.parse(body)), tuple(before))
    assert text.dump(step(graph)) == text.dump(graph), f"{spelling} fires"
    assert isinstance(step, Rules)
    return [o.reason for o in step.outcomes(graph) if o.reason]
