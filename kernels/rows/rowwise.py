"""Elementwise, row-wise and copy work: a tape over an iteration space, tiled over rows and columns.

Operands come as views of one iteration space (broadcast dimensions have stride 0). The space is simplified
first: dimensions that lie one behind another in every operand merge, and a dimension along which some input
is contiguous moves next to the last, so that a transposed input is read in runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand, Shape

from ..builder import LINE, Builder, NoRoom, ceil_div, round_up
from ..estimates import RINGS
from ..phases import Phases
from .emit_tape import PeTiles, TapeSite, allocate, elements, emit_steps, reserve
from .tape import Tape, finish
from .tiling import TiledWork

Array = np.ndarray[Any, Any]

# Each PE has a tile a round.
ISSUE = Phases(
    loads=0,  # a round before they are read, beside the work on the tile before
    store=2,  # behind the loads of that round, which SIMD waits for: what it writes is done about then
    compute=1,
    copied=1,  # a copy is stored as soon as its load is there
    shared=-1,  # what all tiles read comes once, before the first round
)


def emit_rowwise(
    chip: Chip, kernel: str, tape: Tape, inputs: Sequence[Operand], outputs: Sequence[Operand]
) -> Block:
    """Return the block that runs a tape: input i is the tape's x_i, output j its j-th result.

    All operands have the iteration space's shape. A tape that folds rows folds the last dimension, whole rows
    at a time, and outputs of folded results have stride 0 there. Raises `NoRoom` where a row does not fit.
    """
    views = simplify([*inputs, *outputs], keep_last=tape.row_wise)
    return _Emitter(chip, kernel, tape, views[: len(inputs)], views[len(inputs) :]).block()


def tape_cycles(chip: Chip, tape: Tape, inputs: Sequence[Operand], outputs: Sequence[Operand]) -> float:
    """Return about the cycles of the block of a tape, as `emit_rowwise` makes it; errors as there."""
    views = simplify([*inputs, *outputs], keep_last=tape.row_wise)
    return _Emitter(chip, "row", tape, views[: len(inputs)], views[len(inputs) :]).tile.cycles


def simplify(operands: Sequence[Operand], *, keep_last: bool) -> list[Operand]:
    """Return the operands over the same iteration space with fewer dimensions, at least [1, 1]."""
    dims = [(n, tuple(x.strides[d] for x in operands)) for d, n in enumerate(operands[0].shape)]
    last = [dims.pop()] if keep_last and dims else []
    dims = _runs_next_to_last([d for d in dims if d[0] != 1], operands, bool(last))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, strides in dims:
        if merged and all(o == i * size for o, i in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    space = merged + last
    none = (0,) * len(operands)
    while len(space) < 2:
        space.insert(0, (1, none))
    return [
        replace(x, shape=tuple(n for n, _ in space), strides=tuple(s[i] for _, s in space))
        for i, x in enumerate(operands)
    ]


def _runs_next_to_last(
    dims: list[tuple[int, tuple[int, ...]]], operands: Sequence[Operand], folded: bool
) -> list[tuple[int, tuple[int, ...]]]:
    """Move the dimension along which a transposed operand is contiguous to where a tile spans it."""
    if len(dims) < 2 or folded:
        return dims
    inner = dims[-1][1]
    for i, stride in enumerate(inner):
        if stride > 1:
            for j, (_, strides) in enumerate(dims[:-2]):
                if strides[i] == 1:
                    return dims[:j] + dims[j + 1 : -1] + [dims[j], dims[-1]]
    return dims


def meets(operand: Operand) -> Shape:
    """Return how an operand meets tiles: broadcast over rows, columns, both or neither."""
    rows = any(s and n > 1 for n, s in zip(operand.shape[:-1], operand.strides[:-1], strict=True))
    cols = operand.strides[-1] != 0 and operand.shape[-1] > 1
    whole = (rows or operand.rows == 1) and (cols or operand.cols == 1)
    if whole and (rows or cols or operand.rows == operand.cols == 1):
        return Shape.FULL
    return {(False, True): Shape.ROW, (True, False): Shape.COL}.get((rows, cols), Shape.ONE)


def folded_whole(tape: Tape, inputs: Sequence[Shape]) -> list[Shape]:
    """Return how inputs meet tiles; what a fold sees is read over whole rows: a sum counts repeats."""
    shapes, seen = list(inputs), set[int]()
    met = tape.shapes(inputs)
    pending = [s.sources[0] for s in tape.steps if s.folds]
    while pending:
        source = pending.pop()
        if not isinstance(source, int) or source in seen:
            continue
        seen.add(source)
        if source >= 0:
            shapes[source] = {Shape.COL: Shape.FULL, Shape.ONE: Shape.ROW}.get(shapes[source], shapes[source])
        elif met[~source] in (Shape.COL, Shape.ONE) and not tape.steps[~source].folds:
            pending += tape.steps[~source].sources
    return shapes


@dataclass(frozen=True)
class _Tiling:
    rows: int
    cols: int
    cycles: float


class _Emitter:
    def __init__(
        self, chip: Chip, kernel: str, tape: Tape, inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> None:
        self.chip, self.inputs, self.outputs = chip, inputs, outputs
        self.rows, self.cols = outputs[0].rows, (inputs or outputs)[0].shape[-1]
        plain = [
            not isinstance(r, float) and r >= 0 and inputs[int(r)].dtype == o.dtype
            for r, o in zip(tape.results, outputs, strict=True)
        ]
        self.copies = all(plain) and not tape.steps
        self.tape = tape if self.copies else finish(tape, [o.dtype for o in outputs])
        # a copy stores what it loads, so it loads it whole; a tape's last steps spread what is smaller than a
        # tile
        self.shapes = (
            [Shape.FULL] * len(inputs) if self.copies else folded_whole(self.tape, [meets(x) for x in inputs])
        )
        self.out_shapes = [Shape.FULL if self.copies else meets(x) for x in outputs]
        self.ends = (
            {}
            if self.copies
            else {~int(r): s for r, s in zip(self.tape.results, self.out_shapes, strict=True)}
        )
        self.registers = allocate(self.tape, self.shapes, self.ends)
        self.tile = self._tiling()
        text = f"tile={self.tile.rows}x{self.tile.cols}"
        self.build = Builder(chip, kernel, (*inputs, *outputs), text)

    def _held(self) -> list[tuple[int, Shape]]:
        """Return (bytes an element, shape) of all that a tile keeps in local memory, rings counted whole."""
        held = [(RINGS * x.dtype.bytes, s) for x, s in zip(self.inputs, self.shapes, strict=True)]
        held += [(kind.bytes, shape) for kind, shape in self.registers.kinds]
        if not self.copies:
            held += [(RINGS * x.dtype.bytes, s) for x, s in zip(self.outputs, self.out_shapes, strict=True)]
        return held

    def _tiling(self) -> _Tiling:
        """Choose the size of tiles, of those for several numbers of them, that is thought fastest."""
        sizes = dict.fromkeys(self._size(tiles, most) for tiles in self._counts() for most in self._widths())
        rows, cols = np.array(list(sizes)).T.astype(float)
        work = TiledWork(
            self.chip,
            self.tape,
            self.rows,
            self.cols,
            list(zip(self.inputs, self.shapes, strict=True)),
            list(zip(self.outputs, self.out_shapes, strict=True)),
            [] if self.copies else self.tape.shapes(self.shapes, self.ends),
        )
        cycles = work.cycles(rows, cols)
        best = int(np.argmin(cycles))
        return _Tiling(int(rows[best]), int(cols[best]), float(cycles[best]))

    def _counts(self) -> list[int]:
        """Return numbers of tiles to try: one a PE first, several, and those of smaller grids.

        Few tiles have long runs in memory and short ways, many of them overlap what units do.
        """
        pes = self.chip.pes
        powers = (1 << i for i in range((4 * pes).bit_length()))
        return list(dict.fromkeys((pes, 2 * pes, 3 * pes, 4 * pes, *powers)))

    def _widths(self) -> list[int]:
        """Return the most columns of a tile to try: runs of what is turned are as long as tiles are high."""
        views = (*self.inputs, *self.outputs)
        turned = any(x.space.off_chip and x.strides[-2] == 1 < x.strides[-1] for x in views)
        return [
            self.cols,
            *((4 * LINE, 2 * LINE, LINE, LINE // 2) if turned and not self.tape.row_wise else ()),
        ]

    def _size(self, tiles: int, most: int) -> tuple[int, int]:
        """Return rows and columns of about so many tiles, as large as local memory holds at most."""
        held = self._held()
        room = self.chip.pe.local.bytes - len(held) * RINGS * LINE
        each = {shape: sum(size for size, s in held if s is shape) for shape in Shape}
        cols = self.cols
        if not self.tape.row_wise:
            cols = self._columns(min(room // max(each[Shape.FULL] + each[Shape.ROW], 1) // 4, most), tiles)
        a_row = cols * each[Shape.FULL] + each[Shape.COL]
        rows = (room - cols * each[Shape.ROW]) // max(a_row, 1)
        if rows < 1:
            raise NoRoom(
                f"a row of {cols} elements needs {a_row + cols * each[Shape.ROW]} bytes of local memory for "
                f"`{self.tape}`, a PE has {self.chip.pe.local.bytes}"
            )
        share = ceil_div(self.rows, max(1, tiles // ceil_div(self.cols, cols)))
        rows = min(rows, share)
        return ceil_div(share, ceil_div(share, rows)), cols

    def _columns(self, most: int, tiles: int) -> int:
        """Return the columns of a tile: all, fewer where they are too many or rows are fewer than tiles."""
        share = ceil_div(self.cols, max(1, ceil_div(tiles, self.rows)))
        cols = max(1, min(self.cols, most, round_up(share, LINE)))
        return ceil_div(self.cols, ceil_div(self.cols, cols))

    def block(self) -> Block:
        tile, chip = self.tile, self.chip
        across = ceil_div(self.cols, tile.cols)
        t = self.build.steps(ceil_div(self.rows, tile.rows) * across)
        self.pe, self.j = chip.grid.near(t), t // chip.pes
        self.row, self.col = t // across * tile.rows, t % across * tile.cols
        self.n_rows = np.minimum(tile.rows, self.rows - self.row)
        self.n_cols = np.minimum(tile.cols, self.cols - self.col)
        slots = [self._load(i, x, across) for i, x in enumerate(self.inputs)]
        registers = reserve(self.build, self.registers, tile.rows, tile.cols)
        into = (
            {}
            if self.copies
            else {
                ~int(r): self._ring(x, s)
                for r, x, s in zip(self.tape.results, self.outputs, self.out_shapes, strict=True)
            }
        )
        site = TapeSite(slots, self.shapes, self.registers, registers, into, self.ends)
        tiles = PeTiles(self.pe, self.n_rows, self.n_cols)
        emit_steps(self.build, self.tape, site, ISSUE.at("compute", self.j), tiles)
        for index, (result, shape) in enumerate(zip(self.tape.results, self.out_shapes, strict=True)):
            self.build.add(
                Opcode.STORE,
                ISSUE.at("copied" if self.copies else "store", self.j),
                pe=self.pe,
                operand=len(self.inputs) + index,
                src0=site.slot(result),
                **self._place(shape),
            )
        return self.build.block()

    def _ring(self, operand: Operand, shape: Shape) -> Array:
        return self.build.slot(operand.dtype, self._elements(shape), RINGS) + self.j % RINGS

    def _elements(self, shape: Shape) -> int:
        return elements(shape, self.tile.rows, self.tile.cols)

    def _place(self, shape: Shape) -> dict[str, Any]:
        """Return the tile of an operand that meets the tiles in this way."""
        whole = {"row": self.row, "rows": self.n_rows, "col": self.col, "cols": self.n_cols}
        if shape in (Shape.ROW, Shape.ONE):
            whole |= {"row": 0, "rows": 1}
        if shape in (Shape.COL, Shape.ONE):
            whole |= {"col": 0, "cols": 1}
        return whole

    def _load(self, index: int, operand: Operand, across: int) -> Array | int:
        """Emit an input's loads and return its slots; what all tiles share is loaded once, for all PEs."""
        shape = self.shapes[index]
        if shape is Shape.ONE or (shape is Shape.ROW and across == 1):
            slot = self.build.slot(operand.dtype, self._elements(shape))
            self.build.add(
                Opcode.LOAD,
                ISSUE.at("shared", 0),
                **self.build.for_all(),
                operand=index,
                dst=slot,
                row=0,
                rows=1,
                col=0,
                cols=1 if shape is Shape.ONE else self.cols,
            )
            return slot
        slots = self.build.slot(operand.dtype, self._elements(shape), RINGS) + self.j % RINGS
        self.build.add(
            Opcode.LOAD,
            ISSUE.at("loads", self.j),
            pe=self.pe,
            operand=index,
            dst=slots,
            **self._place(shape),
        )
        return slots
