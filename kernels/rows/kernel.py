"""Kernels of rows: tapes over tiles, copies, and what a core does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Operand

from ..halves import Portion, in_two, part
from ..kernel import Kernel
from .rowwise import emit_rowwise
from .scalar import emit_scalar
from .tape import Tape, parse


class TapeKernel(Kernel):
    """A tape over tiles of views of one shape, whose last axis it may fold: see `emit_rowwise`."""

    reads_views = writes_views = shares_launch = True

    def __init__(self, name: str, summary: str, *, folds: bool = False) -> None:
        self._name, self._folds = name, folds
        self.overwrites = None if folds or self.copies else 0
        self.summary = summary

    @property
    def name(self) -> str:
        """Return what it is called: elementwise work, rows and copies are told apart in reports."""
        return self._name

    def tape(self, attrs: Mapping[str, Any]) -> Tape:
        """Return what is done to a tile."""
        return parse(attrs["tape"])

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: see `emit_rowwise`."""
        return emit_rowwise(chip, self.name, self.tape(attrs), inputs, outputs)

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the longest dimension; of what folds rows not the last."""
        shape = call.outputs[0].shape
        open_dims = range(len(shape) - self._folds)
        dim = max(open_dims, key=lambda i: shape[i], default=0)
        if not open_dims or shape[dim] < 2:
            return []

        def cut(start: int, count: int) -> Portion | None:
            sides = (call.inputs, call.outputs)
            return call.of(*([part(x, dim, start, count) for x in side] for side in sides))

        return in_two(shape[dim], cut)


class CopyKernel(TapeKernel):
    """Elements moved as they are."""

    copies = True

    def tape(self, attrs: Mapping[str, Any]) -> Tape:
        """Return the tape that does nothing."""
        return Tape(1, (), (0,))


class ScalarKernel(Kernel):
    """Any op by its reference: see `emit_scalar`. It has the core, and so the launch, to itself."""

    name = "scalar"
    summary = "an op by its reference on one core"

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the one command."""
        return emit_scalar(chip, attrs["op"], dict(attrs["attrs"]), inputs, outputs)
