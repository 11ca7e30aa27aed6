"""JSON files, read without trusting them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import UserError


def read_json(path: str | Path, right: str, most_bytes: int) -> Any:
    """Return the value of a JSON file; `right` says what the file should be.

    Raises `UserError` for a file that cannot be read, of more bytes, that is not JSON, and with a key twice
    in one object. A number may be NaN or infinite, as Python writes them.
    """
    where = str(path)
    try:
        with open(where, "rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file has
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{where}: cannot be read: {reason} (right: {right})") from None
    if len(data) > most_bytes:
        raise UserError(f"{where}: more than {most_bytes} bytes (right: {right})")
    try:
        return json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # ValueError: what is not UTF-8, endless integers
        raise UserError(f"{where}: not JSON: {error} (right: {right})") from None


def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the items of an object; raise `ValueError` for a key that stands twice."""
    out = dict(items)
    if len(out) < len(items):
        (twice, _), *_ = Counter(name for name, _ in items).most_common(1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return out
