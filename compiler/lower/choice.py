"""How mappings of kernels are chosen, and what remembers choices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import at_most
from mtia_emu.kernels.kernel import Kernel, KernelCall
from mtia_emu.kernels.search import BY_ESTIMATE, MOST_COMMANDS, MappingSearch

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block
from mtia_emu.reuse.memo import Memoise, unmemoised

from .fixed import NONE_FIXED, FixedMappings


@dataclass(frozen=True)
class Tuning:
    """A way to choose mappings, what may give the results of work that was done before, and what is fixed."""

    search: MappingSearch = BY_ESTIMATE
    memoise: Memoise = unmemoised
    fixed: FixedMappings = NONE_FIXED

    def block(self, kernel: Kernel, call: KernelCall, chip: Chip) -> Block:
        """Return the commands of a kernel call under the mapping that is chosen for it."""
        if not kernel.mapped:
            return kernel.emit_mapping(chip, call, None)
        choice = _Choice(self, kernel, call)
        search = self.search
        key: Hashable = (kernel.name, kernel.problem(call))
        if search.time is not None:
            key = (kernel.name, call, search.candidates, search.most_commands)
        return choice.block(self.memoise("plan", key, chip, choice.mapping), chip)


@dataclass
class _Choice:
    """The choice of one kernel call's mapping, with the blocks that were made to choose."""

    tuning: Tuning
    kernel: Kernel
    call: KernelCall
    ranked: Sequence[Any] = ()
    made: dict[Any, Block] = field(default_factory=dict)

    def mapping(self, chip: Chip) -> Any:
        """Return the mapping to take on a chip."""
        search, kernel, call = self.tuning.search, self.kernel, self.call
        if search.time is None:
            return self._rank(chip)[0]
        # what is kept on disk was chosen by rules of this tree: kernels from elsewhere change by themselves
        kind = "choice" if KERNELS.get(kernel.name) is kernel else "choice of a user's kernel"
        key = (kernel.name, call, search.candidates, search.most_commands)
        place, text = self.tuning.memoise(kind, key, chip, self._chosen)
        if not self.ranked and (known := self._known(text, chip)) is not None:
            return known
        ranked = self.ranked or self._rank(chip)
        return ranked[min(place, len(ranked) - 1)]  # a place that was kept by others may be any

    def _chosen(self, chip: Chip) -> tuple[int, str]:
        """Return the place of the mapping among those ranked, and its text; "" where that is not enough."""
        self.ranked = self._rank(chip)
        place = self.tuning.search.choose(self.ranked, lambda mapping: self._made(mapping, chip), chip)
        text = self.kernel.spelled(self.ranked[place])
        return place, text if self._fixed(text, chip) == self.ranked[place] else ""

    def _known(self, text: str, chip: Chip) -> Any:
        """Return the mapping that a kept text spells, which saves ranking all.

        None where the call has no such, or it takes more commands than a search compares in all.
        """
        mapping = self._fixed(text, chip)
        if mapping is None:
            return None
        try:
            with at_most(MOST_COMMANDS):
                self._made(mapping, chip)
        except UserError:
            return None
        return mapping

    def _fixed(self, text: str, chip: Chip) -> Any:
        """Return the mapping that a text spells; None where the call has no such."""
        try:
            return self.kernel.fixed(text, self.call, chip) if text else None
        except UserError:
            return None

    def _rank(self, chip: Chip) -> Sequence[Any]:
        return self.kernel.candidates(
            self.kernel.problem(self.call), chip, self.tuning.search.count, self.tuning.memoise
        )

    def _made(self, mapping: Any, chip: Chip) -> Block:
        self.made[mapping] = self.block(mapping, chip)
        return self.made[mapping]

    def block(self, mapping: Any, chip: Chip) -> Block:
        """Return the commands of a mapping, which ask about less of the chip than its choice did."""
        key = (self.kernel.name, self.call, mapping)

        def emit(c: Chip) -> Block:
            known = self.made.get(mapping) if c is chip else None  # nobody notes what it asks for
            return known or self.kernel.emit_mapping(c, self.call, mapping)

        return self.tuning.memoise("commands", key, chip, emit)


ESTIMATED = Tuning()
