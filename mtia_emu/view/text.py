"""Text that came from outside, made safe to show: names in model files may hold anything."""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len

LIMIT = 2000  # no name is shown longer, whatever the space
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)


def clean(text: str, *, ascii_only: bool = False) -> str:
    """Return `text` as one line that no terminal acts on.

    Escape sequences, control, format (text direction, zero width) and private characters and lone surrogates
    go; line breaks and tabs become spaces. With `ascii_only` other characters are written as backslash
    escapes.
    """
    if len(text) > LIMIT:
        text = text[:LIMIT] + "..."
    shown = text if text.isprintable() else "".join(map(_shown, _ESCAPES.sub("", text)))
    return shown.encode("ascii", "backslashreplace").decode("ascii") if ascii_only else shown


def printable(text: str) -> str:
    """Return a text of lines with all that a terminal may act on, or hide, written as backslash escapes."""
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\n\r\t\v\f\x85" or category in ("Zl", "Zp"):
        return " "
    return "" if category in ("Cc", "Cf", "Cs", "Co") else char


def shorten(text: str, width: int, *, gap: str = "...") -> str:
    """Return `text` in at most `width` cells, the middle replaced by `gap`: both ends tell names apart."""
    if cell_len(text) <= width:
        return text
    if width <= len(gap):
        return gap[: max(width, 0)]
    room = width - len(gap)
    return _head(text, room // 2) + gap + _head(text[::-1], room - room // 2)[::-1]


def _head(text: str, width: int) -> str:
    """Return the longest start of `text` that takes at most `width` cells."""
    used = 0
    for i, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return text[:i]
    return text
