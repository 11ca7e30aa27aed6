"""A cache warmed by a stream of look-ups, run after run, until it serves no more of them.

The state that it settles in is what `engine/steady.py` solves for; here it is run up to, line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..engine.lookups import Lookups, row_cache, through_cache
from ..machine.chip import Chip
from ..machine.units.cache import Cache
from ..program.isa import Program

WINDOW = 4  # runs that are compared with as many before them
CLOSE = 0.005  # of all rows: a change of the hit rate that counts as none
MOST_RUNS = 400


@dataclass(frozen=True)
class Settled:
    """A cache after so many runs, the share of lines that hit in each, and the look-ups of the last."""

    cache: Cache | None
    hit_rates: tuple[float, ...]
    lookups: dict[int, Lookups]

    @property
    def settled(self) -> bool:
        """Return whether the last runs hit as often as those before them."""
        return _settled(self.hit_rates)


def settle(
    program: Program, chip: Chip, stream: Callable[[int], dict[int, Lookups]], most: int = MOST_RUNS
) -> Settled:
    """Return the cache of a program's rows after runs 0, 1, ... of a stream, at most so many.

    It has settled when the mean hit rate of `WINDOW` runs differs from that of the `WINDOW` before them by
    less than `CLOSE`.
    """
    cache, rates, lookups = row_cache(program, chip), list[float](), dict[int, Lookups]()
    for run in range(most if cache is not None else 0):
        assert cache is not None
        before = cache.accesses, cache.misses
        lookups = through_cache(program, chip, stream(run), cache)
        asked, missed = cache.accesses - before[0], cache.misses - before[1]
        rates.append(1.0 - missed / asked if asked else 0.0)
        if _settled(tuple(rates)):
            break
    return Settled(cache, tuple(rates), lookups)


def _settled(rates: tuple[float, ...]) -> bool:
    if len(rates) < 2 * WINDOW:
        return False
    late, early = sum(rates[-WINDOW:]) / WINDOW, sum(rates[-2 * WINDOW : -WINDOW]) / WINDOW
    return abs(late - early) < CLOSE
