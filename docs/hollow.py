"""Rows of generated tables in which every figure is zero or empty.

A generator that looks for a name that no longer exists prints zeros, and nobody sees it. So a row of nothing
is a fault unless it is declared: `ROWS` names each by section and first cell, with the reason why it is
right.
`fences.fill` refuses to write others, `tests/test_docs.py` to pass them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCE = re.compile(r"<!-- (?:generated|measured): (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
FIGURE = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?( ?%| ?x| [A-Za-z/]+)?")
EMPTY = ("", "-", "none", "no layer")
GIVEN = ("published", "measured", "right")  # columns whose figures are not ours to get wrong

_VIEW = "the compiler has results written where they are read: no launch moves them"
_FP16 = "no layer of the model is quantised"
ROWS: dict[str, dict[str, str]] = {
    "mtia-mc2": {
        "Concat": _VIEW,
        "Transpose": _VIEW,
        "Quantize": _FP16,
        "Dequantize": _FP16,
        "BatchMatMul": "the model has none",
        "Others": "elementwise work is done with the products before it",
    }
}


def unexplained(page: str) -> list[str]:
    """Return the rows of nothing in a page's generated tables, and declared ones that are not there."""
    return [fault for match in FENCE.finditer(page) for fault in faults(match["name"], match["body"])]


def faults(section: str, text: str) -> list[str]:
    """Return what is wrong with a section: rows of nothing that are not declared, and the reverse."""
    found, declared = list(hollow(text)), ROWS.get(section, {})
    new = [f"{section}: row '{label}' has no figure but zeros" for label in found if label not in declared]
    old = [
        f"{section}: row '{label}' is declared empty and is not" for label in declared if label not in found
    ]
    return new + old


def hollow(text: str) -> Iterator[str]:
    """Yield the first cell of each row of nothing in the Markdown tables of a text."""
    for head, rows in _tables(text):
        ours = [
            i
            for i, name in enumerate(head)
            if i and not any(word in name for word in GIVEN) and any(_is_figure(row[i]) for row in rows)
        ]
        if ours:
            yield from (row[0] for row in rows if all(_is_nothing(row[i]) for i in ours))


def _tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the heads and rows of the tables of a text."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        head, _, *rows = [_cells(line) for line in block.strip().splitlines()]
        yield head, rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _is_figure(cell: str) -> bool:
    """Return whether a cell is a number other than zero."""
    return bool(FIGURE.fullmatch(cell.strip("*"))) and bool(re.search(r"[1-9]", cell.partition("e")[0]))


def _is_nothing(cell: str) -> bool:
    number = cell.strip("*")
    return cell in EMPTY or (bool(FIGURE.fullmatch(number)) and not _is_figure(cell))


def check(section: str, text: str) -> str:
    """Return the text of a section. Raises `ValueError` for rows of nothing that are not declared."""
    wrong = faults(section, text)
    if wrong:
        raise ValueError("; ".join(wrong) + " (declare it in docs/hollow.py where it is right)")
    return text
