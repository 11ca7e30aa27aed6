"""How a tape that folds rows is scheduled: rows whole, or in parts where local memory holds no row.

In parts, each fold is a step over pieces of rows on all PEs, then a step over what the pieces came to; what
follows the folds is elementwise. A sum is then one of partial sums, kept in the type that the tape folds in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtia_emu.kernels.builder import LINE, NoRoom, ceil_div, round_up
from mtia_emu.kernels.rows.emit_tape import allocate
from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, finish, part_of

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Shape
from mtia_emu.types import FP64, DType, TensorType

from ...graph import Node
from ..steps import Schedule
from ..views import View, packed

LEAST_PIECE = 2  # elements: what pieces of one came to would be as long as the row
RINGS = 2  # slots of each operand in local memory: one is filled while the other is read


def fits(chip: Chip, tape: Tape, cols: int, inputs: Sequence[DType], results: Sequence[DType]) -> bool:
    """Return whether local memory holds a row of `cols` elements of every operand and register."""
    return cols <= most_columns(chip, tape, inputs, results)


def most_columns(chip: Chip, tape: Tape, inputs: Sequence[DType], results: Sequence[DType]) -> int:
    """Return the longest row of which local memory holds every operand and register of a tape; may be < 0."""
    slots, each = _local_bytes(tape, inputs, results)
    return (chip.pe.local.bytes - slots) // each


def _local_bytes(tape: Tape, inputs: Sequence[DType], results: Sequence[DType]) -> tuple[int, int]:
    """Return the bytes that a tape's operands and registers take in local memory: at least, and a column."""
    registers = allocate(finish(tape, results), [Shape.FULL] * len(inputs)).kinds
    kinds = [*inputs, *results]
    slots = RINGS * (RINGS * len(kinds) + len(registers)) * LINE
    return slots, sum(RINGS * kind.bytes for kind in kinds) + sum(kind.bytes for kind, _ in registers)


def foldable(inputs: Sequence[DType], results: Sequence[DType]) -> bool:
    """Return whether the SIMD engine folds rows of these types; it does not of doubles."""
    return FP64 not in (*inputs, *results)


def column(out: View, shape: tuple[int, ...]) -> View:
    """Return a packed result of one value a row as a view over the iteration space."""
    return View(out.buffer, out.dtype, shape, (*packed(shape[:-1]), 0), out.offset)


def fold_rows(
    schedule: Schedule, node: Node, inputs: Sequence[View], outputs: Sequence[View], tape: Tape
) -> None:
    """Schedule a tape that folds the last dimension of views of one shape; see `kernels.rowwise`."""
    kinds = [x.dtype for x in inputs], [x.dtype for x in outputs]
    if fits(schedule.chip, tape, inputs[0].shape[-1], *kinds):
        schedule.step(node, "row", inputs, outputs, tape=str(tape))
    else:
        _in_parts(schedule, node, inputs, outputs, tape)


def _in_parts(
    schedule: Schedule, node: Node, inputs: Sequence[View], outputs: Sequence[View], tape: Tape
) -> None:
    folds = [~i for i, step in enumerate(tape.steps) if step.folds]
    columns = [x.strides[-1] == 0 for x in outputs]
    views: dict[Source, View] = dict(enumerate(inputs))
    for fold in folds:
        parts = _fold_parts(schedule, node, tape, fold, views)
        if len(folds) == 1 and all(columns):  # what follows the fold is done where it ends
            over = [column(x, parts.shape) for x in outputs]
            fold_rows(schedule, node, [parts], over, _continued(tape, fold))
            return
        last = tape.steps[~fold]
        total = schedule.buffer(f"{node.name}.folded", TensorType(last.to, (*parts.shape[:-1], 1)))
        again = Tape(1, (TapeStep(last.function, (0,), last.to),), (~0,))
        fold_rows(schedule, node, [parts], [column(total, parts.shape)], again)
        views[fold] = total
    for narrow in sorted(set(columns)):
        alike = [(r, x) for r, x, c in zip(tape.results, outputs, columns, strict=True) if c == narrow]
        _after_folds(schedule, node, tape, alike, views, narrow)


