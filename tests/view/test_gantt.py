"""Bars over time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mtia_emu import UserError
from mtia_emu.view.gantt import Bar, Lane, gantt

LANES = (
    Lane("layers", (Bar(0, 40, "launch"), Bar(40, 100, "dram", name="$x_1$ <b>")), legend=True),
    Lane('"</svg>', (Bar(50, 60, "matrix", 0.25),)),
    Lane("idle", ()),
)


def test_lanes_are_drawn_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        gantt("$title$", LANES, 100, 1e9, tmp_path / name)
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    fills = [e.attrib.get("style", "") for e in ET.fromstring(first).iter() if e.tag.endswith("path")]
    assert any("#d9730d" in style and "opacity" in style for style in fills)


def test_nothing_takes_no_time(tmp_path: Path) -> None:
    gantt("none", (), 0, 1e9, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        gantt("none", LANES, 100, 1e9, tmp_path / "a.pdf")
