"""The rows of a store as a table for other tools: CSV or Parquet, rows and columns in canonical order."""

from __future__ import annotations

import csv
import io
import os
from typing import IO, Any

from ..errors import UserError
from ..files.writing import write_atomic
from .row import columns, record
from .store import Store

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with what a spreadsheet's formula can begin


def write_csv(store: Store, path: str | os.PathLike[str]) -> None:
    """Write all rows as CSV; what a row does not have is empty, numbers are exact, texts are `inert`."""
    spec = store.spec

    def fill(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(
            file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True
        )
        writer = csv.DictWriter(text, columns(spec), lineterminator="\n")
        writer.writerow({name: inert(name) for name in columns(spec)})
        for row in store.rows():
            writer.writerow({name: inert(value) for name, value in record(row, spec).items()})
        text.detach()

    write_atomic(path, fill)


def inert(value: Any) -> Any:
    """Return a value; a text that a spreadsheet would take for a formula with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_parquet(store: Store, path: str | os.PathLike[str]) -> None:
    """Write all rows as Parquet; needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'mtia-emu[sweep]'; or use --csv") from None
    spec = store.spec
    records = [record(row, spec) for row in store.rows()]
    data = {name: _column([r[name] for r in records]) for name in columns(spec)}
    table = pyarrow.table(data)
    write_atomic(path, lambda file: pyarrow.parquet.write_table(table, file))


def _column(values: list[Any]) -> list[Any]:
    """Return values of one kind: whole numbers among fractions become fractions, other mixtures text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        return [None if v is None else float(v) for v in values]
    if len(kinds) > 1:
        return [None if v is None else str(v) for v in values]
    return values
