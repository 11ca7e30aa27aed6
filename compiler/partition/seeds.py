"""How the inputs of a model lie at least, before any op wants more of them."""

from __future__ import annotations

import math

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Graph
from ..ops.layout import WHOLE, Axes, Layout
from .mesh import Mesh


def seeded(graph: Graph, kind: TensorType, name: str, mesh: Mesh) -> Layout:
    """Return how an input lies at least: its batch over `mb` and `dp` (and `ep`), its sequence over `cp`.

    The batch is the first dimension of the first input, and of all that have one of its size; the sequence is
    the second of what has indices of integers.
    """
    batch = next((t.shape[0] for t in graph.inputs.values() if t.rank), 1)
    dims: list[Axes] = [WHOLE] * kind.rank
    over = tuple(a for axis in mesh.of_batch for a in mesh.axes(axis))
    if kind.rank and kind.shape[0] == batch and over:
        count = math.prod(mesh.sizes[axis] for axis in mesh.of_batch)
        if batch % count:
            raise UserError(
                f"--parallel {mesh}: a batch of {batch} (%{name}) does not divide among {count} "
                f"(right: a batch that is a multiple, or fewer of {' and '.join(mesh.of_batch)})"
            )
        dims[0] = over
    sequence = mesh.sizes["cp"]
    if sequence > 1 and kind.rank == 2 and not kind.dtype.is_float:
        if kind.shape[1] % sequence:
            raise UserError(
                f"--parallel cp={sequence}: a sequence of {kind.shape[1]} (%{name}) does not divide "
                "(right: a length that is a multiple)"
            )
        dims[1] = mesh.axes("cp")
    return Layout(tuple(dims))
