"""Which of several engines a request goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import refuse_unknown
from .blocks import SharedBlocks
from .replica import Replica

MOST_APART = 32  # open requests between two engines, up to which a shared prefix decides

Names = tuple[SharedBlocks, ...]
Router = Callable[[Sequence[Replica], Names, int], int]


def round_robin(engines: Sequence[Replica], _names: Names, number: int) -> int:
    """Return the engines one after another; `number` counts the requests routed so far."""
    return number % len(engines)


def least_loaded(engines: Sequence[Replica], _names: Names, _number: int) -> int:
    """Return the engine with the fewest open requests, the first of equals."""
    return min(range(len(engines)), key=lambda e: engines[e].open_requests)


def prefix_aware(engines: Sequence[Replica], names: Names, number: int) -> int:
    """Return the engine that has most of the prompt's pieces, the least loaded of equals.

    Where engines are more than `MOST_APART` open requests apart, the load alone decides, as in SGLang's
    router (`balance_abs_threshold`), lest all that share a prefix wait for one engine.
    """
    loads = [engine.open_requests for engine in engines]
    if max(loads) - min(loads) > MOST_APART:
        return least_loaded(engines, names, number)
    return max(range(len(engines)), key=lambda e: (engines[e].scheduler.pieces_found(names), -loads[e], -e))


ROUTERS: dict[str, Router] = {
    "round-robin": round_robin,
    "least-loaded": least_loaded,
    "prefix-aware": prefix_aware,
}


def router(name: str) -> Router:
    """Return the router of that name."""
    if name not in ROUTERS:
        raise refuse_unknown("router", name, ROUTERS)
    return ROUTERS[name]
