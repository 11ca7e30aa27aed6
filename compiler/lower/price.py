"""What steps would take, asked before they are placed: for rules that can lower a node in several ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtia_emu.kernels.builder import NoRoom, TooLarge
from mtia_emu.kernels.kernel import KernelCall

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Operand

from ..user_kernels import kernel_named
from .choice import ESTIMATED, Tuning
from .steps import Schedule, Step
from .views import View

TEMP_SHARE = 2  # a temporary of up to one part in so many of SRAM is taken to lie there
WORTH = 0.99  # a later way must save this much: where buffers lie is guessed
Way = tuple[tuple[str, KernelCall], ...]


@dataclass(frozen=True)
class StepPrices:
    """Which of several ways to lower a node is fastest, by the timing of their blocks, launches included.

    Where a buffer will lie is guessed: inputs, constants and outputs in DRAM, temporaries that fit in SRAM.
    """

    tuning: Tuning = ESTIMATED

    @property
    def known(self) -> bool:
        """Return whether there is a rule of time."""
        return self.tuning.search.time is not None

    def fastest(self, schedule: Schedule, ways: Sequence[Sequence[Step]]) -> int:
        """Return the place of the fastest of some lists of steps; of those about as fast, the first."""
        asked = tuple(tuple(_call(schedule, step) for step in steps) for steps in ways)
        search = self.tuning.search
        key = ("ways", asked, search.candidates, search.most_commands)
        if key not in schedule.memo:
            schedule.memo[key] = self.tuning.memoise(
                "choice", key, schedule.chip, lambda chip: (self._fastest(asked, chip), "")
            )
        place, _ = schedule.memo[key]
        return int(place)

    def _fastest(self, ways: Sequence[Way], chip: Chip) -> int:
        best, best_cycles = 0, self._cycles(ways[0], chip)
        for place, way in enumerate(ways[1:], 1):
            cycles = self._cycles(way, chip, best_cycles * WORTH)
            if cycles < best_cycles * WORTH:
                best, best_cycles = place, cycles
        return best

    def _cycles(self, way: Way, chip: Chip, most: float = math.inf) -> float:
        """Return what the calls of a way take one after another.

        Infinite where one has no room, or where they take `most` or more: calls after that are not made.
        """
        time = self.tuning.search.time
        assert time is not None
        cycles = 0.0
        try:
            for name, call in way:
                block = self.tuning.block(kernel_named(name, call), call, chip)
                cycles += time(block, chip) + chip.launch_cycles(1)
                if cycles >= most:
                    return math.inf
        except (NoRoom, TooLarge):
            return math.inf
        return cycles


def _call(schedule: Schedule, step: Step) -> tuple[str, KernelCall]:
    """Return what a step will likely call its kernel with."""
    inputs = tuple(_operand(schedule, v, schedule.chip, written=False) for v in step.inputs)
    outputs = tuple(_operand(schedule, v, schedule.chip, written=True) for v in step.outputs)
    return step.kernel, KernelCall(inputs, outputs, step.params)


def _operand(schedule: Schedule, view: View, chip: Chip, *, written: bool) -> Operand:
    buffer = schedule.buffers[view.buffer]
    near = buffer.role == "temp" and buffer.name not in schedule.graph.outputs
    near = near and buffer.type.bytes * TEMP_SHARE <= chip.sram.bytes
    space = Memory.SRAM if near else Memory.DRAM
    return Operand(view.dtype, view.shape or (1,), view.strides or (1,), space, written)
