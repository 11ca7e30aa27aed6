"""What the links of a system leave of the way of a cache from one engine to another."""

from __future__ import annotations

from ..errors import UserError
from ..serving.handover import CachePath, Handover
from ..system.collectives import Collective, timed
from ..system.topology import System

SIZES = (1 << 24, 1 << 30)  # bytes of caches that are timed: what one more byte takes lies between


def handover_over(system: System, chips: int, prompts: int, decoding: int) -> Handover:
    """Return the handover of engines of so many chips each, one after another in the order of ranks.

    Engines for prompts come first. Raises `UserError` where the system has fewer chips.
    """
    needed = (prompts + decoding) * chips
    if needed > len(system.ranks):
        raise UserError(
            f"{system.name}: {prompts} engines for prompts and {decoding} that decode, {chips} chips each, "
            f"take {needed}, and it has {len(system.ranks)} (right: fewer, a larger system, or --link)"
        )
    return Handover.over(
        tuple(
            tuple(cache_path(system, chips, sender, prompts + j) for j in range(decoding))
            for sender in range(prompts)
        )
    )


def cache_path(system: System, chips: int, sender: int, receiver: int) -> CachePath:
    """Return the way between two engines: each chip sends its share to the chip of its place, all at once.

    Bytes share links as they do in an exchange; `links` are the lanes that any of them passes.
    """
    ranks = tuple(range(sender * chips, (sender + 1) * chips))
    ranks += tuple(range(receiver * chips, (receiver + 1) * chips))
    few, many = (timed(system, _exchange(size / chips, ranks, chips)) for size in SIZES)
    second_per_byte = (many.seconds - few.seconds) / (SIZES[1] - SIZES[0])
    latency_s = max(few.seconds - SIZES[0] * second_per_byte, 0.0)
    lanes = {link.lane for link, moved in zip(system.links, many.link_bytes, strict=True) if moved > 0}
    return CachePath(latency_s, 1 / second_per_byte, tuple(sorted(lanes)))


def _exchange(share: float, ranks: tuple[int, ...], chips: int) -> Collective:
    n = 2 * chips
    matrix = tuple(tuple(share * (j == i + chips) for j in range(n)) for i in range(n))
    return Collective("all_to_all", 0.0, ranks, matrix)
