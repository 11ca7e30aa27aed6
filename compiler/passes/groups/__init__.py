"""Passes that mark which nodes a serving runtime runs as one kernel, one file each."""

from .attention import MarkAttention
from .base import Flow, MarkedGraph, Marking, NodeGroup, mark
from .chains import MarkChains
from .convolutions import MarkTransposed
from .projections import MarkProjections
from .scans import MarkScans

__all__ = [
    "Flow",
    "MarkAttention",
    "MarkChains",
    "MarkProjections",
    "MarkScans",
    "MarkTransposed",
    "MarkedGraph",
    "Marking",
    "NodeGroup",
    "mark",
]
