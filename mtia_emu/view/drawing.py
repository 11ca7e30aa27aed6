"""Pictures of graphs: boxes and arrows as DOT text, or as SVG laid out in layers. SVG needs fast-sugiyama."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ..errors import UserError
from ..files.writing import write_atomic
from .text import clean, shorten

MOST_BOXES = {".svg": 400, ".dot": 20_000}  # beyond them nobody sees anything, or no viewer answers
WIDTH, LINE, GAP = 190.0, 14.0, 40.0  # of a box, a line of text and the space around a box, in pixels
LETTERS = 27  # that fit into a box
_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_COLOURS = {  # fill and edge, by kind of box
    "input": ("#e8f1e4", "#5a8f45"), "output": ("#f1e4ee", "#8f4579"), "product": ("#fbe6d3", "#d9730d"),
    "move": ("#f2f2f2", "#9a9a9a"), "lookup": ("#e7dff0", "#8f5fb0"), "other": ("#e1ecf6", "#1f5fa8"),
}  # fmt: skip
Place = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """One box: its lines of text, the first of them bold; `kind` gives its colour, `tip` says more."""

    lines: tuple[str, ...]
    kind: str = "other"
    tip: str = ""


@dataclass(frozen=True)
class Drawing:
    """Boxes in order, and arrows between them by their numbers, each with a text."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int, str], ...]

    def first(self, most: int) -> tuple[Drawing, int]:
        """Return the drawing of the first boxes, and how many are left out."""
        arrows = tuple(a for a in self.arrows if max(a[:2]) < most)
        return Drawing(self.title, self.boxes[:most], arrows), max(len(self.boxes) - most, 0)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return a picture's suffix; raise `UserError` for one that is neither .svg nor .dot."""
    suffix = Path(path).suffix.lower()
    if suffix not in MOST_BOXES:
        raise UserError(f"cannot draw {os.fspath(path)!r}: a graph's picture is FILE.svg or FILE.dot")
    return suffix


def draw(drawing: Drawing, path: str | os.PathLike[str]) -> int:
    """Write the picture, its form by the suffix; return how many boxes it leaves out.

    The first `MOST_BOXES` are drawn; the picture says how many are not. The same bytes for the same drawing.
    """
    suffix = suffix_of(path)
    shown, left_out = drawing.first(MOST_BOXES[suffix])
    write_atomic(path, (svg(shown, left_out) if suffix == ".svg" else dot(shown, left_out)).encode())
    return left_out


