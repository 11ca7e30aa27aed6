"""Every layer of a program held to the reference of its op: which is wrong first, and which command of it.

Each layer is judged by itself: before it runs, memory holds what the layers before it should have computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.compiler.lower.expected import ExpectedMemory
from mtia_emu.compiler.lower.steps import Step
from mtia_emu.compiler.lower.views import View as Where
from mtia_emu.compiler.pipeline import Compiled
from mtia_emu.compiler.reference import core_library

from .. import settings
from ..engine.function import Executor, convert
from ..engine.memory import MemoryView
from ..engine.traced import NOBODY, Held, TracedRun
from ..errors import UserError
from ..machine.chip import Chip
from ..program.isa import Block, Launch, Part, Program
from ..program.text import dump_command
from ..results.check import Distance, LayerCheck, WrongCommand
from ..types import NARROW_FLOATS
from .likeness import unlike

Array = np.ndarray[Any, Any]
ALLOWED = {  # of a layer's largest magnitude, by the formats of its operands: some steps of the narrowest
    "fp16": 4e-3,
    "bf16": 3e-2,
    "int8": 2e-2,
    **{kind.name: 1.04 * float(ml_dtypes.finfo(kind.numpy).eps) for kind in NARROW_FLOATS},
}
ALLOWED_WIDE = 1e-4
SHOWN = 40  # commands of a chain that are told


def by_layer(
    compiled: Compiled,
    chip: Chip,
    inputs: Mapping[str, Array],
    progress: Callable[[int], None] | None = None,
    *,
    program: Program | None = None,
) -> tuple[LayerCheck, ...]:
    """Return how far each layer is from its op's reference; the first wrong one with its first wrong command.

    `inputs` are arrays in the model's own types. `program` is run in place of the compiled one: another with
    the same launches. Raises `UserError` for what cannot be executed, or takes too much memory to be held.
    """
    judge = _Judge(compiled, program or compiled.program, chip, inputs)
    checks: list[LayerCheck] = []
    culprit = NOBODY
    for index in range(len(judge.program.launches)):
        for layer in judge.launch(index):
            if culprit == NOBODY and not layer.passed:
                culprit = len(checks)
            checks.append(layer)
        if progress is not None:
            progress(index + 1)
    if culprit != NOBODY:
        again = _Judge(compiled, judge.program, chip, inputs)
        checks[culprit] = again.narrowed(checks[culprit], [x.launch for x in checks[:culprit]])
    return tuple(checks)


@dataclass(frozen=True)
class _Layer:
    """One layer of a launch: its step, by number, and the block's operands that are the step's, by number."""

    name: Launch | Part
    kernel: str
    number: int
    step: Step
    reads: dict[int, Where]
    writes: dict[int, Where]


class _Judge:
    """An executor of a program, and what its memory should hold."""

    def __init__(self, compiled: Compiled, program: Program, chip: Chip, inputs: Mapping[str, Array]) -> None:
        self.program, self.steps = program, compiled.steps
        self.schedule = compiled.schedule
        if len(self.steps) != len(program.launches):
            raise UserError(
                f"{program.model}: {len(program.launches)} launches; the model compiles to {len(self.steps)}"
            )
        _refuse_large(compiled)
        self.executor = Executor(program, chip, core_library())
        self.executor.load(inputs)
        given = {b.name: convert(np.asarray(inputs[b.name]), b.type.dtype.numpy) for b in program.inputs}
        self.right = ExpectedMemory(self.schedule, given)

    def launch(self, index: int) -> Iterator[LayerCheck]:
        """Run a launch and yield how far each of its layers is off; then put right what it has written."""
        launch = self.program.launches[index]
        run = self.executor.launch(launch)
        for layer in self._layers(index):
            yield self._check(index, layer, run.views)
            for operand, where in layer.writes.items():
                mask = self.right.written(layer.number, where)
                np.copyto(run.views[operand].values, self.right.of(where), where=mask)

    def _layers(self, index: int) -> Iterator[_Layer]:
        """Yield the layers of a launch: operands of a block are those of its layers, one after another."""
        launch = self.program.launches[index]
        block = self.program.blocks[launch.block]
        names: Sequence[Launch | Part] = launch.parts or (launch,)
        operands = [i for i, x in enumerate(block.operands) if not x.space.of_block]
        at = 0
        for name, kernel, number in zip(names, block.kernels, self.steps[index], strict=True):
            step = self.schedule.steps[number]
            mine = operands[at : at + len(step.inputs) + len(step.outputs)]
            at += len(mine)
            reads, writes = (
                _lying(block, [i for i in mine if block.operands[i].written is written], views)
                for written, views in ((False, step.inputs), (True, step.outputs))
            )
            yield _Layer(name, kernel, number, step, reads, writes)

    def _check(self, index: int, layer: _Layer, views: Sequence[MemoryView]) -> LayerCheck:
        allowed, worst, compared = _allowed(layer.step), Distance(0.0, 0.0), 0
        for operand, where in layer.writes.items():
            mask = self.right.written(layer.number, where)
            far = _distance(views[operand].values, self.right.of(where), mask)
            compared += int(np.count_nonzero(mask))
            worst = max(worst, far, key=lambda x: x.max_rel_error)
        errors = (worst.max_abs_error, worst.max_rel_error)
        return LayerCheck(layer.name.name, layer.name.op, layer.kernel, index, *errors, allowed, compared)

    def narrowed(self, wrong: LayerCheck, before: Sequence[int]) -> LayerCheck:
        """Return a wrong layer with its first wrong command; `before` are the launches of those before it."""
        place = sum(x == wrong.launch for x in before)
        for index in range(wrong.launch):
            for _ in self.launch(index):
                pass
        layer = list(self._layers(wrong.launch))[place]
        return replace(wrong, command=self._first_wrong(wrong.launch, layer))

    def _first_wrong(self, index: int, layer: _Layer) -> WrongCommand:
        launch = self.program.launches[index]
        hold = {
            operand: Held(self.right.of(where), self.right.there(layer.number, where))
            for operand, where in layer.reads.items()
        }
        run = self.executor.trace(launch, hold)
        block = run.block
        off = self._wrong_elements(layer, run)
        by = np.concatenate([run.writers[operand][mask] for operand, mask in off.items()])
        late = int(by[by != NOBODY].min(initial=len(block.commands)))
        first = min([late, *run.wrong])
        if first == len(block.commands):
            return WrongCommand(-1, "", f"no command writes {len(by)} elements of the result")
        why = run.wrong.get(first) or _why(int(np.count_nonzero(by == first)))
        return _wrong_command(block, run, first, why, _good(off, run))

    def _wrong_elements(self, layer: _Layer, run: TracedRun) -> dict[int, Array]:
        """Return which elements of each result are wrong, by operand."""
        elements = {}
        for operand, where in layer.writes.items():
            right, mask = self.right.of(where), self.right.written(layer.number, where)
            limit = _allowed(layer.step) * (_scale(right, mask) or 1.0)
            elements[operand] = mask & (_gaps(run.views[operand].values, right) > limit)
        return elements


def _why(elements: int) -> str:
    return f"writes {elements} wrong elements of the result, which no later command writes again"


def _good(off: Mapping[int, Array], run: TracedRun) -> list[int]:
    """Return the commands that wrote results, nothing of them wrong."""
    good: set[int] = set()
    bad: set[int] = set()
    for operand, mask in off.items():
        good.update(np.unique(run.writers[operand]).tolist())
        bad.update(np.unique(run.writers[operand][mask]).tolist())
    return sorted(good - bad - {NOBODY})


def _wrong_command(block: Block, run: TracedRun, first: int, why: str, good: Sequence[int]) -> WrongCommand:
    def told(index: int) -> str:
        return f"{index} {dump_command(block.commands[index], block)}"

    chain = run.chain(first)
    odd = unlike(block.commands, chain, run.feeds, [run.chain(i) for i in good[:64]])
    text = dump_command(block.commands[first], block)
    return WrongCommand(
        first, text, why, tuple(map(told, chain[-SHOWN:])), told(odd) if odd is not None else ""
    )


def _lying(block: Block, operands: Sequence[int], views: Sequence[Where]) -> dict[int, Where]:
    """Return where operands of a block lie in the schedule's buffers, by number.

    A kernel may turn a view's axes: the operand begins where the view does, and goes its own way from there.
    """
    return {
        i: replace(view, shape=block.operands[i].shape, strides=block.operands[i].strides)
        for i, view in zip(operands, views, strict=True)
    }


def _allowed(step: Step) -> float:
    """Return how far a layer may be off, of its largest magnitude: not at all where all is whole numbers."""
    kinds = {view.dtype for view in (*step.inputs, *step.outputs)}
    if not any(kind.is_float for kind in kinds):
        return 0.0
    return max(ALLOWED.get(kind.name, ALLOWED_WIDE) for kind in kinds)


def _distance(got: Array, right: Array, mask: Array) -> Distance:
    """Return the largest error where a mask of their shape says, and it over the largest magnitude there."""
    gaps = _gaps(got, right)[mask]
    worst, scale = float(gaps.max(initial=0.0)), _scale(right, mask)
    return Distance(worst, worst / scale if scale else worst)


def _gaps(got: Array, right: Array) -> Array:
    """Return how far elements are apart, in the same shape; NaN equals NaN and is infinitely far from all."""
    a, b = got.astype(np.float64), right.astype(np.float64)
    with np.errstate(all="ignore"):
        gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    gaps[np.isnan(gaps)] = np.inf
    return gaps


def _scale(right: Array, mask: Array) -> float:
    values = right[mask].astype(np.float64)
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _refuse_large(compiled: Compiled) -> None:
    need = sum(b.type.bytes + 5 * b.type.size for b in compiled.schedule.buffers.values())
    most = settings.integer(settings.MEMORY)
    if need > most:
        raise UserError(
            f"--by-layer keeps every value of {compiled.program.model}: {need} bytes, at most {most} are "
            f"allowed; choose smaller dimensions, or set {settings.MEMORY.name} higher"
        )
