"""The values in a sweep's store, read as a stranger's: bounded, finite, of the kinds that a sweep writes."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from ..errors import UserError
from .row import STATUSES, Row

MOST_DIGITS = 40  # of a whole number


def parsed(text: Any, name: str) -> Any:
    try:
        if not isinstance(text, str):
            raise ValueError
        return _loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"store {name} is damaged: a value is not JSON") from None


def _loads(text: str | bytes) -> Any:
    """Return a JSON value; raise `ValueError` also for numbers that are none or that no sweep has."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_integer)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(text)
    return int(text)


def row_of(columns: tuple[Any, ...], name: str, most: int) -> Row:
    index, params, status, reason, metrics, layers = columns
    values, numbers = parsed(params, name), parsed(metrics, name)
    right = isinstance(values, dict) and isinstance(numbers, dict) and isinstance(reason, str)
    if not right or status not in STATUSES or not isinstance(index, int):
        raise UserError(f"store {name} is damaged: row {repr(index)[:40]} is not one of a sweep")
    check_row(values, numbers, name, f"row {index}")
    return Row(index, values, status, reason, numbers, _layers(layers, name, most) if most else {})


def check_row(params: dict[str, Any], metrics: dict[str, Any], name: str, row: str) -> None:
    for key, value in [*params.items(), *metrics.items()]:
        if not (value is None or isinstance(value, str | int | float)):
            raise UserError(f"store {name} is damaged: {row}: {key[:80]!r} is neither a number nor a text")


def _layers(data: Any, name: str, most: int) -> dict[str, list[list[Any]]]:
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(data, most)
        if inflate.unconsumed_tail:
            raise ValueError
        value = _loads(text)
    except (TypeError, ValueError, zlib.error, RecursionError):
        raise UserError(f"store {name} is damaged: the layers of a row cannot be read") from None
    return checked_layers(value, name)


def checked_layers(value: Any, name: str) -> dict[str, list[list[Any]]]:
    if not isinstance(value, dict) or not all(_are_groups(groups) for groups in value.values()):
        raise UserError(f"store {name} is damaged: the layers of a row are not lists of groups")
    return value


def _are_groups(groups: Any) -> bool:
    """Return whether a value is a list of `row.GROUP_FIELDS`: three names, numbers.

    Stores of before layers side by side lack the last.
    """
    kinds = (str,) * 3 + (int | float,) * 7
    return isinstance(groups, list) and all(
        isinstance(g, list)
        and len(g) in (len(kinds) - 1, len(kinds))
        and all(isinstance(v, k) for v, k in zip(g, kinds, strict=False))
        for g in groups
    )
