"""Histograms of lengths, read from CSV without trusting them: columns `tokens_from` and `weight`.

A bin ends where the next begins; the last holds its own first length alone. A file with further columns holds
several histograms, and `of` says which: `{"model": "language/m-large", "field": "input_tokens"}`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import numpy as np

from ..errors import UserError, nearest
from .arrivals import TokenLengths
from .load import MOST_TOKENS

FROM, WEIGHT = "tokens_from", "weight"
MOST_BYTES = 1 << 22


def read_lengths(path: str | Path, of: Mapping[str, str] | None = None) -> TokenLengths:
    """Return the lengths of a histogram. Raise `UserError` for what is none, saying in which line."""
    where, of = str(path), of or {}
    rows = csv.DictReader(StringIO(_text(where)))
    columns = rows.fieldnames or []
    for name in (FROM, WEIGHT, *of):
        if name not in columns:
            meant = nearest(name, columns) if name in of else ""
            raise UserError(f"{where}: no column {name!r}{meant} (it has: {', '.join(columns)[:200]})")
    found: list[tuple[int, float]] = []
    seen: set[tuple[str, ...]] = set()
    for number, row in enumerate(rows, 2):
        if any(row[name] != value for name, value in of.items()):
            continue
        seen.add(tuple(str(row[c]) for c in columns if c not in (FROM, WEIGHT)))
        found.append(_bin(row[FROM], row[WEIGHT], f"{where}: line {number}"))
    if not found or not math.fsum(w for _, w in found) > 0:
        raise UserError(f"{where}: no lengths{f' of {dict(of)}' if of else ''}; right are bins with weights")
    if len(seen) > 1:
        raise UserError(f"{where}: holds {len(seen)} histograms; right is to say which, by its other columns")
    tokens = np.array([t for t, _ in found], np.int64)
    if (np.diff(tokens) <= 0).any():
        raise UserError(f"{where}: {FROM} does not rise from bin to bin; right is each length once, in order")
    return TokenLengths(tokens, np.array([w for _, w in found]), np.append(tokens[1:], tokens[-1] + 1))


def parse_lengths(text: str) -> TokenLengths:
    """Return the lengths that `512`, `FILE.csv` or `FILE.csv:column=value,...` stand for."""
    if text.isascii() and text.isdigit() and len(text) <= 9:
        tokens = int(text)
        if not 1 <= tokens <= MOST_TOKENS:
            raise UserError(f"a length of {tokens} tokens; right is 1 to {MOST_TOKENS}")
        return TokenLengths.fixed(tokens)
    path, colon, rest = text.partition(".csv:")
    parts = [part.partition("=") for part in rest.split(",")] if colon else []
    return read_lengths(f"{path}.csv" if colon else text, {name: value for name, _, value in parts})


def _bin(tokens: str | None, weight: str | None, at: str) -> tuple[int, float]:
    text = (tokens or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MOST_TOKENS):
        raise UserError(f"{at}: {FROM} is {text[:40]!r}; right is a whole number from 1 to {MOST_TOKENS}")
    try:
        value = float(weight or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e12:
        raise UserError(f"{at}: {WEIGHT} is {str(weight)[:40]!r}; right is 0 or more")
    return int(text), value


def _text(where: str) -> str:
    try:
        with open(where, encoding="utf-8-sig", newline="") as file:
            text = file.read(MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"lengths {where} cannot be read: {reason}; right is a number or a CSV file"
        ) from None
    if len(text) > MOST_BYTES:
        raise UserError(f"{where}: more than {MOST_BYTES} letters; a histogram has fewer")
    return text
