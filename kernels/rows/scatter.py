"""Rows changed where indices say, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import SCATTER_NAMES, Block, Opcode, Operand

from ..builder import Builder, ceil_div
from ..kernel import Kernel


class ScatterKernel(Kernel):
    """out[indices[i]] changes by updates[i], one after another: each PE has a share of the sorted updates.

    The inputs are indices [1, n] and updates [n, d]; `out` [r, d] holds rows already.
    """

    name = "scatter"
    summary = "rows changed where indices say"
    shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: one for each PE."""
        (indices, updates), (out,) = inputs, outputs
        build = Builder(chip, self.name, (indices, updates, out))
        flown = max(1, min(chip.pe.dma.outstanding_rows, updates.rows))
        slot = build.slot(out.dtype, flown * out.cols)
        share = ceil_div(indices.cols, chip.pes)
        pe = build.steps(ceil_div(indices.cols, share))
        build.add(
            Opcode.SCATTER,
            0,
            pe=pe,
            fn=SCATTER_NAMES.index(attrs["reduction"]),
            operand=2,
            operand2=0,
            row2=1,
            row=pe * share,
            rows=np.minimum(share, indices.cols - pe * share),
            cols=out.cols,
            dst=slot,
        )
        return build.block()

    @staticmethod
    def fits(chip: Chip, cols: int, element_bytes: int) -> bool:
        """Return whether a PE holds as many rows as may be on their way."""
        return chip.pe.dma.outstanding_rows * (cols * element_bytes + 64) <= chip.pe.local.bytes
