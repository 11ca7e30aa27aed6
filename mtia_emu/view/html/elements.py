"""Elements of HTML and SVG. Text goes in as text: whatever it holds, it is shown and never read as markup."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from ..text import clean, shorten

Element = ET.Element
Child = Element | str
PATH = "d"  # numbers of ours, as many as a line has points: not cleaned, which shortens


def el(tag: str, *children: Child, **attributes: object) -> Element:
    """Return an element; `class_` stands for `class`, `_` in a name for `-`, None for no attribute.

    Numbers are written with two decimals at most, which is finer than a pixel of a page.
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = {names[k]: v for k, v in attributes.items() if v is not None}
    element = Element(tag, {k: str(v) if k == PATH else _text(v) for k, v in given.items()})
    for child in children:
        add(element, child)
    return element


def add(parent: Element, child: Child) -> None:
    """Put a child behind the others."""
    if isinstance(child, Element):
        parent.append(child)
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + _text(child)
    else:
        parent.text = (parent.text or "") + _text(child)


def markup(element: Element) -> str:
    """Return an element as HTML."""
    return ET.tostring(element, encoding="unicode", method="html")


def text_width(text: str, size: float = 12.0) -> float:
    """Return about how wide a text is in pixels: 0.56 of its size a letter, as sans-serif letters are."""
    return 0.56 * size * len(text)


def fitted(text: str, width: float) -> str:
    """Return a text that fits a width in pixels, its middle left out where it is too long."""
    return shorten(clean(text), max(int(width / text_width("x")), 4), gap="…")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return clean(str(value)).replace("\ufffe", "").replace("\uffff", "")
