"""The rows of a store as a table for other tools: CSV or Parquet, rows and columns in canonical order."""

from __future__ import annotations

import csv
import io
import os
from typing import IO, Any

from ..errors import UserError
from ..files.writing import write_atomic
from .again import commands
from .row import Row, columns, record
from .spec import Spec
from .store import Store

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with what a spreadsheet's formula can begin


def write_csv(store: Store, path: str | os.PathLike[str]) -> None:
    """Write all rows as CSV; what a row does not have is empty, numbers are exact, texts are `inert`."""
    spec = store.spec
    names = exported(spec)

    def fill(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(
            file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True
        )
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writerow({name: inert(name) for name in names})
        for row in store.rows():
            writer.writerow({name: inert(value) for name, value in exported_row(row, spec).items()})
        text.detach()

    write_atomic(path, fill)


def exported(spec: Spec) -> list[str]:
    """Return the names of all columns: a row's, then each model's command that does the point again."""
    return [*columns(spec), *(f"{m.name}.command" for m in spec.model)]


def exported_row(row: Row, spec: Spec) -> dict[str, Any]:
    """Return a row as one flat mapping over the columns."""
    return record(row, spec) | {f"{name}.command": text for name, text in commands(spec, row).items()}


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
    records = [exported_row(row, spec) for row in store.rows()]
    data = {name: _column([r[name] for r in records]) for name in exported(spec)}
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
