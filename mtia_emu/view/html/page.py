"""The parts of a page, and the page: one file, no scripts, nothing fetched; light, dark and on paper."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from ...files.writing import write_atomic
from .elements import Child, Element, el, markup
from .frame import NARROW, WIDE, Chart

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # no script, no image, no font, no connection
Size = Literal["half", "whole"]


@dataclass(frozen=True)
class Tile:
    """One number that stands out: what it is, the number with its unit, and a line of what it means."""

    name: str
    value: str
    note: str = ""


def header(title: str, verdict: str, note: str = "") -> Element:
    """Return the page's head: its title, and the verdict as one sentence."""
    lines = [el("p", note, class_="soft")] if note else []
    return el("header", el("h1", title), el("p", verdict, class_="verdict"), *lines)


def tiles(shown: Sequence[Tile]) -> Element:
    """Return numbers side by side."""
    boxes = [
        el("div", el("dt", t.name), el("dd", t.value, class_="value"), el("dd", t.note, class_="soft"))
        for t in shown
    ]
    return el("dl", *boxes, class_="tiles")


def section(title: str, *parts: Child, size: Size = "whole") -> Element:
    """Return a headed part, as wide as the page or as half of it where there is room for two."""
    return el("section", el("h2", title), *parts, class_=size)


def paragraph(text: str) -> Element:
    """Return a paragraph."""
    return el("p", text)


def notes(texts: Sequence[str]) -> Element:
    """Return short texts as a list."""
    return el("ul", *(el("li", text) for text in texts), class_="notes")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    shaded: Collection[int] = (),
) -> Element:
    """Return a table; rows whose numbers are in `shaded` stand out. A wide one moves in a box of its own.

    Columns of numbers are aligned right.
    """
    right = [all(_is_number(row[c]) for row in rows) and bool(rows) for c in range(len(columns))]
    looks = ["number" if numbers else None for numbers in right]
    head = el("tr", *(el("th", c, scope="col", class_=k) for c, k in zip(columns, looks, strict=True)))
    body = [_row(row, looks, "shaded" if number in shaded else None) for number, row in enumerate(rows)]
    titles = [el("caption", caption)] if caption else []
    whole = el("table", *titles, el("thead", head), el("tbody", *body))
    name = caption or ", ".join(columns)
    return el("div", whole, class_="scroll", tabindex=0, role="region", aria_label=name)


def _row(row: Sequence[str], looks: Sequence[str | None], look: str | None) -> Element:
    first = el("th", row[0], scope="row", class_=looks[0])
    rest = [el("td", cell, class_=k) for cell, k in zip(row[1:], looks[1:], strict=True)]
    return el("tr", first, *rest, class_=look)


def _is_number(text: str) -> bool:
    return not text or text.lstrip("-+$<~ ")[:1].isdigit()


def figure(chart: Chart, *, note: str = "", size: Size = "half") -> Element:
    """Return a figure: its title, the drawing for narrow and for wide places, and its numbers to unfold."""
    drawings = [
        el("div", chart.draw(width), class_=look) for width, look in ((NARROW, "narrow"), (WIDE, "wide"))
    ]
    numbers = el("details", el("summary", f"Numbers: {chart.title}"), table(chart.columns, chart.rows()))
    caption = el("figcaption", el("h2", chart.title), el("p", note or chart.summary, class_="soft"))
    return el("figure", caption, el("div", *drawings, class_="drawing"), numbers, class_=size)


def footer(text: str) -> Element:
    """Return the page's foot: where the numbers are from."""
    return el("footer", text)


@dataclass(frozen=True)
class Alive:
    """What makes a page answer to clicks: its policy, more style, and scripts, none of a stranger's.

    A script is its `type`, "" for JavaScript, its id, and its text.
    """

    policy: str
    style: str
    scripts: Sequence[tuple[str, str, str]]


def page(title: str, parts: Sequence[Element], alive: Alive | None = None) -> str:
    """Return the page as HTML. A header stands first, a footer last; figures and sections between flow."""
    style = (resources.files(__package__) / "style.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=alive.policy if alive else POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
    )
    sheet = Element("style")
    sheet.text = style + (alive.style if alive else "")  # not cleaned: it is ours, and keeps its lines
    head.append(sheet)
    first = [p for p in parts if p.tag in ("header", "dl")]
    last = [p for p in parts if p.tag == "footer"]
    middle = [p for p in parts if p not in first and p not in last]
    body = el("body", el("main", *first, el("div", *middle, class_="flow")), *last)
    body.extend(_script(*script) for script in (alive.scripts if alive else ()))
    return "<!doctype html>\n" + markup(el("html", head, body, lang="en")) + "\n"


def _script(kind: str, name: str, text: str) -> Element:
    element = el("script", type=kind or None, id=name or None)
    element.text = text  # not cleaned, as a style sheet
    return element


def write_page(path: str | os.PathLike[str], title: str, parts: Sequence[Element]) -> None:
    """Write the page to a file, whole or not at all."""
    write_atomic(path, page(title, parts).encode())
