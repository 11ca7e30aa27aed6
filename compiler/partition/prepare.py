"""What is done to a graph before it is split over ranks."""

from __future__ import annotations

from ..graph import Graph
from ..ops.expert_matmul import ROUTED_PRODUCTS
from ..passes.legalise import Legalise
from ..passes.route_experts import RouteExperts
from ..passes.tidy import Fold
from ..pipeline import lower


def prepared(graph: Graph) -> Graph:
    """Return a graph whose mixtures of experts are products with routed experts, which can be split.

    There x sigmoid(x) is silu, which is 0 where a row is another rank's; what rules made twice is made once.
    Other graphs stay as they are.
    """
    routed = lower(graph, (RouteExperts(),))
    return lower(routed, (Legalise(), Fold())) if has_experts(routed) else graph


def has_experts(graph: Graph) -> bool:
    """Return whether a graph has products with routed experts."""
    return any(node.op in ROUTED_PRODUCTS for node in graph.nodes)
