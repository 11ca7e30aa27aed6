"""What no algorithm can beat: the bytes that must cross a cut of the topology, over what the cut carries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .collectives import Collective
from .topology import System


@lru_cache(maxsize=256)
def cut_bytes_per_s(system: System, one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the most bytes a second from some ranks to others: the maximum flow over links, one way."""
    import networkx

    graph = networkx.DiGraph()
    for link in system.links:
        graph.add_edge(link.source, link.target, capacity=link.bytes_per_s)
    graph.add_edges_from(("from", system.ranks[r]) for r in one)
    graph.add_edges_from((system.ranks[r], "to") for r in other)
    return float(networkx.maximum_flow_value(graph, "from", "to"))


def bisection_bytes_per_s(system: System, ranks: Sequence[int] | None = None) -> float:
    """Return what the first half of some ranks, or of all, can send to the second half, one way.

    One rank has no halves: 0.
    """
    mine = tuple(range(len(system.ranks)) if ranks is None else ranks)
    half = len(mine) // 2
    if half == 0:
        return 0.0
    return cut_bytes_per_s(system, mine[:half], mine[half:])


def least_seconds(system: System, collective: Collective) -> float:
    """Return what a collective takes at least between the halves of its ranks, without a switch that adds.

    Sums of all ranks of a half must reach the other half, or all that one half has (Thakur, Rabenseifner
    and Gropp, 2005, for a cut in place of a rank).
    """
    n, size = len(collective.ranks), collective.bytes
    half = n // 2
    rest = n - half
    crossing = {
        "all_reduce": size,
        "reduce_scatter": size * max(half, rest) / n,
        "all_gather": size * max(half, rest) / n,
        "all_to_all": size * half * rest / n,
        "broadcast": size,
        "send": size,
    }[collective.kind]
    return crossing / bisection_bytes_per_s(system, collective.ranks)
