"""The algorithms of collectives, each as a schedule of sends between the positions 0 to n - 1.

Pieces: an all-reduce, all-gather or reduce-scatter has a piece for each rank, and rank i owns piece i. An
all-to-all sends piece j to rank j; what comes from rank i lies in piece n + i. A broadcast's root is rank 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .schedule import SWITCH, CollectiveSchedule, Round, sends

Array = np.ndarray
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
CHAIN_PIECES = 16  # parts of a broadcast that goes from rank to rank


@dataclass(frozen=True)
class Arrangement:
    """What an algorithm needs to know: how many ranks, and which of them are near to one another."""

    ranks: int
    groups: tuple[tuple[int, ...], ...] = ()
    switch: bool = False
    pipelines: bool = False

    @property
    def regular(self) -> bool:
        """Return whether there are several groups, all of one size above one."""
        sizes = {len(group) for group in self.groups}
        return len(self.groups) > 1 and len(sizes) == 1 and sizes != {1}


def _ring_scatter(n: int) -> Iterator[Round]:
    """Yield the rounds of a ring's reduce-scatter: in round t rank i sends piece i - t - 1 to its right."""
    i = np.arange(n)
    for t in range(n - 1):
        piece = (i - t - 1) % n
        yield sends((i, (i + 1) % n), (piece, piece), adds=True)


def _ring_gather(n: int) -> Iterator[Round]:
    i = np.arange(n)
    for t in range(n - 1):
        piece = (i - t) % n
        yield sends((i, (i + 1) % n), (piece, piece))


def _pairs(n: int) -> tuple[Array, Array]:
    """Return every pair (source, target) of different ranks; sources by turns, so that none waits."""
    shift = np.repeat(np.arange(1, n), n)
    source = np.tile(np.arange(n), n - 1)
    return source, (source + shift) % n


def _direct_scatter(n: int) -> Iterator[Round]:
    source, target = _pairs(n)
    yield sends((source, target), (target, target), adds=True)


def _direct_gather(n: int) -> Iterator[Round]:
    source, target = _pairs(n)
    yield sends((source, target), (source, source))