def _after_folds(
    schedule: Schedule,
    node: Node,
    tape: Tape,
    results: Sequence[tuple[Source, View]],
    views: Mapping[Source, View],
    narrow: bool,
) -> None:
    """Schedule the elementwise rest of a tape: for results of one value a row, over those values alone."""
    part, used = part_of(tape, [result for result, _ in results], views)
    shape = results[0][1].shape
    outputs = [x for _, x in results]
    if narrow:
        shape = (*shape[:-1], 1)
        outputs = [replace(x, shape=shape) for x in outputs]
    schedule.step(node, "map", [views[u].expand(shape) for u in used], outputs, tape=str(part))


def _fold_parts(
    schedule: Schedule, node: Node, tape: Tape, fold: Source, views: Mapping[Source, View]
) -> View:
    """Schedule a fold over pieces of rows; return what they came to, a row's in the last axis."""
    part, used = part_of(tape, [fold], views)
    shape, to = views[0].shape, tape.steps[~int(fold)].to
    operands = [views[u].expand(shape) for u in used]
    *lead, cols = shape
    most = most_columns(schedule.chip, part, [x.dtype for x in operands], [to])
    if most < LEAST_PIECE:
        slots, each = _local_bytes(part, [x.dtype for x in operands], [to])
        raise NoRoom(
            f"{node.op} %{node.output}: local memory of {schedule.chip.pe.local.bytes} bytes holds no piece "
            f"of a row of {cols} (right: pe.local.bytes of at least {slots + LEAST_PIECE * each})"
        )
    length = _length(math.prod(lead), cols, most, schedule.chip.pes)
    whole, rest = divmod(cols, length)
    count = whole + (rest > 0)
    out = schedule.buffer(f"{node.name}.parts", TensorType(to, (*lead, count)))
    for first, pieces, size in ((0, whole, length), (whole, 1, rest)):
        if size and pieces:
            over = (*lead, pieces, size)
            taken = [_pieces(x, first * length, pieces, size) for x in operands]
            into = View(out.buffer, to, over, (*packed((*lead, count)), 0), out.offset + first)
            schedule.step(node, "row", taken, [into], tape=str(part))
    return out


def _length(rows: int, cols: int, most: int, pes: int) -> int:
    """Return how long pieces are: as local memory allows, and so many that each PE gets one.

    Up to twice as many are taken where these are then equal, so that none is left over for a step of its own.
    """
    pieces = max(ceil_div(cols, most), ceil_div(pes, rows))
    equal = next((n for n in range(pieces, min(2 * pieces, cols // LEAST_PIECE) + 1) if cols % n == 0), 0)
    return cols // equal if equal else min(round_up(ceil_div(cols, pieces), LINE), most)


def _pieces(x: View, start: int, pieces: int, size: int) -> View:
    """Return consecutive pieces of each row, from an element on, as [..., pieces, size]."""
    step = x.strides[-1]
    return replace(
        x,
        shape=(*x.shape[:-1], pieces, size),
        strides=(*x.strides[:-1], size * step, step),
        offset=x.offset + start * step,
    )


def _continued(tape: Tape, fold: int) -> Tape:
    """Return the tape that folds what pieces came to, and goes on to the results."""
    rest, used = part_of(tape, tape.results, (fold,))
    assert used == [fold]

    def behind(source: Source) -> Source:
        return source if isinstance(source, float) else ~0 if source == 0 else source - 1

    last = tape.steps[~fold]
    steps = [replace(s, sources=tuple(map(behind, s.sources))) for s in rest.steps]
    first = TapeStep(last.function, (0,), last.to)
    return Tape(1, (first, *steps), tuple(map(behind, rest.results)))
