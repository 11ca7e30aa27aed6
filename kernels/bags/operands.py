"""What embedding bags are called with, and how many of a table's bags a command takes."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.program.isa import Operand

from ..builder import ceil_div


@dataclass(frozen=True)
class BagOperands:
    """The operands of one table's bags: out[b] = pool of table[indices[offsets[b] : offsets[b + 1]]].

    table is [rows, dim] ([rows, dim + 8] bytes where quantised: dim uint8 values, an fp32 scale and an fp32
    offset), indices and weights [1, look-ups], offsets [1, bags + 1], out [bags, dim].
    """

    table: Operand
    indices: Operand
    offsets: Operand
    out: Operand
    weights: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Return the operands in the order in which a block has them."""
        four = (self.table, self.indices, self.offsets, self.out)
        return (*four, self.weights) if self.weights else four

    @property
    def looked_up(self) -> float:
        """Return the mean number of rows of a bag."""
        return self.indices.cols / max(self.out.rows, 1)


def bags_each(bags: int, most: int, pes: int) -> int:
    """Return the bags of a command: every PE's share, in as many commands of about equal size as must be."""
    share = ceil_div(bags, pes)
    return ceil_div(share, ceil_div(share, most))
