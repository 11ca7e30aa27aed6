"""Rows changed where indices say, in place; indices grouped by the row that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import SCATTER_NAMES, Block, Opcode, Operand

from ..builder import Builder, ceil_div
from ..kernel import Kernel

FEW = 8  # rows on their way that keep memory busy: they are long where no more fit
BESIDE_BYTES = 64  # of local memory, for each row on its way: its index and what it changes


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
        flown = max(1, min(_flown(chip, out.cols, out.dtype.bytes), updates.rows))
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
        """Return whether a PE holds as many rows as may be on their way, or `FEW` long ones."""
        return _flown(chip, cols, element_bytes) >= min(chip.pe.dma.outstanding_rows, FEW)


def _flown(chip: Chip, cols: int, element_bytes: int) -> int:
    """Return how many rows a PE can have on their way, of those that its DMA has."""
    return min(chip.pe.dma.outstanding_rows, chip.pe.local.bytes // (cols * element_bytes + BESIDE_BYTES))


class GroupKernel(Kernel):
    """out[i] is the place of the first index that names the row of indices[i]: PEs share the sorted indices.

    The input is indices [1, n] into `rows` rows; `out` is [n, 1].
    """

    name = "group"
    summary = "for each index the first that is equal"
    shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands: one for each PE."""
        (indices,), (out,) = inputs, outputs
        build = Builder(chip, self.name, (indices, out))
        share = ceil_div(indices.cols, chip.pes)
        pe = build.steps(ceil_div(indices.cols, share))
        rows = np.minimum(share, indices.cols - pe * share)
        build.add(
            Opcode.GROUP,
            0,
            pe=pe,
            operand=1,
            operand2=0,
            row=pe * share,
            rows=rows,
            cols=1,
            k=attrs["rows"],
        )
        return build.block()
