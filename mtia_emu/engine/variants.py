"""One block on many chips that differ in a parameter or two: what their costs have in common is done once.

A parameter that a piece of work did not read changes nothing of it. Where it did read one that changes, it is
done anew and the result compared: if no command takes another time, neither does the block, and its commands
need not go through the recurrence. A loop over blocks, with one over chips inside it, keeps in memory what
one block takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.events import Events
from ..program.isa import Block
from ..reuse.memo import noted, values_of
from .cost import BlockCost, cost, cost_of
from .timing import SOURCES, BlockWork, Timeline, arranged, columns, occupied, on_dram, work
from .totals import Totals

Array = np.ndarray[Any, Any]
EVENTS, DRAM, ORDER, GRID = "events", "dram", "order", "grid"  # pieces of work beside `SOURCES`


class Variants:
    """A block that fits a chip, counted and timed on it; `cost` gives what it costs there and on like chips.

    `count` gives its events on a chip. Costs are those of `cost.cost`, without the times of each command.
    """

    def __init__(self, block: Block, chip: Chip, count: Callable[[Chip], Events]) -> None:
        self._block, self._chip, self._count = block, chip, count
        self._read: defaultdict[str, set[str]] = defaultdict(set)
        self._totals = Totals(count(self._noting(EVENTS)))
        ev = self._totals.events
        self._work = work(block, chip, ev, self._noting)
        self._dram = on_dram(self._noting(DRAM), ev)
        self._time = arranged(block, self._noting(ORDER), self._work, self._dram)
        self._paths = {name: tuple(sorted(paths)) for name, paths in self._read.items()}
        self._values = {name: values_of(chip, paths) for name, paths in self._paths.items()}

    def cost(self, chip: Chip) -> BlockCost:
        """Return what the block costs on a chip, where it fits too."""
        if self._differ(chip, (EVENTS, GRID)):
            return cost(self._block, chip, self._count(chip)).untimed()
        return cost_of(self._block, chip, self._totals, self._timed(chip)).untimed()

    def _noting(self, source: str) -> Chip:
        return noted(self._chip, self._read[source])

    def _differ(self, chip: Chip, sources: Collection[str]) -> list[str]:
        """Return the sources that read something of which a chip has another value than the first."""
        return [x for x in sources if x in self._paths and self._of(chip, x) != self._values[x]]

    def _of(self, chip: Chip, source: str) -> tuple[Hashable, ...]:
        return values_of(chip, self._paths[source])

    def _timed(self, chip: Chip) -> Timeline:
        """Return when each command runs on a chip: as on the first, where none takes another time."""
        on_channels = self._dram
        if self._differ(chip, (DRAM,)):
            on_channels = on_dram(chip, self._totals.events)
        with self._changed(chip, self._differ(chip, SOURCES)) as commands_change:
            same = not commands_change and np.array_equal(on_channels, self._dram)
            if same and not self._differ(chip, (ORDER,)):
                return self._time
            known, commands = self._work, self._work.commands
            if commands_change:
                known = BlockWork(commands, occupied(self._block, chip, commands))
            return arranged(self._block, chip, known, on_channels)

    @contextmanager
    def _changed(self, chip: Chip, sources: Collection[str]) -> Iterator[bool]:
        """Let commands take what some sources say on a chip, for a while; give whether any changed."""
        before = []
        commands = self._work.commands
        for piece, at, field, values in (
            columns(self._block, chip, self._totals.events, commands, sources) if sources else ()
        ):
            here = commands[field][piece]
            old = here[at].copy()
            if not (old == values).all():
                before.append((here, at, old))
                here[at] = values
        try:
            yield bool(before)
        finally:
            for here, at, old in before:
                here[at] = old
