"""What steps would take on a chip, asked before they are placed: for rules that can lower a node in two ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.kernel import KernelCall

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Operand

from ..user_kernels import kernel_of
from .choice import ESTIMATED, Tuning
from .steps import Schedule, Step
from .views import View

TEMP_SHARE = 2  # a temporary of up to one part in so many of SRAM is taken to lie there
Prices = Callable[[Schedule, Sequence[Step]], float]


@dataclass(frozen=True)
class StepPrices:
    """The cycles of steps one after another, launches included, by the timing of their blocks.

    Where a buffer will lie is guessed: inputs, constants and outputs in DRAM, temporaries that fit in SRAM.
    """

    tuning: Tuning = ESTIMATED

    @property
    def known(self) -> bool:
        """Return whether there is a rule of time."""
        return self.tuning.search.time is not None

    def cycles(self, schedule: Schedule, steps: Sequence[Step]) -> float:
        """Return what steps take; infinite where one has no room."""
        try:
            return sum(self._step(schedule, step) for step in steps)
        except NoRoom:
            return math.inf

    def _step(self, schedule: Schedule, step: Step) -> float:
        chip = schedule.chip
        call = KernelCall(
            tuple(_operand(schedule, v, chip, written=False) for v in step.inputs),
            tuple(_operand(schedule, v, chip, written=True) for v in step.outputs),
            step.params,
        )
        time = self.tuning.search.time
        assert time is not None
        return time(self.tuning.block(kernel_of(step), call, chip), chip) + chip.launch_cycles(1)


def _operand(schedule: Schedule, view: View, chip: Chip, *, written: bool) -> Operand:
    buffer = schedule.buffers[view.buffer]
    near = buffer.role == "temp" and buffer.name not in schedule.graph.outputs
    near = near and buffer.type.bytes * TEMP_SHARE <= chip.sram.bytes
    space = Memory.SRAM if near else Memory.DRAM
    return Operand(view.dtype, view.shape or (1,), view.strides or (1,), space, written)
