"""Requests read from trace files, without trusting them.

CSV with a header or JSON lines, plain or compressed by gzip. Columns or keys, by the public traces and of
our own:

| what | own | Azure LLM inference | Mooncake |
| --- | --- | --- | --- |
| when it arrives | `arrival_s` | `TIMESTAMP`, a date and a time | `timestamp`, ms |
| tokens of the prompt | `input_tokens` | `ContextTokens` | `input_length` |
| tokens of the answer | `output_tokens` | `GeneratedTokens` | `output_length` |
| hashes of the prompt's pieces | `prefixes` | | `hash_ids` |
| tokens of it seen before | `prefix_tokens_seen_before` | | |
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import UserError
from .load import MOST_REQUESTS, MOST_TOKENS, Load

MOST_BYTES = 1 << 28  # of a trace, unpacked
LONGEST_LINE = 1 << 20
PIECE_TOKENS = 512  # of a Mooncake trace
WHEN = {"arrival_s": 1.0, "timestamp": 1e-3}  # seconds that a unit is
INPUT = ("input_tokens", "ContextTokens", "input_length")
OUTPUT = ("output_tokens", "GeneratedTokens", "output_length")
HASHES = ("prefixes", "hash_ids")
KNOWN = "prefix_tokens_seen_before"
DATE = "TIMESTAMP"

Row = Mapping[str, Any]


def read_trace(path: str | Path) -> Load:
    """Return the requests of a trace file. Raise `UserError` for what is none, saying in which line."""
    where = str(path)
    arrivals: list[float] = []
    inputs: list[int] = []
    outputs: list[int] = []
    prefixes: list[tuple[int, ...]] = []
    known: list[int] = []
    for line, row in _rows(Path(path), where):
        at = f"{where}: line {line}"
        if len(arrivals) == MOST_REQUESTS:
            raise UserError(f"{at}: more than {MOST_REQUESTS} requests; right is a shorter trace")
        arrivals.append(_arrival(row, at))
        inputs.append(_tokens(row, INPUT, at))
        outputs.append(_tokens(row, OUTPUT, at))
        if (hashes := _named(row, HASHES)) is not None:
            prefixes.append(_hashes(hashes, at))
        if KNOWN in row:
            known.append(_number(row[KNOWN], KNOWN, at))
    if not arrivals:
        raise UserError(f"{where}: no requests; right is a line for each")
    if prefixes and len(prefixes) < len(arrivals):
        raise UserError(
            f"{where}: hashes of prefixes stand with some requests only; right is with all or none"
        )
    return Load(
        Path(path).name,
        np.array(arrivals) - (arrivals[0] if DATE in row else 0.0),
        np.array(inputs, np.int64),
        np.array(outputs, np.int64),
        tuple(prefixes),
        PIECE_TOKENS,
        np.array(known, np.int64) if known else None,
    )


def _rows(path: Path, where: str) -> Iterator[tuple[int, Row]]:
    """Yield each request's line number and its fields."""
    try:
        with _opened(path) as file:
            lines = _lines(file, where)
            first = next(lines, (1, ""))
            if first[1].lstrip().startswith("{"):
                yield first[0], _object(first[1], f"{where}: line {first[0]}")
                for number, text in lines:
                    yield number, _object(text, f"{where}: line {number}")
                return
            header = next(csv.reader([first[1]]), [])
            for number, text in lines:
                values = next(csv.reader([text]), [])
                if len(values) != len(header):
                    raise UserError(
                        f"{where}: line {number} has {len(values)} values where the header has {len(header)}"
                    )
                yield number, dict(zip(header, values, strict=True))
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"trace {where} cannot be read: {reason}; right is a CSV or JSON lines file"
        ) from None


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _lines(file: IO[bytes] | gzip.GzipFile, where: str) -> Iterator[tuple[int, str]]:
    read = number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        read += len(line)
        if len(line) > LONGEST_LINE:
            raise UserError(f"{where}: line {number} is longer than {LONGEST_LINE} bytes")
        if read > MOST_BYTES:
            raise UserError(f"{where}: more than {MOST_BYTES} bytes unpacked; right is a shorter trace")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{where}: line {number} is not text") from None
        if text:
            yield number, text


def _object(text: str, at: str) -> Row:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{at} is not JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict):
        raise UserError(f"{at} is not a JSON object; right is one with {', '.join(WHEN)} and the like")
    return value


def _named(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _arrival(row: Row, at: str) -> float:
    if DATE in row:
        try:
            text = str(row[DATE])[:26].strip()
            return (datetime.fromisoformat(text) - datetime(2000, 1, 1)).total_seconds()
        except (ValueError, TypeError):
            raise UserError(f"{at}: {DATE} is {str(row[DATE])[:40]!r}; right is a date and a time") from None
    for name, unit in WHEN.items():
        if name in row:
            return _float(row[name], name, at) * unit
    raise UserError(f"{at}: no arrival time; right is one of {', '.join([*WHEN, DATE])}")


def _float(value: Any, name: str, at: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (ValueError, TypeError, OverflowError):
        number = float("nan")
    if not 0 <= number < 1e12:  # not a number, too
        raise UserError(f"{at}: {name} is {str(value)[:40]!r}; right is a time of 0 or more")
    return number


def _tokens(row: Row, names: tuple[str, ...], at: str) -> int:
    value = _named(row, names)
    if value is None:
        raise UserError(f"{at}: no {names[0]}; right is one of {', '.join(names)}")
    return _number(value, names[0], at, least=1)


def _number(value: Any, name: str, at: str, *, least: int = 0) -> int:
    text = str(value).strip()
    if text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= MOST_TOKENS:
        return int(text)
    raise UserError(f"{at}: {name} is {text[:40]!r}; right is a whole number from {least} to {MOST_TOKENS}")


def _hashes(value: Any, at: str) -> tuple[int, ...]:
    if isinstance(value, list) and all(type(x) is int and abs(x) < 1 << 63 for x in value):
        return tuple(value)
    raise UserError(f"{at}: hashes of a prefix are {str(value)[:40]!r}; right is a list of whole numbers")
