"""Passes that mark which nodes a serving runtime runs as one kernel, one file each."""

from .attention import MarkAttention
from .attention_back import MarkAttentionBack
from .base import Flow, MarkedGraph, Marking, NodeGroup, mark
from .chains import MarkChains
from .convolutions import MarkTransposed
from .experts import MarkExperts
from .operands import MarkOperands
from .optimisers import MarkOptimisers
from .projections import MarkProjections
from .quantised import MarkQuantised
from .scans import MarkScans
from .updates import MarkUpdates

__all__ = [
    "GPU_PASSES",
    "Flow",
    "MarkAttention",
    "MarkAttentionBack",
    "MarkChains",
    "MarkExperts",
    "MarkOperands",
    "MarkOptimisers",
    "MarkProjections",
    "MarkQuantised",
    "MarkScans",
    "MarkTransposed",
    "MarkUpdates",
    "MarkedGraph",
    "Marking",
    "NodeGroup",
    "mark",
]

GPU_PASSES: tuple[Marking, ...] = (
    MarkAttention(),  # first: it takes the softmax, and the work around it, whole
    MarkAttentionBack(),
    MarkScans(),  # before the others: it takes the work around a loop
    MarkUpdates(),
    MarkProjections(),
    MarkTransposed(),
    MarkExperts(),
    MarkOperands(),
    MarkOptimisers(),
    MarkChains(),  # what is in no other kernel
    MarkQuantised(),  # last: the end of any of them
)
"""The passes that mark what a GPU runs as one kernel, on the graph that no chip is known to yet."""
