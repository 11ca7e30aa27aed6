"""Emission of a tape over tiles that stand in slots: the registers it needs, and its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtia_emu.program.isa import FUNCTION_NAMES, IMMEDIATE, REDUCTION_NAMES, Opcode, Shape
from mtia_emu.types import DType

from ..builder import Builder
from .tape import Source, Tape, TapeStep

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Registers:
    """Which register each step writes, `register[i]` for step i, and what each register holds."""

    register: tuple[int, ...]
    kinds: tuple[tuple[DType, Shape], ...]


def elements(shape: Shape, rows: int, cols: int) -> int:
    """Return the elements of a value that meets a tile of [rows, cols] in that way."""
    return (rows if shape in (Shape.FULL, Shape.COL) else 1) * (
        cols if shape in (Shape.FULL, Shape.ROW) else 1
    )


def allocate(
    tape: Tape, inputs: Sequence[Shape], shapes_asked: Mapping[int, Shape] | None = None
) -> Registers:
    """Assign steps to registers, reusing one after the last step that reads it; shapes as in `Tape.shapes`.

    The tape is finished (`tape.finish`): its results are steps, which write slots of their own and get no
    register.
    """
    shapes, last = tape.shapes(inputs, shapes_asked), _last_use(tape)
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
    """Where a tape's values stand: for each input and register a slot (an array over tiles) and a shape."""

    inputs: Sequence[Array | int]
    shapes: Sequence[Shape]
    registers: Registers
    slots: Sequence[int]
    into: Mapping[
        int, Array | int
    ]  # steps that write a given slot (an array over tiles) instead of a register
    ends: Mapping[int, Shape] = field(default_factory=dict)  # how those steps' values must meet the tile

    def slot(self, source: Source) -> Array | int:
        """Return the slot of a source that is not a number."""
        assert not isinstance(source, float)
        if source >= 0:
            return self.inputs[source]
        return self.into[~source] if ~source in self.into else self.slots[self.registers.register[~source]]


@dataclass(frozen=True)
class PeTiles:
    """Tiles that PEs work on, as arrays over tiles: whose each is, and its size."""

    pe: Any
    rows: Any
    cols: Any


def emit_steps(builder: Builder, tape: Tape, site: TapeSite, order: Array, tiles: PeTiles) -> None:
    """Add the commands of every step for every tile; `order` gains 1/1024 a step."""
    shapes = tape.shapes(site.shapes, site.ends)
    for index, step in enumerate(tape.steps):
        flags, slots, number = _sources(step, shapes, site)
        names = REDUCTION_NAMES if step.folds else FUNCTION_NAMES
        down = shapes[index] in (Shape.FULL, Shape.COL)
        across = (
            flags & 3 in (Shape.FULL, Shape.ROW) if step.folds else shapes[index] in (Shape.FULL, Shape.ROW)
        )
        builder.add(
            Opcode.FOLD if step.folds else Opcode.SIMD,
            order + index / 1024,
            pe=tiles.pe,
            flags=flags,
            dst=site.slot(~index),
            fn=names.index(step.reduction if step.folds else step.function),
            rows=tiles.rows if down else 1,
            cols=tiles.cols if across else 1,
            imm=number,
            **slots,
        )


def _sources(step: TapeStep, shapes: Sequence[Shape], site: TapeSite) -> tuple[int, dict[str, Any], float]:
    """Return the flags, the slots and the number of a step's sources."""
    flags, number = 0, 0.0
    slots: dict[str, Any] = {}
    for index, source in enumerate(step.sources):
        if isinstance(source, float):
            slots[f"src{index}"], number, met = IMMEDIATE, source, Shape.ONE
        else:
            slots[f"src{index}"] = site.slot(source)
            met = shapes[~source] if source < 0 else site.shapes[source]
        flags |= int(met) << (2 * index)
    return flags, slots, number
