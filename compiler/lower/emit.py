"""Schedule and placement to Program: each distinct kernel call becomes a block, each step a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.kernel import Kernel, KernelCall

from mtia_emu.machine.chip import Chip
from mtia_emu.options import Options
from mtia_emu.program.isa import Binding, Block, Launch, Operand, Program
from mtia_emu.types import TensorType, Work

from ..user_kernels import idle_notes, kernel_of
from .beside import SELDOM, BlockSource, Run, moments
from .beside import launches as runs
from .choice import ESTIMATED, Tuning
from .place import Placement
from .prefetch import Ahead, read_ahead
from .split import split
from .steps import Schedule, Step
from .views import View

DEFAULTS = Options()


@dataclass(frozen=True)
class About:
    """What a program says of its model and its steps do not: `dtype` is the format that reports name.

    `types` are inputs and outputs as the model's user sees them, `works` is what any other machine would have
    to do.
    """

    name: str = ""
    source: str = ""
    dims: Table[str, int] = field(default_factory=dict)
    dtype: str = ""
    types: Table[str, TensorType] = field(default_factory=dict)
    works: tuple[Work, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Emitted:
    """A program, the schedule with steps that fit a block each, and the steps of each launch, by number."""

    program: Program
    schedule: Schedule
    steps: tuple[tuple[int, ...], ...]


def emit(
    plan: Schedule,
    placement: Placement,
    about: About,
    *,
    options: Options = DEFAULTS,
    tuning: Tuning = ESTIMATED,
    progress: Callable[[int, int], None] | None = None,
) -> Emitted:
    """Return the program of a placed schedule; `progress` is called with the steps done and all of them.

    `tuning` chooses the mappings of kernels that have several, and may give blocks that were made before.
    """
    plan, call_of = _calls(plan, placement, tuning)
    made = _launches(plan, progress or (lambda done, total: None), tuning, call_of, placement)
    memoise, on = tuning.memoise, options.prefetch
    ahead = read_ahead(plan, placement, made.blocks, made.launches, made.times, memoise, on=on)
    return Emitted(_program(plan, placement, about, ahead), plan, tuple(made.steps))


def _program(plan: Schedule, placement: Placement, about: About, ahead: Ahead) -> Program:
    """Return the program of the blocks and launches that there are."""
    consts = plan.graph.consts

    def bind(value: str, view: View) -> Binding:
        space, address = placement.space[view.buffer], placement.address[view.buffer]
        strides = () if view.contiguous else view.strides
        return Binding(value, view.type, about.types.get(value, view.type), space, address, strides)

    return Program(
        about.name,
        about.source,
        about.dtype,
        dict(about.dims),
        plan.chip.model_dump(),
        tuple(ahead.blocks),
        tuple(ahead.launches),
        tuple(bind(value, plan.values[value]) for value in plan.graph.inputs),
        tuple(bind(value, view) for value, view in plan.outputs.items()),
        tuple(bind(value, plan.values[value]) for value in consts),
        {value: c for value, c in consts.items() if c.present},
        placement.dram_bytes,
        ahead.sram_bytes,
        about.works,
        about.notes + ahead.notes + idle_notes(plan),
    )


@dataclass
class _Made:
    """Distinct blocks, the launches that run all steps, and of each launch its moment and its steps."""

    blocks: list[Block] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)


def _calls(
    plan: Schedule, placement: Placement, tuning: Tuning
) -> tuple[Schedule, Callable[[Step], BlockSource]]:
    """Return the schedule with steps that fit a block each, and what gives their kernel calls."""
    blocks = _Blocks(plan.chip, tuning)
    call = partial(_call, placement=placement, packed=_packed(plan), blocks=blocks)
    return split(plan, lambda step: call(step).make(plan.chip)), call


def _launches(
    plan: Schedule,
    progress: Callable[[int, int], None],
    tuning: Tuning,
    call_of: Callable[[Step], BlockSource],
    placement: Placement,
) -> _Made:
    """Return the launches of all steps."""
    numbers: dict[Any, int] = {}
    known: dict[Any, tuple[Run, ...]] = {}
    out, done = _Made(), 0
    groups = [(steps, list(map(call_of, steps))) for steps in moments(plan)]
    counts = Counter(tuple(call.key for call in calls) for _, calls in groups if len(calls) > 1)
    for moment, (steps, calls) in enumerate(groups):
        key = tuple(call.key for call in calls)
        if key not in known:
            often = counts[key] * SELDOM >= len(groups)
            known[key] = runs(calls, plan.chip, tuning.search, tuning.memoise, often=often)
        for run in known[key]:
            number = numbers.setdefault(tuple(key[i] for i in run.calls), len(out.blocks))
            if number == len(out.blocks):
                out.blocks.append(run.block)
            alone = [
                _launch(steps[i], block, _places(steps[i], placement))
                for i, block in zip(run.calls, run.parts or (run.block,), strict=True)
            ]
            out.launches.append(run.launch(number, alone))
            out.times.append(moment)
            out.steps.append(tuple(done + i for i in run.calls))
        done += len(steps)
        progress(done, len(plan.steps))
    return out


@dataclass(frozen=True)
class _Operation:
    """A step as a call of its kernel; `key` is all that its block depends on besides the chip."""

    step: Step
    kernel: Kernel
    call: KernelCall

    @property
    def key(self) -> tuple[str, KernelCall]:
        return self.step.kernel, self.call


@dataclass
class _Blocks:
    """Makes the blocks of operations, each once for the whole chip itself."""

    chip: Chip
    tuning: Tuning
    made: dict[Any, Block] = field(default_factory=dict)

    def block(self, one: _Operation, chip: Chip) -> Block:
        """Return the block of an operation on the whole chip, a part, or one that notes what is read."""
        if chip is not self.chip:
            return _block(chip, one, self.tuning)
        if one.key not in self.made:
            self.made[one.key] = _block(chip, one, self.tuning)
        return self.made[one.key]


def _call(step: Step, placement: Placement, packed: set[str], blocks: _Blocks) -> BlockSource:
    """Return the kernel call of a step whose buffers are placed; `packed` as `_packed` has it."""
    inputs, kernel = [_operand(v, placement, written=False) for v in step.inputs], kernel_of(step)
    if (weight := kernel.weight) is not None and step.inputs[weight].buffer in packed:
        inputs[weight] = replace(inputs[weight], tiled=True)
    outputs = [_operand(v, placement, written=True) for v in step.outputs]
    one = _Operation(step, kernel, KernelCall(tuple(inputs), tuple(outputs), step.params))
    return BlockSource(one.key, partial(blocks.block, one))


def _places(step: Step, placement: Placement) -> list[int]:
    """Return the addresses of a step's operands, in the order of its block's."""
    views = kernel_of(step).arranged(step.inputs, step.outputs)
    return [placement.address[v.buffer] + v.offset * v.dtype.bytes for v in views]


def _packed(plan: Schedule) -> set[str]:
    """Return the constants that one product alone reads: they are stored in the order of its tiles."""
    uses = Counter(v.buffer for step in plan.steps for v in (*step.inputs, *step.outputs))
    consts = {b.name for b in plan.buffers.values() if b.role == "const"}
    return {name for name, count in uses.items() if count == 1 and name in consts}


def _operand(view: View, placement: Placement, *, written: bool) -> Operand:
    return Operand(
        view.dtype, view.shape or (1,), view.strides or (1,), placement.space[view.buffer], written
    )


def _launch(step: Step, block: Block, places: list[int]) -> Launch:
    """Return the launch of a step's block, its operands at these addresses."""
    places += [0] * (len(block.operands) - len(places))  # scratch operands start at the block's scratch
    return Launch(0, tuple(places), step.origin or step.name, step.op, step.name)


def _block(chip: Chip, one: _Operation, tuning: Tuning) -> Block:
    step = one.step
    try:
        return tuning.memoise("block", one.key, chip, lambda c: tuning.block(one.kernel, one.call, c))
    except NoRoom as error:
        raise NoRoom(
            f"{step.name} ({step.op}{', ' + step.origin if step.origin else ''}) does not fit {chip.name}: "
            f"{error}"
        ) from None
