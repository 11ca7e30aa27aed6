"""Parameter files: TOML read without trusting it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

DEEPEST = 16  # tables and arrays within one another
LONGEST_LINE = 2000  # the parser's time grows with the square of a dotted key
MAX_FILE_BYTES = 1 << 18


def file_text(path: Path, what: str, names: Sequence[str]) -> str:
    """Return the text of a parameter file of the user's; raise `UserError` for what cannot be one.

    `what` it is a file of and the `names` that could have been given instead stand in the error.
    """
    if not path.is_file():
        raise UserError(f"{what} {path} is not a file; give a name ({', '.join(names)}) or a file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{what} {path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} cannot be read as text: {error}") from None


def parse(text: str, where: str) -> dict[str, Any]:
    """Return the values of a TOML text; raise `UserError` for what is not TOML, or of no sane size."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{where}: line {number} has {len(line)} characters; at most {LONGEST_LINE} are read"
            )
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: integers of thousands of digits, too
        raise UserError(f"{where}: not TOML: {error}") from None
    if _is_deep(values):
        raise UserError(f"{where}: tables and arrays are nested more than {DEEPEST} deep")
    return values


def tuples(value: Any) -> Any:
    """Return a value with its lists as the tuples that a frozen value holds."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def own_faults(error: ValidationError) -> list[Any]:
    """Return faults without those of a whole that are due to one of a part: a list left without its item."""
    found = error.errors()
    places = [fault["loc"] for fault in found]
    return [f for f in found if not any(p != f["loc"] and p[: len(f["loc"])] == f["loc"] for p in places)]


def _is_deep(values: dict[str, Any]) -> bool:
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        level = [
            x for v in level for x in (v.values() if isinstance(v, dict) else v) if isinstance(x, dict | list)
        ]
    return bool(level)
