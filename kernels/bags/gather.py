"""Rows by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand

from ..builder import Builder, ceil_div
from ..halves import Portion, in_two, part
from ..kernel import Kernel
from ..phases import Phases

T = TypeVar("T")
RINGS = 2
ISSUE = Phases(gather=0, store=1)  # a tile is stored while the next one is gathered


class GatherKernel(Kernel):
    """out[o, i] = x[o, indices[i]]: see `emit_gather`."""

    name = "gather"
    summary = "rows by index"
    writes_views = shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: see `emit_gather`."""
        return emit_gather(chip, inputs[0], inputs[1], outputs[0])

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return the indices."""
        return inputs[1:]

    def halves(self, call: Portion) -> list[Portion]:
        """Cut what lies before the axis, else the indices."""
        (table, indices), (out,) = call.inputs, call.outputs
        outer, count = table.shape[0], indices.shape[1]
        if outer > 1:
            return in_two(
                outer,
                lambda s, n: call.of([part(table, 0, s, n), indices], [part(out, 0, s * count, n * count)]),
            )
        if count < 2:
            return []
        return in_two(count, lambda s, n: call.of([table, part(indices, 1, s, n)], [part(out, 0, s, n)]))


def emit_gather(chip: Chip, x: Operand, indices: Operand, out: Operand) -> Block:
    """Return the block of a gather: out[o, i] = x[o, indices[i]], rows of contiguous elements.

    x is [outer, axis, inner], indices [1, count], out [outer * count, inner]. Negative indices count from the
    end.
    """
    outer, axis, inner = x.shape
    count = indices.cols
    build = Builder(chip, "gather", (x, indices, out))
    room = chip.pe.local.bytes // 2 // RINGS // x.dtype.bytes
    cols = min(inner, room)
    share = ceil_div(outer * count, max(1, chip.pes // ceil_div(inner, cols)))
    rows = min(max(1, room // cols), share, count)
    slot = build.slot(x.dtype, rows * cols, RINGS)
    per_outer, across = ceil_div(count, rows), ceil_div(inner, cols)
    t = build.steps(outer * per_outer * across)
    block, first = t // (per_outer * across), t // across % per_outer * rows
    col, pe, j = t % across * cols, t % chip.pes, t // chip.pes
    tile = {"rows": np.minimum(rows, count - first), "col": col, "cols": np.minimum(cols, inner - col)}
    ring = slot + j % RINGS
    build.add(
        Opcode.GATHER,
        ISSUE.at("gather", j),
        pe=pe,
        operand=0,
        operand2=1,
        row=block * axis,
        row2=first,
        k=axis,
        dst=ring,
        **tile,
    )
    at = ISSUE.at("store", j)
    build.add(Opcode.STORE, at, pe=pe, operand=2, src0=ring, row=block * count + first, **tile)
    return build.block()
