"""Pictures of graphs: lawful SVG and DOT whatever the names, bounded, the same every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu import UserError
from mtia_emu.view.drawing import MOST_BOXES, Box, Drawing, dot, draw, svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '"]; }<script>alert(1)</script>\\N\\l$x$\x00\x1b[31m\ufffe\ud800&amp;'
DIAMOND = Drawing(
    "diamond",
    tuple(Box((name,)) for name in "abcde"),
    ((0, 1, "ab"), (0, 2, "ac"), (1, 3, "bd"), (2, 3, "cd"), (0, 3, "ad")),
)


def middles(text: str) -> dict[str, tuple[float, float]]:
    """Return where the first line of each box stands."""
    root = ET.fromstring(text)
    return {t.text or "": (float(t.attrib["x"]), float(t.attrib["y"])) for t in root.iter(f"{SVG}text")}


def test_arrows_lead_downwards_and_boxes_do_not_overlap() -> None:
    at = middles(svg(DIAMOND))
    assert at["a"][1] < at["b"][1] == at["c"][1] < at["d"][1]
    places = [at[name] for name in "abcde"]
    for i, (x, y) in enumerate(places):
        assert all(abs(x - u) > 190 or abs(y - v) > 22 for u, v in places[:i])


def test_an_arrow_past_a_layer_goes_around_its_boxes() -> None:
    root = ET.fromstring(svg(DIAMOND))
    paths = {p.find(f"{SVG}title").text: p.attrib["d"] for p in root.findall(f"{SVG}path")}  # type: ignore[union-attr]
    assert set(paths) == {"ab", "ac", "bd", "cd", "ad"}
    assert paths["ad"].count("C") == 2 and paths["ab"].count("C") == 1


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    most = MOST_BOXES[".svg"]
    chain = Drawing(
        "long",
        tuple(Box((f"n{i}",)) for i in range(most + 7)),
        tuple((i, i + 1, "") for i in range(most + 6)),
    )
    assert draw(chain, tmp_path / "a.svg") == 7
    text = (tmp_path / "a.svg").read_text()
    assert "7 further boxes are not drawn" in text and f">n{most}<" not in text
    assert draw(chain, tmp_path / "a.dot") == 0


def test_nothing_to_draw_is_drawn() -> None:
    for drawing in (Drawing("none", (), ()), Drawing("alone", (Box(("a",)), Box(("b",))), ())):
        ET.fromstring(svg(drawing))
        assert dot(drawing).startswith("digraph")


def test_names_are_text_and_nothing_else() -> None:
    drawing = Drawing(HOSTILE, (Box((HOSTILE, HOSTILE), tip=HOSTILE), Box(("b",))), ((0, 1, HOSTILE),))
    root = ET.fromstring(svg(drawing))
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    for line in dot(drawing).splitlines():
        plain = line.replace("\\\\", "").replace('\\"', "")
        assert plain.count('"') % 2 == 0 and "\\N" not in plain and "\\l" not in plain


@settings(max_examples=60)
@given(st.lists(st.text(max_size=30), min_size=2, max_size=6))
def test_any_name_makes_lawful_xml(names: list[str]) -> None:
    boxes = tuple(Box((name,), tip=name) for name in names)
    root = ET.fromstring(svg(Drawing(names[0], boxes, tuple((0, i, names[i]) for i in range(1, len(names))))))
    assert len(root.findall(f"{SVG}g")) == len(names)


def test_the_same_drawing_gives_the_same_bytes_in_another_process() -> None:
    code = "from test_drawing import DIAMOND, svg; print(svg(DIAMOND), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == svg(DIAMOND)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"FILE\.svg or FILE\.dot"):
        draw(DIAMOND, tmp_path / "a.png")


def test_without_the_layout_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_sugiyama", None)
    with pytest.raises(UserError, match=r"mtia-emu\[draw\]"):
        draw(DIAMOND, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
    assert draw(DIAMOND, tmp_path / "a.dot") == 0
