"""How a matrix of few bits lies in memory: planes of codes, and rows that share a scale."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.errors import UserError
from mtia_emu.types import UINT8, DType

from ..builder import ceil_div


@dataclass(frozen=True)
class Packing:
    """How a matrix of k rows lies: `planes` codes an element of memory, `block` rows to a scale."""

    k: int
    block: int
    planes: int

    @property
    def plane_rows(self) -> int:
        """Return the rows of the matrix that one plane has: whole blocks, but for the only plane."""
        half = ceil_div(self.k, self.planes * self.block) * self.block
        return min(half, self.k)

    @property
    def blocks(self) -> int:
        """Return the blocks along k."""
        return ceil_div(self.k, self.block)

    @property
    def plane_blocks(self) -> int:
        """Return the blocks of one plane, which are its rows of scales."""
        return ceil_div(self.plane_rows, self.block)

    def check_panel(self, mapping: str, rows: int) -> None:
        """Raise `UserError` where panels of a mapping have rows of several scales."""
        if self.plane_blocks > 1 and self.block % rows:
            raise UserError(
                f"mapping {mapping!r}: panels of {rows} rows reach over blocks of {self.block} that share a "
                f"scale (right: a divisor of {self.block})"
            )


@dataclass(frozen=True)
class Weights(Packing):
    """How weights lie, whether they have zero points, and the type of their scales."""

    zeros: bool
    scale: DType

    @property
    def passes(self) -> int:
        """Return the SIMD commands that expand a panel."""
        return 3 if self.zeros else 2


def packing_of(k: int, block: int, codes: DType) -> Packing:
    """Return the packing of k rows, `block` to a scale, in elements of a type: two in one of uint8."""
    return Packing(k, min(block, k), 2 if codes == UINT8 else 1)
