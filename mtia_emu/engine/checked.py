"""A block in execution under CHECK: what no command has written may not be read."""

from __future__ import annotations

from typing import Any

import numpy as np

from .interpreter import BlockRun
from .memory import put_rows, put_tile, rows_of, tile_of

Array = np.ndarray[Any, Any]


class CheckedRun(BlockRun):
    """A block run whose every read is held to the marks; a write to a slot replaces all that it held."""

    def take(self, pe: int, index: int, rows: int, cols: int) -> Array:
        _refuse_unwritten(self._marks(pe, index)[: rows * cols], f"s{index} of pe {pe}")
        return super().take(pe, index, rows, cols)

    def give(self, pe: int, index: int, rows: int, cols: int) -> Array:
        marks = self._marks(pe, index)
        marks[:] = 0
        marks[: rows * cols] = _written(marks)
        return super().give(pe, index, rows, cols)

    def tile(self, operand: int, row: int, rows: int, col: int, cols: int) -> Array:
        across = self.block.operands[operand].across
        read = tile_of(self._operand_marks(operand), row, rows, col, cols, across)
        _refuse_unwritten(read, f"%{operand}")
        return super().tile(operand, row, rows, col, cols)

    def rows(self, operand: int, at: Array) -> Array:
        _refuse_unwritten(rows_of(self._operand_marks(operand), at), f"%{operand}")
        return super().rows(operand, at)

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        marks = self._operand_marks(operand)
        put_tile(marks, row, col, np.full(data.shape, _written(marks), marks.dtype))
        super().put(operand, row, col, data)

    def put_rows(self, operand: int, at: Array, data: Array) -> None:
        marks = self._operand_marks(operand)
        put_rows(marks, at, np.full(data.shape, _written(marks), marks.dtype))
        super().put_rows(operand, at, data)

    def _marks(self, pe: int, index: int) -> Array:
        marks = self.slot(pe, index).marks
        assert marks is not None
        return marks

    def _operand_marks(self, operand: int) -> Array:
        marks = self.views[operand].marks
        assert marks is not None
        return marks


def _written(marks: Array) -> int:
    return int(np.iinfo(marks.dtype).max)


def _refuse_unwritten(marks: Array, what: str) -> None:
    missing = int(np.count_nonzero(marks != _written(marks)))
    if missing:
        raise ValueError(f"reads {marks.size} elements of {what}, {missing} of which no command has written")
