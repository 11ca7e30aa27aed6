"""Mappings as text, as programs print them: `rows=m cols=n2k4 tile=64x64x64 outer=m hold=2x1 staged`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mtia_emu.errors import UserError, nearest

MOST = 1 << 20  # that a number of a mapping may be
_NUMBERS = re.compile(r"^[1-9][0-9]{0,6}(x[1-9][0-9]{0,6})*$")


def words_of(text: str, form: Mapping[str, int], needed: str) -> dict[str, str]:
    """Return the words of a mapping's text by name; `form` says of each how many numbers it has.

    A word of 0 numbers has any text behind its "=", one of -1 stands alone. Raises `UserError` for a word
    that is not of the form, one given twice, and for one of `needed`, names apart by blanks, that is missing.
    """
    words: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if name not in form:
            raise UserError(f"mapping {text!r}: {word!r} is none of its words{nearest(name, form)}")
        if name in words:
            raise UserError(f"mapping {text!r}: {name} is given twice")
        count = form[name]
        numbers = count > 0 and bool(_NUMBERS.match(value)) and value.count("x") == count - 1
        right = numbers or (count == 0 and bool(value)) or (count < 0 and not equals)
        if not right or (numbers and max(map(int, value.split("x"))) > MOST):
            example = name if count < 0 else f"{name}={'x'.join(['8'] * count) or 'm'}"
            raise UserError(f"mapping {text!r}: {word!r} is not right (right: {example}, say)")
        words[name] = value
    missing = [name for name in needed.split() if name not in words]
    if missing:
        raise UserError(f"mapping {text!r}: it does not say {missing[0]} (right: all of {needed})")
    return words


def numbers(words: Mapping[str, str], name: str, default: str) -> list[int]:
    """Return the numbers of a word, of `default` where it is not given."""
    return [int(x) for x in words.get(name, default).split("x")]
