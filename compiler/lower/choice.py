"""How mappings of kernels are chosen, and what remembers choices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mtia_emu.kernels.search import FAST, MappingSearch

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block
from mtia_emu.reuse.memo import Memoise, unmemoised

T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """A way to choose mappings, and what may give the results of work that was done before."""

    search: MappingSearch = FAST
    memoise: Memoise = unmemoised

    def choose(
        self,
        key: Hashable,
        chip: Chip,
        rank: Callable[[Chip, int], Sequence[T]],
        make: Callable[[Chip, T], Block],
    ) -> T:
        """Return one of the mappings that `rank` gives for a chip; `make` gives the block of each.

        `key` holds all that the blocks depend on besides the chip.
        """
        search = self.search
        if search.time is None:
            return self.memoise("plan", key, chip, lambda c: rank(c, 1)[0])
        whole = (key, search.candidates, search.most_commands)
        place = self.memoise(
            "choice", whole, chip, lambda c: search.choose(rank(c, search.count), partial(make, c), c)
        )
        ranked = rank(chip, search.count)
        return ranked[min(place, len(ranked) - 1)]  # a place that was kept by others may be any


ESTIMATED = Tuning()
