"""Emission of a tape over tiles that stand in slots: the registers it needs, and its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.isa import FUNCTION_NAMES, IMMEDIATE, REDUCTION_NAMES, Op, Shape
from mtia_emu.types import DType

from .builder import Builder
from .tape import Source, Step, Tape

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Registers:
    """Which register each step writes, `register[i]` for step i, and what each register holds."""

    register: tuple[int, ...]
    kinds: tuple[tuple[DType, Shape], ...]


def elements(shape: Shape, rows: int, cols: int) -> int:
    """Return the elements of a value that meets a tile of [rows, cols] in that way."""
    return (rows if shape in (Shape.FULL, Shape.COL) else 1) * (cols if shape in (Shape.FULL, Shape.ROW) else 1)


def allocate(tape: Tape, inputs: Sequence[Shape]) -> Registers:
    """Assign steps to registers, reusing one after the last step that reads it.

    The tape is finished (`tape.finish`): its results are steps, which write slots of their own and get no register.
    """
    shapes, last = tape.shapes(inputs), _last_use(tape)
    kinds: list[tuple[DType, Shape]] = []
    free: list[int] = []
    register: list[int] = []
    for index, step in enumerate(tape.steps):
        want = (step.to, shapes[index])
        spare = [r for r in free if kinds[r] == want]
        if ~index in tape.results:
            register.append(-1)
        elif spare:
            free.remove(spare[0])
            register.append(spare[0])
        else:
            kinds.append(want)
            register.append(len(kinds) - 1)
        free += [register[i] for i in range(index + 1) if last[i] == index and register[i] >= 0]
    return Registers(tuple(register), tuple(kinds))


def _last_use(tape: Tape) -> list[int]:
    """Return the last step that reads each step's value; unread values die at once."""
    last = list(range(len(tape.steps)))
    for index, step in enumerate(tape.steps):
        for source in step.sources:
            if not isinstance(source, float) and source < 0:
                last[~source] = index
    return last


def reserve(builder: Builder, registers: Registers, rows: int, cols: int) -> list[int]:
    """Reserve a slot for each register, for tiles of [rows, cols]."""
    return [builder.slot(kind, elements(shape, rows, cols)) for kind, shape in registers.kinds]


@dataclass(frozen=True)
class TapeSite:
    """Where a tape's values stand: a slot (an array over tiles) for each input and register, and their shapes."""

    inputs: Sequence[Array | int]
    shapes: Sequence[Shape]
    registers: Registers
    slots: Sequence[int]
    into: Mapping[int, Array | int]  # steps that write a given slot (an array over tiles) instead of a register

    def slot(self, source: Source) -> Array | int:
        """Return the slot of a source that is not a number."""
        assert not isinstance(source, float)
        if source >= 0:
            return self.inputs[source]
        return self.into[~source] if ~source in self.into else self.slots[self.registers.register[~source]]


def emit_steps(
    builder: Builder, tape: Tape, site: TapeSite, order: Array, pe: Array, rows: Array, cols: Array
) -> None:
    """Add the commands of every step for every tile; `order` gains 1/1024 a step."""
    shapes = tape.shapes(site.shapes)
    for index, step in enumerate(tape.steps):
        flags, slots, number = _sources(step, shapes, site)
        fold = REDUCTION_NAMES.index(step.reduction) if step.folds else FUNCTION_NAMES.index(step.function)
        met = _operand_shape(step, shapes, site.shapes) if step.folds else shapes[index]
        builder.add(
            Op.FOLD if step.folds else Op.SIMD, order + index / 1024, pe=pe, fn=fold, flags=flags, dst=site.slot(~index),
            rows=rows if met in (Shape.FULL, Shape.COL) else 1, cols=cols if met in (Shape.FULL, Shape.ROW) else 1,
            imm=number, **slots,
        )


def _operand_shape(step: Step, shapes: Sequence[Shape], inputs: Sequence[Shape]) -> Shape:
    source = step.sources[0]
    assert not isinstance(source, float)
    return shapes[~source] if source < 0 else inputs[source]


def _sources(step: Step, shapes: Sequence[Shape], site: TapeSite) -> tuple[int, dict[str, Any], float]:
    flags, slots, number = 0, {}, 0.0
    for index, source in enumerate(step.sources):
        if isinstance(source, float):
            slots[f"src{index}"], number, met = IMMEDIATE, source, Shape.ONE
        else:
            slots[f"src{index}"] = site.slot(source)
            met = shapes[~source] if source < 0 else site.shapes[source]
        flags |= int(met) << (2 * index)
    return flags, slots, number
