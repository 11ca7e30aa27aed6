"""Which passes mark what a GPU runs as one kernel, in order."""

from __future__ import annotations

from mtia_emu.types import ModelWork

from ...graph import Graph
from .attention import MarkAttention
from .base import Marking, mark
from .chains import MarkChains
from .convolutions import MarkTransposed
from .projections import MarkProjections
from .quantised import MarkQuantised
from .scans import MarkScans

GPU_PASSES: tuple[Marking, ...] = (
    MarkAttention(),  # first: it takes the softmax, and the work around it, whole
    MarkScans(),  # before the others: it takes the work around a loop
    MarkProjections(),
    MarkTransposed(),
    MarkChains(),  # what is in no other kernel
    MarkQuantised(),  # last: the end of any of them
)
"""The passes that mark what a GPU runs as one kernel, on the graph that no chip is known to yet."""


def asked_work(graph: Graph) -> ModelWork:
    """Return what a graph asks of a machine that is no chip of ours: work a node, and groups of nodes."""
    marked = mark(graph)
    for marking in GPU_PASSES:
        marked = marking(marked)
    return marked.asked
