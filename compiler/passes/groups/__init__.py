"""Passes that mark which nodes a serving runtime runs as one kernel, one file each."""

from .attention import MarkAttention
from .base import Flow, MarkedGraph, Marking, NodeGroup, mark
from .chains import MarkChains
from .convolutions import MarkTransposed
from .gpu import GPU_PASSES, asked_work
from .projections import MarkProjections
from .quantised import MarkQuantised
from .scans import MarkScans

__all__ = [
    "GPU_PASSES",
    "Flow",
    "MarkAttention",
    "MarkChains",
    "MarkProjections",
    "MarkQuantised",
    "MarkScans",
    "MarkTransposed",
    "MarkedGraph",
    "Marking",
    "NodeGroup",
    "asked_work",
    "mark",
]
