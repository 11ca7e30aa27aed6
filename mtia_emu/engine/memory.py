"""Memories as bytes and, under CHECK, a mark on every byte that something has written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..program.isa import Operand
from ..types import DType

Array = np.ndarray[Any, Any]
POISON = 0xA5


@dataclass(frozen=True)
class MarkedMemory:
    """One memory. `marks`, as long as `raw`, is nonzero where bytes were written; None without CHECK."""

    raw: Array
    marks: Array | None

    @classmethod
    def blank(cls, size: int, *, check: bool) -> MarkedMemory:
        """Return a memory of zeros, or of poison where it is checked."""
        if not check:
            return cls(np.zeros(size, np.uint8), None)
        return cls(np.full(size, POISON, np.uint8), np.zeros(size, np.uint8))

    def forget(self) -> None:
        """Drop all marks: what was written no longer counts."""
        if self.marks is not None:
            self.marks[:] = 0

    def flat(self, kind: DType, start: int, size: int) -> MemoryView:
        """Return `size` bytes from `start` as elements of a type."""
        part = slice(start, start + size)
        marks = None if self.marks is None else self.marks[part].view(_unsigned(kind))
        return MemoryView(self.raw[part].view(kind.numpy), marks)

    def operand(self, operand: Operand, start: int) -> MemoryView:
        """Return an operand at a byte address; raise `UserError` where it leaves the memory."""
        end = start + operand.extent_bytes
        if start < 0 or end > len(self.raw):
            raise UserError(f"operand {operand} at {start} ends at {end}, beyond {len(self.raw)} bytes")
        whole = self.flat(operand.dtype, start, operand.extent_bytes)
        marks = None if whole.marks is None else _strided(whole.marks, operand)
        return MemoryView(_strided(whole.values, operand), marks)


@dataclass(frozen=True)
class MemoryView:
    """Elements of a memory, and in the same places their marks: all bits set where an element is written."""

    values: Array
    marks: Array | None


def _unsigned(kind: DType) -> np.dtype[Any]:
    return np.dtype(f"u{kind.bytes}")


def _strided(flat: Array, operand: Operand) -> Array:
    if 0 in operand.shape:
        return np.zeros(operand.shape, flat.dtype)
    strides = tuple(s * operand.dtype.bytes for s in operand.strides)
    return np.ndarray(operand.shape, flat.dtype, flat, strides=strides)


def tile_of(view: Array, row: int, rows: int, col: int, cols: int, across: int = 1) -> Array:
    """Return a tile [rows, cols] of an array seen as a matrix, whose last `across` dimensions are columns.

    It is a copy where it is not one strided piece.
    """
    if across > 1:
        down = np.unravel_index(np.arange(row, row + rows), view.shape[:-across])
        right = np.unravel_index(np.arange(col, col + cols), view.shape[-across:])
        picked: Array = view[(*(i[:, None] for i in down), *(j[None, :] for j in right))]
        return picked
    lead = view.shape[:-1]
    if not lead:
        return view[None, col : col + cols]
    inner = lead[-1]
    if row % inner + rows <= inner:
        at = np.unravel_index(row // inner, lead[:-1]) if len(lead) > 1 else ()
        piece: Array = view[at][row % inner : row % inner + rows, col : col + cols]
        return piece
    return rows_of(view, np.arange(row, row + rows))[:, col : col + cols]


def rows_of(view: Array, at: Array) -> Array:
    """Return rows [n, cols] of an array seen as a matrix, by number at[n]: a copy."""
    picked: Array = view[np.unravel_index(at, view.shape[:-1])]
    return picked


def put_rows(view: Array, at: Array, data: Array) -> None:
    """Write rows [n, cols] of an array seen as a matrix, by number at[n]."""
    view[np.unravel_index(at, view.shape[:-1])] = data


def put_tile(view: Array, row: int, col: int, data: Array) -> None:
    """Write a tile [rows, cols] of an array seen as a matrix."""
    rows, cols = data.shape
    lead = view.shape[:-1]
    if not lead:
        view[col : col + cols] = data[0]
    elif row % lead[-1] + rows <= lead[-1]:
        tile_of(view, row, rows, col, cols)[...] = data
    else:
        index: tuple[Any, ...] = np.unravel_index(np.arange(row, row + rows), lead)
        view[(*index, slice(col, col + cols))] = data
