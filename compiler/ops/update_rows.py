"""Rows of tables changed by the sums of their gradients: an optimiser's step on rows that were looked up."""

from __future__ import annotations

import numpy as np
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import scatter
from mtia_emu.types import RowUpdateWork, TensorType, distinct_rows, dtype_of

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, integer, need, register
from .embedding_bag import rows_of

BEHIND = 3  # operands behind the tables: indices, gradients, places
RIGHT = "right: tables [r,d] or [r,1], indices [n], gradients [m,d], places [n] or none, numbers"


def tape_of_update(attrs: Attrs) -> tuple[Tape, int]:
    """Return the tape that changes rows, and how many tables it changes."""
    tape, tables = parse(str(attrs["tape"])), integer(attrs, "tables")
    if tables < 1 or len(tape.results) != tables or tape.inputs <= tables:
        raise UserError(
            f"a tape of {tape.inputs} inputs and {len(tape.results)} results changes {tables} tables"
        )
    return tape, tables


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    tape, count = tape_of_update(attrs)
    if len(types) != tape.inputs - 1 + BEHIND or any(t is None for t in (*types[: count + 2],)):
        raise UserError(f"the tape takes {tape.inputs} values, of {len(types)} operands ({RIGHT})")
    tables = [need(t) for t in types[:count]]
    indices, values = need(types[count]), need(types[count + 1])
    for places in (indices, types[count + 2]):
        if places is not None:
            index_dtype(places)
    placed = need(types[count + 2]).shape if types[count + 2] else values.shape[:1]
    rows = {t.shape[0] for t in tables if t.rank == 2}
    fits = values.rank == 2 and len(rows) == 1 and indices.rank == 1 and placed == indices.shape
    wide = values.rank == 2 and all(t.rank == 2 and t.shape[1] in (1, values.shape[1]) for t in tables)
    if not (
        fits and wide and values.dtype.is_float and all(need(t).size == 1 for t in types[count + BEHIND :])
    ):
        shown = ", ".join(str(t) for t in types)
        raise UserError(f"operands {shown} do not fit ({RIGHT})")
    return tuple(tables)


def _update_rows(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    tape, count = tape_of_update(attrs)
    tables = [array(x) for x in arrays[:count]]
    named, values = rows_of(array(arrays[count]), len(tables[0])), array(arrays[count + 1])
    given = arrays[count + 2]
    at = np.arange(len(named)) if given is None else rows_of(array(given), len(values), "place")
    rows, run = np.unique(named, return_inverse=True)
    wide = np.float64 if values.dtype == np.float64 else np.float32
    sums = scatter("add", np.zeros((len(rows), values.shape[1]), wide), (run,), values[at])
    numbers = [array(x).reshape(1, 1) for x in arrays[count + BEHIND :]]
    kinds = [dtype_of(x) for x in tables]
    new = tape.evaluate([sums, *(x[rows] for x in tables), *numbers], kinds)
    out = [x.copy() for x in tables]
    for table, changed in zip(out, new, strict=True):
        table[rows] = changed
    return tuple(out)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count what even draws change: tables that are no state are copied besides, which is left out."""
    tape, count = tape_of_update(attrs)
    indices, values = need(types[count]), need(types[count + 1])
    used = {s for step in tape.steps for s in step.sources}
    tables = [need(t) for t in types[:count]]
    rows = tables[0].shape[0]
    changed = round(distinct_rows(indices.size, rows))
    each = [changed * t.shape[1] * t.dtype.bytes for t in tables]
    places = types[count + 2]
    read = indices.bytes + (places.bytes if places else 0) + values.bytes
    sizes = {
        "lookups": indices.size,
        "dim": values.shape[1],
        "rows": rows,
        "changed": changed,
        "pieces": changed * count,
        "narrow": changed * sum(t.shape[1] == 1 < values.shape[1] for t in tables),
        "old_bytes": sum(n for i, n in enumerate(each) if i + 1 in used),
    }
    flops = indices.size * values.shape[1] + len(tape.steps) * changed * values.shape[1]
    return Count(RowUpdateWork, sizes, flops, read + sizes["old_bytes"], sum(each))


register(
    Op(
        "update_rows",
        "tables with the rows changed that indices[n] name: by a tape of each row's summed gradients "
        "[m,d] (of places[n]), its old rows and numbers",
        (3, 64),
        _infer,
        _update_rows,
        _count,
        ("tape", "tables"),
    )
)
no_gradient("it is a step of an optimiser (right: differentiate the model)", "update_rows")
