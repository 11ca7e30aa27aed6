"""Random graphs over random meshes, their inputs in random layouts: held to the graph on one rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.layout import Axes, Layout
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import KINDS, PLAN, TABLES, Mesh
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import Split, propagate
from mtia_emu.compiler.partition.stages import PipelineStage, stages, weights
from mtia_emu.compiler.partition.tables import COLUMN, WHOLE_TABLE, TablePlace, tables
from mtia_emu.compiler.partition.unpack import unpacked

from ..errors import UserError
from ..types import TensorType
from .grower import Seeded
from .judge import Inputs, typed

Array = np.ndarray[Any, Any]
SALT = 0x5EED  # so that layouts do not follow the choices by which the graph grew
MESHES = (
    {"tp": 2},
    {"tp": 4},
    {"tp": 6},
    {"tp": 8},
    {"dp": 2},
    {"dp": 4},
    {"dp": 2, "tp": 2},
    {"dp": 3, "tp": 2},
    {"dp": 2, "tp": 4},
    {"cp": 2, "tp": 2},
    {"cp": 2, "dp": 2, "tp": 2},
    {"ep": 2, "tp": 2},
    {"ep": 3},
    {"ep": 4, "dp": 2},
)
STAGES = 4  # of a pipeline, at most


def random_split(graph: Graph, seed: int, number: int) -> Split:
    """Return a graph split over a random mesh, with random layouts of its inputs."""
    source = Seeded(SALT, seed, number)
    sizes = source.pick(MESHES)
    sequence = "tp" in sizes and source.below(3) == 0
    tables = source.pick(("", *TABLES, PLAN)) if {"dp", "tp"} & set(sizes) else ""
    dispatch = "ep" in sizes and source.below(2) == 0
    mesh = Mesh(dict(sizes), sequence, tables, dispatch)
    given = {name: _layout(source, kind, mesh) for name, kind in graph.inputs.items()}
    ready = prepared(graph) if source.below(2) else graph
    places = _places(source, ready, mesh) if mesh.planned else None
    return propagate(unpacked(ready) if source.below(2) else ready, mesh, given, places=places)


def _places(source: Seeded, graph: Graph, mesh: Mesh) -> dict[str, TablePlace]:
    """Return random places of a graph's tables, of all kinds."""
    ranks = math.prod(mesh.counts[axis] for axis in mesh.lookup)
    places = {}
    for name, read in tables(graph).items():
        kind = source.pick(KINDS)
        parts = 1 if kind == WHOLE_TABLE else source.pick((0, 2, 3))
        cut = kind == COLUMN and parts > 1 and read.kind.shape[1] % parts == 0
        owners = [source.below(ranks) for _ in range(parts)] if kind == WHOLE_TABLE or cut else []
        places[name] = TablePlace(kind, tuple(owners))
    return places


def random_stages(split: Split, seed: int, number: int) -> tuple[PipelineStage, ...]:
    """Return a split graph cut at random into a few stages of a pipeline, or into one."""
    source = Seeded(SALT, seed, number, 1)
    weighs = {name: float(w and 1 + source.below(8)) for name, w in weights(split).items()}
    for count in range(1 + source.below(STAGES), 1, -1):
        with suppress(UserError):  # fewer products than that
            return stages(split, count, weighs)
    return ()


def _layout(source: Seeded, kind: TensorType, mesh: Mesh) -> Layout:
    """Return a random layout of an input: each axis splits a dimension that it divides, or none."""
    dims: list[Axes] = [()] * kind.rank
    left = list(kind.shape)
    for axis, size in mesh.counts.items():
        at = source.below(kind.rank + 1)
        if at < kind.rank and left[at] and left[at] % size == 0:
            dims[at] = (*dims[at], axis)
            left[at] //= size
    return Layout(tuple(dims))


def split_results(graph: Graph, seed: int, number: int, inputs: Inputs) -> Mapping[str, Array]:
    """Return the outputs of a graph split at random, all ranks executed by the references of ops."""
    split = random_split(graph, seed, number)
    with np.errstate(all="ignore"):
        return evaluate_split(split, typed(graph, inputs), random_stages(split, seed, number))
