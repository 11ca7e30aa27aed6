"""Passes that mark which nodes a serving runtime runs as one kernel, one file each."""

from .attention import GroupAttention
from .base import Flow, Grouping, MarkedGraph, NodeGroup, mark
from .chains import GroupChains
from .projections import GroupProjections

__all__ = [
    "Flow",
    "GroupAttention",
    "GroupChains",
    "GroupProjections",
    "Grouping",
    "MarkedGraph",
    "NodeGroup",
    "mark",
]
