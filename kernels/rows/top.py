"""The first elements of rows in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import NAN_LEAST, SMALLEST, Block, Opcode, Operand

from ..builder import Builder, ceil_div
from ..halves import Portion, in_two, part
from ..kernel import Kernel
from ..phases import Phases

RINGS = 2
ISSUE = Phases(load=0, take=1, store=2)


class TopKernel(Kernel):
    """values[r, k], places[r, k] = the k largest (or least) of each row x[r], and where they stand."""

    name = "top"
    summary = "the first elements of rows in order"
    reads_views = writes_views = shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: whole rows come to a PE, what is taken of them goes back."""
        (x,), (values, places) = inputs, outputs
        k, cols = values.cols, x.cols
        build = Builder(chip, self.name, (x, values, places))
        row_bytes = cols * x.dtype.bytes + k * (x.dtype.bytes + places.dtype.bytes)
        rows = max(1, min(ceil_div(x.rows, chip.pes), chip.pe.local.bytes // 2 // RINGS // row_bytes))
        source = build.slot(x.dtype, rows * cols, RINGS)
        value, place = (build.slot(o.dtype, rows * k, RINGS) for o in (values, places))
        t = build.steps(ceil_div(x.rows, rows))
        pe, turn = chip.grid.near(t), t // chip.pes
        ring = turn % RINGS
        tile = {"pe": pe, "row": t * rows, "rows": np.minimum(rows, x.rows - t * rows), "col": 0}
        build.add(Opcode.LOAD, ISSUE.at("load", turn), operand=0, dst=source + ring, cols=cols, **tile)
        flags = (0 if attrs["largest"] else SMALLEST) | (NAN_LEAST if attrs["nan_least"] else 0)
        size, at = {"pe": pe, "rows": tile["rows"], "cols": cols, "k": k}, ISSUE.at("take", turn)
        build.add(Opcode.TOP, at, src0=source + ring, dst=place + ring, flags=flags, **size)
        build.add(Opcode.PICK, at, src0=source + ring, src1=place + ring, dst=value + ring, **size)
        for operand, slot in ((1, value), (2, place)):
            at = ISSUE.at("store", turn)
            build.add(Opcode.STORE, at, operand=operand, src0=slot + ring, cols=k, **tile)
        return build.block()

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the rows."""
        (x,), outputs = call.inputs, call.outputs
        if len(x.shape) < 2 or x.shape[0] < 2:
            return []
        return in_two(
            x.shape[0],
            lambda s, n: call.of([part(x, 0, s, n)], [part(o, 0, s, n) for o in outputs]),
        )

    @staticmethod
    def fits(chip: Chip, cols: int, k: int, element_bytes: int) -> bool:
        """Return whether a PE holds rows of so many columns twice, and what is taken of them."""
        return 2 * RINGS * (cols * element_bytes + k * (element_bytes + 8)) <= chip.pe.local.bytes
