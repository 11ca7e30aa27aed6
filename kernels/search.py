"""How a kernel's mapping is chosen: the best by estimate, or the best of the first few by their time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block

from .builder import NoRoom

T = TypeVar("T")
Timer = Callable[[Block, Chip], float]
CANDIDATES = 64
MOST_COMMANDS = 1 << 21
FEW = 12  # the first few of a ranking are of different kinds, and what a quick search times
FEW_COMMANDS = 1 << 14  # so much of them takes some 10 ms


@dataclass(frozen=True)
class MappingSearch:
    """A choice among mappings that are ranked by estimate.

    Without `time` the first is taken. With it, a rule that gives a block's cycles on a chip, the fastest of
    the first `candidates` is; no more are timed than `most_commands` commands hold together. What bounds the
    search is counted, not measured: the same mappings are compared on every machine. A `thorough` one may
    take seconds.

    `beside`, such a rule too, decides which independent layers share a launch; without it each has its own.
    """

    time: Timer | None = None
    candidates: int = CANDIDATES
    most_commands: int = MOST_COMMANDS
    beside: Timer | None = None
    thorough: bool = False

    @property
    def count(self) -> int:
        """Return how many mappings to rank."""
        return self.candidates if self.time else 1

    def choose(self, ranked: Sequence[T], emit: Callable[[T], Block], chip: Chip) -> int:
        """Return the place of the mapping to take; those whose block has no room are passed over.

        Raises `NoRoom` where none has.
        """
        if self.time is None or len(ranked) == 1:
            return 0
        best: tuple[float, int] | None = None
        spent, refused = 0, NoRoom("no mapping to choose from")
        for place, mapping in enumerate(ranked):
            try:
                block = emit(mapping)
            except NoRoom as error:
                refused = error
                continue
            spent += block.size
            if spent > self.most_commands:
                return best[1] if best else place
            cycles = self.time(block, chip)
            if best is None or cycles < best[0]:
                best = (cycles, place)
        if best is None:
            raise refused
        return best[1]


BY_ESTIMATE = MappingSearch()
