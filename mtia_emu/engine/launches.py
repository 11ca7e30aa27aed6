"""The events and the cost of each launch of a program; what equal launches share is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..machine.chip import Chip
from ..program.deferred import Deferred
from ..program.events import Events
from ..program.isa import Program
from ..reuse.plan_cache import rules_digest
from ..reuse.records import records
from .cost import BlockCost, cost
from .events import events
from .lookups import Lookups, cache_bytes, through_cache
from .steady import Misses, steady
from .timing import Timeline, check_fits

Key = tuple[int, int, Misses | None]  # a block, the launch whose look-ups it has or -1, what a cache misses
Times = Mapping[Key, Timeline]


class Counts:
    """The events of each launch of a program, memoised by block where it has no look-ups of its own.

    They are counted when asked for, and kept where `keep` says so. No rate or price of the chip changes them.
    """

    def __init__(
        self,
        program: Program,
        chip: Chip,
        lookups: Mapping[int, Lookups] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self._program, self._chip = program, part(program, chip)
        self._lookups = through_cache(program, self._chip, lookups or {})
        self._cache_bytes = cache_bytes(program, self._chip)
        self._misses = steady(program, self._chip, self._lookups)
        self._kept: dict[Key, Events] | None = {} if keep else None

    def key(self, index: int) -> Key:
        """Return what launches with equal events have in common."""
        number = index if index in self._lookups else -1
        return self._program.launches[index].block, number, self._misses.get(index)

    def of(self, index: int) -> Events:
        """Return the events of a launch."""
        key = self.key(index)
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        counts = self.on(index, self._chip)
        if self._kept is not None:
            self._kept[key] = counts
        return counts

    def on(self, index: int, chip: Chip) -> Events:
        """Return the events of a launch on a chip on which the caches serve the same."""
        block, _, misses = self.key(index)
        return events(self._program.blocks[block], chip, self._lookups.get(index), self._cache_bytes, misses)


def part(program: Program, chip: Chip) -> Chip:
    """Return the corner of the chip that the program was compiled for."""
    return chip.part(**program.chip.get("grid", chip.grid.model_dump()))


def costs(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    counts: Counts | None = None,
    times: Times | None = None,
) -> list[BlockCost]:
    """Return the cost of each launch; equal blocks are timed once.

    `lookups` are what is known of the data; in their place `counts`, of a chip that differs in rates and
    prices only. `times`, by the key of `counts`, are of a chip that differs in prices only.

    Raises `UserError` where a block does not fit the chip.
    """
    known = counts or Counts(program, chip, lookups)

    def costed(key: Key, index: int) -> BlockCost:
        return _cost(program, chip, known, index, times[key] if times else None)

    return _by_key(program, known, costed)


def untimed_costs(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None
) -> list[BlockCost]:
    """Return the costs without the times of each command: a report asks for none, and they are large.

    Those of a deferred block whose look-ups are the mean are kept on disk: its commands are not read then.
    """
    known, here = Counts(program, chip, lookups), part(program, chip)

    def costed(key: Key, index: int) -> BlockCost:
        return kept_cost(program, key, here, lambda: _cost(program, chip, known, index).untimed())

    return _by_key(program, known, costed)


def kept_cost(program: Program, key: Key, here: Chip, work: Callable[[], BlockCost]) -> BlockCost:
    """Return work(), the cost of a block on the corner of a chip, or what was kept on disk of an equal."""
    number, own, misses = key
    block, kept = program.blocks[number], records()
    if kept is None or own >= 0 or not isinstance(block, Deferred):
        return work()
    check_fits(block, here)
    whose = f"cost {rules_digest()} {here!r} {cache_bytes(program, here)} {misses!r} {block.known.digest}"
    return kept.kept(whose, BlockCost, work)


def _by_key(program: Program, counts: Counts, costed: Callable[[Key, int], BlockCost]) -> list[BlockCost]:
    """Return the cost of each launch, that of each key worked out at its first launch."""
    keys = [counts.key(index) for index in range(len(program.launches))]
    seen: dict[Key, BlockCost] = {}
    for index, key in enumerate(keys):
        if key not in seen:
            seen[key] = costed(key, index)
    return [seen[key] for key in keys]


def _cost(
    program: Program, chip: Chip, counts: Counts, index: int, time: Timeline | None = None
) -> BlockCost:
    block, here = program.blocks[program.launches[index].block], part(program, chip)
    check_fits(block, here)
    return cost(block, here, counts.of(index), time)
