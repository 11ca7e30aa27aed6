"""Flags of a command that take several values: every combination is a way to do it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import click

from ..errors import UserError, refuse_unknown
from .options import once

MOST_WAYS = 256


def ways(texts: Sequence[str], keys: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return what is chosen, and the changed flags, of each combination of texts `FLAG=VALUE,VALUE`.

    `FLAG` is one of `keys`, flags of the running command without their dashes, whose values are read as the
    flag's own.
    """
    given = once("--over", [_split(text, keys) for text in texts])
    count = 1
    for values in given.values():
        count *= len(values)
    if count > MOST_WAYS:
        raise UserError(f"--over makes {count} ways (right: at most {MOST_WAYS})")
    found = []
    for values in product(*given.values()):
        pairs = list(zip(given, values, strict=True))
        changed = dict(_value(key, value) for key, value in pairs)
        found.append((dict(pairs), changed))
    return found


def _split(text: str, keys: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    key, equals, rest = text.partition("=")
    values = tuple(rest.split(","))
    if not equals or not all(values):
        raise UserError(f"--over {text[:60]!r}: right is FLAG=VALUE,VALUE, as in --over engines=1,2,4")
    if key not in keys:
        raise refuse_unknown("flag of --over", key, keys)
    return key, values


def _value(key: str, text: str) -> tuple[str, Any]:
    """Return a flag's parameter and its value."""
    context = click.get_current_context()
    flag = next(p for p in context.command.params if f"--{key}" in p.opts)
    assert flag.name is not None
    try:
        return flag.name, flag.type.convert(text, flag, context)
    except click.BadParameter as error:
        raise UserError(f"--over {key}={text[:40]}: {error.message}") from None
