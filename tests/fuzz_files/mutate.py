"""Changes that any file can suffer, and those of a text: all drawn from one `random.Random`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Files = dict[str, bytes]  # what lies in the folder that is read, by name; the first is what is opened
MOST_BYTES = 1 << 20  # no mutant is larger
INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 255, 256, 4096, 65535, 65536, 1000003),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**53, 2**62, 2**63 - 1, -(2**63)),
)
NUMBERS = (
    *map(str, INTEGERS),
    *("2" + "0" * 30, "9" * 400, "9" * 4400, "-" + "9" * 4400, "1e308", "1e309", "1e-320", "-0.0"),
    *("nan", "inf", "-inf", "0.1", "1e9", "true", "null"),
)
NAMES = (
    *("", " ", "a\nb", "\x1b]0;title\x07", "\x1b[31mred", "\u202eltr", "\ud7ff", "\U0010ffff", "e\u0301"),
    *("=1+1", "@x", "<script>", "' OR 1", "%s%n", "..", "../x", "/dev/zero", "CON", "x" * 5000, "\x00", '"'),
)


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change some bits."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def poke(data: bytes, rng: random.Random) -> bytes:
    """Set some bytes to those that lie at an edge."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5B, rng.randrange(256)))
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data) + 1)]


def splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Put a piece of another file in, or in place of as much."""
    start, at = rng.randrange(len(other) + 1), rng.randrange(len(data) + 1)
    piece = other[start : start + rng.choice((1, 4, 16, 64, 512))]
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Write a piece many times."""
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 8, 64))
    times = rng.choice((2, 16, 1000))
    return (data[:at] + data[at : at + size] * times + data[at:])[:MOST_BYTES]


def remove(data: bytes, rng: random.Random) -> bytes:
    """Leave a piece out."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 8, 64)) :]


def plain(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change bytes, whatever they mean."""
    change = rng.choice((flip, flip, poke, truncate, repeat, remove, splice))
    return splice(data, rng, other) if change is splice else change(data, rng)  # type: ignore[operator]


def number(text: str, rng: random.Random) -> str:
    """Put an extreme in place of a number of a text."""
    found = list(re.finditer(r"(?<![A-Za-z_])-?\d[\d.e+]*", text))
    if not found:
        return text + rng.choice(NUMBERS)
    spot = rng.choice(found)
    drawn = rng.choice((rng.choice(NUMBERS), str(rng.randrange(10)), rng.choice(found).group()))
    return text[: spot.start()] + drawn + text[spot.end() :]


def word(text: str, rng: random.Random, words: Sequence[str] = ()) -> str:
    """Put another word of the text, a given one or an odd one in place of a word."""
    found = list(re.finditer(r"[A-Za-z_][A-Za-z0-9_.]*", text))
    if not found:
        return text
    spot = rng.choice(found)
    drawn = rng.choice((rng.choice(found).group(), rng.choice(list(words) or ["x"]), rng.choice(NAMES)))
    return text[: spot.start()] + drawn + text[spot.end() :]


def lines(text: str, rng: random.Random) -> str:
    """Drop, double or exchange lines, or write one many times."""
    rows = text.splitlines()
    if not rows:
        return text
    at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(4)
    if kind == 0:
        del rows[at]
    elif kind == 1:
        rows.insert(other, rows[at])
    elif kind == 2:
        rows[at], rows[other] = rows[other], rows[at]
    else:
        rows[at:at] = [rows[at]] * rng.choice((3, 200))
    return "\n".join(rows) + "\n"


def nest(text: str, rng: random.Random) -> str:
    """Put deep brackets in place of a value."""
    found = list(re.finditer(r"[=:,(]\s*", text))
    depth = rng.choice((3, 9, 40, 900))
    opened, closed = rng.choice((("[", "]"), ("(", ")"), ("{", "}"), ("[[", "]]"), ("-", ""), ("not ", "")))
    at = rng.choice(found).end() if found else len(text)
    end = text.find("\n", at)
    return text[:at] + opened * depth + "1" + closed * depth + text[end if end >= 0 else len(text) :]


def many(text: str, rng: random.Random) -> str:
    """Put a long list in place of a value."""
    found = list(re.finditer(r"=\s*", text))
    if not found:
        return text
    at = rng.choice(found).end()
    end = text.find("\n", at)
    item = rng.choice(("1", '"a"', "{}", "[]"))
    body = "[" + ", ".join([item] * rng.choice((30, 600, 30_000))) + "]"
    return text[:at] + body + text[end if end >= 0 else len(text) :]


def text(data: bytes, rng: random.Random, other: bytes, words: Sequence[str] = ()) -> bytes:
    """Change a text by its words, numbers and lines; now and then by its bytes."""
    changes: tuple[Callable[[str, random.Random], str], ...] = (
        *(number, number, number, lines, lines, nest, many),
        *((lambda t, r: word(t, r, words)),) * 3,
    )
    if rng.random() < 0.15:
        return plain(data, rng, other)
    body = data.decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        body = rng.choice(changes)(body, rng)
    return body.encode("utf-8", "replace")[:MOST_BYTES]
