"""How mappings of kernels are chosen, and what remembers choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.kernel import Kernel, KernelCall
from mtia_emu.kernels.search import FAST, MappingSearch

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block
from mtia_emu.reuse.memo import Memoise, unmemoised


@dataclass(frozen=True)
class Tuning:
    """A way to choose mappings, and what may give the results of work that was done before."""

    search: MappingSearch = FAST
    memoise: Memoise = unmemoised

    def block(self, kernel: Kernel, call: KernelCall, chip: Chip) -> Block:
        """Return the commands of a kernel call under the mapping that is chosen for it."""
        if not kernel.mapped:
            return kernel.emit_mapping(chip, call, None)
        mapping = self._mapping(kernel, call, chip)
        # apart: a mapping asks about all of the chip, the commands that it stands for about little
        key = (kernel.name, call, mapping)
        return self.memoise("commands", key, chip, lambda c: kernel.emit_mapping(c, call, mapping))

    def _mapping(self, kernel: Kernel, call: KernelCall, chip: Chip) -> Any:
        search, problem = self.search, kernel.problem(call)

        def rank(c: Chip, count: int) -> Sequence[Any]:
            return kernel.candidates(problem, c, count, self.memoise)

        if search.time is None:
            return self.memoise("plan", (kernel.name, problem), chip, lambda c: rank(c, 1)[0])

        def place_on(c: Chip) -> int:
            return search.choose(
                rank(c, search.count), lambda mapping: kernel.emit_mapping(c, call, mapping), c
            )

        # what is kept on disk was chosen by rules of this tree: kernels from elsewhere change by themselves
        kind = "choice" if KERNELS.get(kernel.name) is kernel else "choice of a user's kernel"
        key = (kernel.name, call, search.candidates, search.most_commands)
        place = self.memoise(kind, key, chip, place_on)
        ranked = rank(chip, search.count)
        return ranked[min(place, len(ranked) - 1)]  # a place that was kept by others may be any


ESTIMATED = Tuning()