def _halving(n: int) -> Iterator[Round]:
    """Yield the rounds of recursive halving: partners n/2, n/4, ... apart swap halves of what they have."""
    i, span = np.arange(n), n // 2
    while span:
        partner = i ^ span
        start = (partner // span) * span  # the half that the partner keeps
        yield sends((i, partner), (start, start), pieces=span, adds=True)
        span //= 2


def _doubling(n: int) -> Iterator[Round]:
    i, span = np.arange(n), 1
    while span < n:
        partner, start = i ^ span, (i // span) * span
        yield sends((i, partner), (start, start), pieces=span)
        span *= 2


def ring(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return a ring: each rank sends to the next one; an all-to-all in rounds of one distance each."""
    n = shape.ranks
    if kind == "all_to_all":
        i = np.arange(n)
        rounds = [sends((i, (i + t) % n), ((i + t) % n, n + i)) for t in range(1, n)]
        return CollectiveSchedule(tuple(rounds), n)
    if kind == "broadcast":
        return CollectiveSchedule(tuple(_chain(n)), CHAIN_PIECES)
    return _parts(kind, n, _ring_scatter, _ring_gather)


def _chain(n: int) -> Iterator[Round]:
    """Yield a broadcast from rank to rank, a part after another."""
    for t in range(n - 1 + CHAIN_PIECES - 1):
        i = np.arange(max(0, t - CHAIN_PIECES + 1), min(n - 1, t + 1))
        yield sends((i, i + 1), (t - i, t - i))


def _parts(
    kind: str, n: int, scatter: Callable[[int], Iterator[Round]], gather: Callable[[int], Iterator[Round]]
) -> CollectiveSchedule | None:
    """Return a reduce-scatter, an all-gather or both, one after the other."""
    rounds = {
        "reduce_scatter": lambda: (*scatter(n),),
        "all_gather": lambda: (*gather(n),),
        "all_reduce": lambda: (*scatter(n), *gather(n)),
    }
    return CollectiveSchedule(rounds[kind](), n) if kind in rounds else None


def halving_doubling(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return recursive halving and doubling, for powers of two ranks."""
    n = shape.ranks
    return None if n & (n - 1) else _parts(kind, n, _halving, _doubling)


def direct(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return the form in which every rank sends to every other at once; an all-reduce in two rounds."""
    n = shape.ranks
    if kind == "send":
        return CollectiveSchedule((sends((0, 1), (0, 0)),), 1)
    if kind == "broadcast":
        return CollectiveSchedule((sends((0, np.arange(1, n)), (0, 0)),), 1)
    if kind == "all_to_all":
        source, target = _pairs(n)
        return CollectiveSchedule((sends((source, target), (target, n + source)),), n)
    return _parts(kind, n, _direct_scatter, _direct_gather)


def one_shot(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return the all-reduce in which every rank reads the whole message of every other one, and adds them."""
    if kind != "all_reduce":
        return None
    return CollectiveSchedule((sends(_pairs(shape.ranks), (0, 0), adds=True),), 1)


def tree(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return a binomial tree: sums go up to rank 0, the result goes down; a broadcast only down."""
    down = tuple(_tree_down(shape.ranks))
    if kind == "broadcast":
        return CollectiveSchedule(down, 1)
    if kind != "all_reduce":
        return None
    up = tuple(sends((r.target, r.source), (0, 0), adds=True) for r in reversed(down))
    return CollectiveSchedule((*up, *down), 1)


def _tree_down(n: int) -> Iterator[Round]:
    span = 1 << max(0, (n - 1).bit_length() - 1)
    while span:
        i = np.arange(0, n - span, 2 * span)
        if len(i):
            yield sends((i, i + span), (0, 0))
        span //= 2


def in_switch(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return the form in which a switch adds what all ranks send, and sends one thing to all of them.

    Each rank has its own piece added up and hands the sum back to be spread, so that an all-reduce takes
    1 + 1/n times the message over each link, each way, all at once.
    """
    n = shape.ranks
    if not shape.switch or kind not in ("all_reduce", "all_gather", "reduce_scatter", "broadcast"):
        return None
    i = np.arange(n)
    add = (sends((i, SWITCH), (0, 0), pieces=n, adds=True), sends((SWITCH, i), (i, i)))
    spread = (sends((i, SWITCH), (i, i)), sends((SWITCH, i), (0, 0), pieces=n))
    rounds = {"all_reduce": (*add, *spread), "reduce_scatter": add, "all_gather": spread}
    if kind == "broadcast":
        once = (sends((0, SWITCH), (0, 0)), sends((SWITCH, np.arange(1, n)), (0, 0)))
        return CollectiveSchedule(once, 1, overlapped=True)
    return CollectiveSchedule(rounds[kind], n, overlapped=True)


def hierarchical(kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    """Return the form by groups: at once within each, then in rings of the ranks that stand at one place.

    Groups are those of one switch or server, all of one size; each link between them carries what one rank
    of a group owns.
    """
    if not shape.regular or kind not in ("all_reduce", "all_gather", "reduce_scatter"):
        return None
    groups = np.asarray(shape.groups)  # [group, place] -> rank
    rounds: list[Round] = []
    if kind != "all_gather":
        rounds += _within(groups, adds=True)
        rounds += _across(groups, adds=True)
    if kind != "reduce_scatter":
        rounds += _across(groups, adds=False)
        rounds += _within(groups, adds=False)
    return CollectiveSchedule(tuple(rounds), shape.ranks, overlapped=shape.pipelines)


def _within(groups: Array, *, adds: bool) -> list[Round]:
    """Return one round: in each group every rank sends each other one what that one owns, or what it owns."""
    many, size = groups.shape
    a, b = _pairs(size)
    source, target = (np.repeat(groups[:, x], many, axis=1).ravel() for x in (a, b))
    owner = b if adds else a
    piece = np.tile(groups[:, owner].T, (many, 1, 1)).ravel()  # of every group, at the owner's place
    return [sends((source, target), (piece, piece), adds=adds)]


def _across(groups: Array, *, adds: bool) -> list[Round]:
    """Return the rounds of rings over the groups, one ring for each place in a group."""
    many, _ = groups.shape
    g = np.arange(many)
    rounds = []
    for t in range(many - 1):
        piece = groups[(g - t - (1 if adds else 0)) % many]
        rounds.append(
            sends((groups.ravel(), groups[(g + 1) % many].ravel()), (piece.ravel(), piece.ravel()), adds=adds)
        )
    return rounds


ALGORITHMS: dict[str, Callable[[str, Arrangement], CollectiveSchedule | None]] = {
    "ring": ring,
    "tree": tree,
    "halving_doubling": halving_doubling,
    "direct": direct,
    "one_shot": one_shot,
    "hierarchical": hierarchical,
    "in_switch": in_switch,
}


def names(algorithms: Sequence[str] = ()) -> str:
    """Return the names of algorithms in words."""
    return ", ".join(algorithms or ALGORITHMS)
