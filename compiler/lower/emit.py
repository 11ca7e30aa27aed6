"""Schedule and placement to launches: each distinct kernel call becomes a block, each step a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from mtia_emu.kernels.builder import NoRoom, TooLarge
from mtia_emu.kernels.kernel import Kernel, KernelCall

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Launch, Operand

from ..user_kernels import kernel_of
from .beside import SELDOM, BlockSource, Run, moments
from .beside import launches as runs
from .choice import ESTIMATED, Tuning
from .launches import Launches
from .place import SCRATCH_SHARE, Placement
from .split import split
from .steps import Schedule, Step
from .views import View


def emit(
    schedule: Schedule,
    placement: Placement,
    tuning: Tuning = ESTIMATED,
    progress: Callable[[int, int], None] | None = None,
) -> Launches:
    """Return the launches of a placed schedule; `progress` is called with the steps done and all of them.

    `tuning` chooses the mappings of kernels that have several, and may give blocks that were made before.
    """
    tuning.fixed.refuse_unknown(schedule.steps)
    calls = _Calls(schedule.chip, placement, tuning, _packed(schedule))
    schedule = split(schedule, calls.key, lambda step: calls.source(step).make(schedule.chip))
    return _launches(schedule, calls, progress or (lambda before, total: None))


@dataclass
class _Calls:
    """The kernel calls of placed steps; each block is made once for the whole chip.

    `packed` are the constants that may be stored in the order of tiles.
    """

    chip: Chip
    placement: Placement
    tuning: Tuning
    packed: set[str]
    blocks: dict[Any, Block] = field(default_factory=dict)

    def key(self, step: Step) -> Hashable:
        """Return all that the block of a step depends on besides the chip."""
        return self.source(step).key

    def source(self, step: Step) -> BlockSource:
        """Return the block of a step, to be made for the whole chip or for a part of it."""
        inputs, kernel = [self._operand(v, written=False) for v in step.inputs], kernel_of(step)
        if (weight := kernel.weight) is not None and step.inputs[weight].buffer in self.packed:
            inputs[weight] = replace(inputs[weight], tiled=True)
        outputs = [self._operand(v, written=True) for v in step.outputs]
        far = kernel.stages_both and all(x.space.off_chip for x in inputs[:2])
        call = KernelCall(tuple(inputs), tuple(outputs), step.params, self._vacant if far else 0)
        fixed = self.tuning.fixed.of(step) if kernel.mapped else ""
        key = (step.kernel, call, fixed) if fixed else (step.kernel, call)
        return BlockSource(key, partial(self._block, step, key, fixed))

    @cached_property
    def _vacant(self) -> int:
        """Return the bytes of SRAM that no buffer takes, at least those that are kept for kernels."""
        sram = self.chip.sram.bytes
        return max(sram // SCRATCH_SHARE, sram - self.placement.sram_bytes)

    def _operand(self, view: View, *, written: bool) -> Operand:
        space = self.placement.space[view.buffer]
        return Operand(view.dtype, view.shape or (1,), view.strides or (1,), space, written)

    def _block(self, step: Step, key: Any, fixed: str, chip: Chip) -> Block:
        """Return a step's block on the whole chip, on a part of it, or on one that notes what is read.

        `key` is all that it depends on, `fixed` its mapping as the user spells it, or "".
        """
        kernel, call = kernel_of(step), key[1]
        if chip is self.chip and key in self.blocks:
            return self.blocks[key]
        try:
            make = partial(self._fixed, fixed) if fixed else self.tuning.block
            block = self.tuning.memoise("block", key, chip, lambda c: make(kernel, call, c))
        except UserError as error:
            if not fixed and not isinstance(error, NoRoom):
                raise
            origin = f", {step.origin}" if step.origin else ""
            where = f"{step.name} ({step.op}{origin}) does not fit {chip.name}"
            raise type(error)(f"{where}: {error}") from None
        if chip is self.chip:
            self.blocks[key] = block
        return block

    def _fixed(self, text: str, kernel: Kernel, call: KernelCall, chip: Chip) -> Block:
        """Return the block of a mapping that the user fixes, which is for the whole grid."""
        if (chip.grid.rows, chip.grid.cols) != (self.chip.grid.rows, self.chip.grid.cols):
            raise NoRoom("its mapping is fixed for the whole grid")
        try:
            return kernel.emit_mapping(chip, call, kernel.fixed(text, call, chip))
        except TooLarge:
            raise  # the step is cut in two
        except UserError as error:
            best, *_ = kernel.candidates(kernel.problem(call), chip, 1, self.tuning.memoise)
            raise UserError(f"{error} ({kernel.spelled(best)!r} fits)") from None

    def launch(self, step: Step, block: Block) -> Launch:
        """Return the launch of a step's block, its operands where they are placed."""
        views, address = kernel_of(step).arranged(step.inputs, step.outputs), self.placement.address
        places = [address[v.buffer] + v.offset * v.dtype.bytes for v in views]
        places += [0] * (len(block.operands) - len(places))  # scratch operands start at the block's scratch
        return Launch(0, tuple(places), step.origin or step.name, step.op, step.name)


def _packed(schedule: Schedule) -> set[str]:
    """Return the constants that one product alone reads: they are stored in the order of its tiles."""
    uses = Counter(v.buffer for step in schedule.steps for v in (*step.inputs, *step.outputs))
    consts = {b.name for b in schedule.buffers.values() if b.role == "const"}
    return {name for name, count in uses.items() if count == 1 and name in consts}


def _launches(schedule: Schedule, calls: _Calls, progress: Callable[[int, int], None]) -> Launches:
    """Return the launches of all steps, each moment's side by side where that is faster."""
    tuning, numbers, known = calls.tuning, dict[Any, int](), dict[Any, tuple[Run, ...]]()
    launched, before = Launches(schedule), 0
    groups = [(steps, list(map(calls.source, steps))) for steps in moments(schedule)]
    counts = Counter(tuple(s.key for s in sources) for _, sources in groups if len(sources) > 1)
    for moment, (steps, sources) in enumerate(groups):
        key = tuple(source.key for source in sources)
        if key not in known:
            often = counts[key] * SELDOM >= len(groups)
            known[key] = runs(sources, schedule.chip, tuning.search, tuning.memoise, often=often)
        for run in known[key]:
            number = numbers.setdefault(tuple(key[i] for i in run.calls), len(launched.blocks))
            if number == len(launched.blocks):
                launched.blocks.append(run.block)
            parts = zip(run.calls, run.parts or (run.block,), strict=True)
            alone = [calls.launch(steps[i], block) for i, block in parts]
            launched.launches.append(run.launch(number, alone))
            launched.times.append(moment)
            launched.steps.append(tuple(before + i for i in run.calls))
            launched.calls.append(tuple(key[i] for i in run.calls))
        before += len(steps)
        progress(before, len(schedule.steps))
    return launched