def dot(drawing: Drawing, left_out: int = 0) -> str:
    """Return the drawing in the DOT language of Graphviz."""
    lines = [f"digraph {_quoted(drawing.title)} {{", '  node [shape=box, style="filled,rounded"]']
    lines.append('  node [fontname="monospace", fontsize=10]; edge [fontname="monospace", fontsize=8]')
    for number, box in enumerate(drawing.boxes):
        fill, edge = _COLOURS[box.kind]
        label = '"' + "\\n".join(map(_escaped, box.lines)) + '"'
        tip = f", tooltip={_quoted(box.tip)}" if box.tip else ""
        lines.append(f'  n{number} [label={label}, fillcolor="{fill}", color="{edge}"{tip}]')
    for source, target, text in drawing.arrows:
        lines.append(f"  n{source} -> n{target} [label={_quoted(text)}]")
    if left_out:
        lines.append(f"  rest [label={_quoted(_rest(left_out))}, shape=plaintext, style=solid]")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Return a text as it stands between quotes in DOT, on one line: nothing in it is an escape."""
    return clean(text).replace("\\", "\\\\").replace('"', '\\"')


def _rest(left_out: int) -> str:
    return f"{left_out:,} further boxes are not drawn"


def svg(drawing: Drawing, left_out: int = 0) -> str:
    """Return the drawing as SVG: boxes in layers, arrows downwards, more on a box when it is pointed at."""
    height = LINE * max((len(box.lines) for box in drawing.boxes), default=1) + 8
    places, bends = _layout(drawing, height)
    right = max((x for x, _ in chain(places, *bends)), default=0.0) + WIDTH / 2 + GAP
    bottom = max((y for _, y in places), default=0.0) + height / 2 + GAP
    size = {"width": f"{right:.0f}", "height": f"{bottom:.0f}", "viewBox": f"0 0 {right:.0f} {bottom:.0f}"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "font-family": _FONT})
    _text(root, "title", clean(drawing.title))
    root.append(_arrow_head())
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    heading = clean(drawing.title) + (f": {_rest(left_out)}" if left_out else "")
    _text(root, "text", heading, x="12", y="20", **{"font-size": "13", "font-weight": "bold"})
    for (_, _, text), bend in zip(drawing.arrows, bends, strict=True):
        _draw_arrow(root, bend, text)
    for box, place in zip(drawing.boxes, places, strict=True):
        _draw_box(root, box, place, height)
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _layout(drawing: Drawing, height: float) -> tuple[list[Place], list[list[Place]]]:
    """Return the middle of each box, and the points that each arrow goes through.

    Layers and crossings by the method of Sugiyama, Tagawa and Toda (1981), as fast-sugiyama does it. Its
    numbers are integers, for which it gives the same places every time.
    """
    try:
        from fast_sugiyama import from_edges
    except ImportError as error:
        raise UserError(
            "SVG pictures of graphs need fast-sugiyama: pip install 'mtia-emu[draw]' (or draw FILE.dot)"
        ) from error
    edges = sorted({(source, target) for source, target, _ in drawing.arrows})
    layouts: Any = from_edges(edges, vertex_spacing=100, dummy_vertices=True) if edges else []
    at: dict[int, Place] = {}
    way: dict[int, list[int]] = {}
    left, deepest = 0.0, 0.0
    for places, width, depth, steps in sorted(layouts, key=lambda part: min(n for n, _ in part[0])):
        scale_x, scale_y = (WIDTH + GAP) / 100, (height + GAP) / 100
        for number, (x, y) in places:
            at[number] = (left + x * scale_x, (depth - y) * scale_y)
        for source, target in steps:
            way.setdefault(source, []).append(target)
        left, deepest = left + (width + 100) * scale_x, max(deepest, depth * scale_y)
    alone = [n for n in range(len(drawing.boxes)) if n not in at]
    at |= {n: (i * (WIDTH + GAP), deepest + (height + GAP if at else 0)) for i, n in enumerate(alone)}
    shift = (GAP / 2 + WIDTH / 2 - min((x for x, _ in at.values()), default=0.0), 40 + height / 2)
    at = {n: (x + shift[0], y + shift[1]) for n, (x, y) in at.items()}
    ends = [_through(way, len(drawing.boxes), source, target) for source, target, _ in drawing.arrows]
    bends = [_bend([at[n] for n in numbers], height) for numbers in ends]
    return [at[n] for n in range(len(drawing.boxes))], bends


def _through(way: dict[int, list[int]], boxes: int, source: int, target: int) -> list[int]:
    """Return the numbers on an arrow's way: those that are no boxes stand for layers that it passes."""
    for step in way.get(source, ()):
        numbers = [source, step]
        while numbers[-1] >= boxes:
            numbers.append(way[numbers[-1]][0])
        if numbers[-1] == target:
            return numbers
    return [source, target]


def _bend(points: list[Place], height: float) -> list[Place]:
    """Return an arrow's points, from the lower edge of a box to the upper edge of another."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    return [(x0, y0 + height / 2), *points[1:-1], (x1, y1 - height / 2 - 3)]


def _arrow_head() -> ET.Element:
    defs = ET.Element("defs")
    size = {"viewBox": "0 0 8 8", "refX": "6", "refY": "4", "markerWidth": "7", "markerHeight": "7"}
    marker = ET.SubElement(defs, "marker", {"id": "head", **size, "orient": "auto"})
    ET.SubElement(marker, "path", {"d": "M0 0L8 4L0 8z", "fill": "#777777"})
    return defs


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    child.text = text.replace("\ufffe", "").replace("\uffff", "")  # no characters of XML
    return child


def _draw_arrow(root: ET.Element, points: Sequence[Place], text: str) -> None:
    parts = [f"M{points[0][0]:.0f} {points[0][1]:.0f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        parts.append(f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}")
    line = {"d": "".join(parts), "fill": "none", "stroke": "#777777", "marker-end": "url(#head)"}
    _text(ET.SubElement(root, "path", line), "title", clean(text))


def _draw_box(root: ET.Element, box: Box, place: Place, height: float) -> None:
    (x, y), (fill, edge) = place, _COLOURS[box.kind]
    group = ET.SubElement(root, "g")
    if box.tip:
        _text(group, "title", "\n".join(clean(line) for line in box.tip.splitlines()))
    corner = {"x": f"{x - WIDTH / 2:.0f}", "y": f"{y - height / 2:.0f}", "rx": "5"}
    size = {"width": f"{WIDTH:.0f}", "height": f"{height:.0f}"}
    ET.SubElement(group, "rect", {**corner, **size, "fill": fill, "stroke": edge})
    top = y - LINE * (len(box.lines) - 1) / 2 + 4
    for index, line in enumerate(box.lines):
        weight = "bold" if index == 0 else "normal"
        at = {"x": f"{x:.0f}", "y": f"{top + index * LINE:.0f}", "text-anchor": "middle"}
        _text(
            group, "text", shorten(clean(line), LETTERS), **at, **{"font-size": "11", "font-weight": weight}
        )
