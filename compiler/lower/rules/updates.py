"""How changes of looked-up rows are scheduled: where the tables lie, a launch for all of them."""

from __future__ import annotations

import math
from dataclasses import replace

from mtia_emu.kernels.builder import ceil_div
from mtia_emu.kernels.rows.tape import inline
from mtia_emu.kernels.rows.update import RowTables

from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Operand
from mtia_emu.types import FP32, FP64, INT32, TensorType

from ...graph import Node
from ...ops.update_rows import BEHIND, tape_of_update
from ..steps import Schedule
from ..views import View

LONG_RUN = 32  # look-ups a row from which few PEs would add up all gradients, if one took all of a row


def update_rows(schedule: Schedule, node: Node) -> list[View]:
    """Change rows in place, those of tables that are no state in a copy; wide rows in parts of their columns.

    A row whose elements wait for all others has no parts: where it does not fit, a core takes over.
    """
    tape, count = tape_of_update(node.attrs)
    values = schedule.values[node.inputs[count + 1]]
    numbers = node.inputs[count + BEHIND :]
    tape, left = inline(tape, schedule.numbers(numbers, 1 + count))
    tables = [schedule.values[v] for v in node.inputs[:count]]
    parts = _parts(schedule, RowTables(tape, _operand(values), tuple(map(_operand, tables))))
    if not parts or not values.type.size:
        return schedule.on_core(node)
    out = [_place(schedule, node, i) for i in range(count)]
    words = [schedule.packed(node, schedule.values[v]) for v in node.inputs[count : count + BEHIND : 2] if v]
    rows = [_line(w) for w in words]
    given = [_line(schedule.values[numbers[i - 1 - count]]) for i in left if i > count]
    named = rows[0].type.size
    update = {"tape": str(tape), "placed": len(rows) > 1, "below": False}
    if named >= LONG_RUN * tables[0].shape[0]:
        rows, values = _in_part(schedule, node, rows, values, tables[0].shape[0])
        update |= {"placed": False, "below": True}
    for low, high in parts:
        cut = [_columns(x, low, high) for x in (values, *out)]
        words = _words(schedule, node, rows[0].type.size, min(rows[0].type.size, tables[0].shape[0]))
        schedule.step(node, "update", [rows[0], cut[0], *rows[1:], *given], [*cut[1:], *words], **update)
    return out


def _line(view: View) -> View:
    """Return packed elements as one row."""
    line = view.reshape((1, view.type.size))
    assert line is not None
    return line


def _in_part(
    schedule: Schedule, node: Node, rows: list[View], values: View, table_rows: int
) -> tuple[list[View], View]:
    """Add up gradients in part: return the row of each sum, and the sums.

    A row's are cut into about as many runs as each has members, whatever the grid.
    """
    count = rows[0].type.size
    most = math.isqrt(count // table_rows)
    words = _words(schedule, node, count, min(count, table_rows + count // most))
    kind = FP64 if values.dtype == FP64 else FP32
    sums = schedule.buffer(f"{node.name}.sums", TensorType(kind, (words[-1].type.size, values.shape[1])))
    packed = schedule.packed(node, values)
    schedule.step(
        node, "partial_sums", [rows[0], packed, *rows[1:]], [sums, *words], rows=table_rows, most=most
    )
    return words[-1:], sums


def _words(schedule: Schedule, node: Node, indices: int, runs: int) -> list[View]:
    """Return buffers for the words of runs."""
    sizes = {"sources": indices, "starts": runs + 1, "rows": runs}
    return [schedule.buffer(f"{node.name}.{n}", TensorType(INT32, (1, size))) for n, size in sizes.items()]


def _place(schedule: Schedule, node: Node, index: int) -> View:
    """Return where a table's next rows are put: in its own place, or in a copy."""
    table = schedule.values[node.inputs[index]]
    state = schedule.graph.state_after(node, index)
    place = schedule.in_place[state].reshape(table.shape) if schedule.may_change(node, index) else None
    if place is None:
        place = schedule.result(node, index)
        schedule.step(node, "copy", [table], [place])
    return place


def _parts(schedule: Schedule, work: RowTables) -> list[tuple[int, int]]:
    """Return the columns, from and to, of parts of rows that local memory holds, as few as may be."""
    whole = all(x.cols == work.width for x in work.tables) and not work.tape.row_wise
    count = 1
    while count <= (work.width if whole else 1):
        step = ceil_div(work.width, count)
        if replace(work, values=_narrow(work.values, step), tables=_all_narrow(work, step)).most_rows(
            schedule.chip
        ):
            return [(low, min(low + step, work.width)) for low in range(0, work.width, step)]
        count *= 2
    return []


def _all_narrow(work: RowTables, cols: int) -> tuple[Operand, ...]:
    return tuple(_narrow(x, min(x.cols, cols)) for x in work.tables)


def _narrow(x: Operand, cols: int) -> Operand:
    return replace(x, shape=(x.rows, cols))


def _operand(view: View) -> Operand:
    return Operand(view.dtype, view.shape, view.strides, Memory.SRAM)


def _columns(view: View, low: int, high: int) -> View:
    """Return columns of a view that has so many, the whole of a narrow one."""
    high = min(high, view.shape[1])
    return view.slice([0, low], [view.shape[0], high - low], [1, 1])
