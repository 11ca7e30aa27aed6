"""Pictures: they come out, the same each time, and refuse what they cannot do."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from relayered import relayered

from mtia_emu.errors import UserError
from mtia_emu.results.report import Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view import plot
from mtia_emu.view.plot import roofline, summary

pytest.importorskip("matplotlib")
ROOFS = Roofs("fp16", 177e12, 2.76e12, 204e9, 2.7e12)


@pytest.fixture
def hostile(report: Report) -> Report:
    layers = tuple(replace(x, bound_by="$\\frac{$ <x> \x1b[31m 模") for x in report.layers)
    return replace(relayered(report, layers), model="$x^{ & <b>\n" * 50, machine="$$", dtype="\\")


@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.filterwarnings("error")
def test_pictures_are_deterministic(
    tmp_path: Path, report: Report, gpu: Report, hostile: Report, suffix: str
) -> None:
    for name in ("a", "b"):
        roofline(report, ROOFS, tmp_path / f"roof-{name}.{suffix}")
        roofline(hostile, ROOFS, tmp_path / f"bad-{name}.{suffix}")
        summary([(report, gpu), (hostile, None)], tmp_path / f"all-{name}.{suffix}")
    for kind in ("roof", "bad", "all"):
        first, second = ((tmp_path / f"{kind}-{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second
        assert first.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
        assert b"matplotlib.org" not in first or suffix == "svg"
        if suffix == "svg":
            ET.fromstring(first)
            assert b"<dc:date>" not in first


def test_user_settings_do_not_matter(tmp_path: Path, report: Report) -> None:
    import matplotlib

    roofline(report, ROOFS, tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "text.parse_math": True, "axes.grid": True}):
        roofline(report, ROOFS, tmp_path / "b.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_nothing_to_draw(tmp_path: Path, report: Report) -> None:
    empty = relayered(report, (), 0)
    roofline(empty, ROOFS, tmp_path / "a.png")
    summary([(empty, None)], tmp_path / "b.png")
    with pytest.raises(UserError, match="needs at least one report"):
        summary([], tmp_path / "c.png")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["a.pdf", "a", "png"])
def test_other_suffixes(tmp_path: Path, report: Report, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot draw '.*': the suffix must be \.svg or \.png"):
        roofline(report, ROOFS, tmp_path / name)
    assert not os.listdir(tmp_path)


def test_without_matplotlib(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"matplotlib": None, "matplotlib.figure": None}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(UserError, match=r"pip install 'mtia-emu\[plot\]'"):
        summary([(report, None)], tmp_path / "a.png")


def test_a_missing_folder(tmp_path: Path, report: Report) -> None:
    with pytest.raises(UserError, match="does not exist"):
        roofline(report, ROOFS, tmp_path / "none" / "a.png")


@pytest.mark.parametrize("given", [None, "a file/fonts"])
def test_matplotlib_is_given_a_folder_that_it_can_write_to_and_that_goes(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints lines of its own where it is not."""
    (tmp_path / "a file").touch()
    monkeypatch.setattr(
        "mtia_emu.view.plot.disk_cache.folder", lambda *_: None
    )  # as in a home that is read-only
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    if given is not None:
        monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / given))
    before = os.environ.get("MPLCONFIGDIR")
    with plot._folder_of_ours():
        folder = Path(os.environ["MPLCONFIGDIR"])
        (folder / "fontlist.json").touch()
    assert not folder.exists() and os.environ.get("MPLCONFIGDIR") == before


def test_no_title_is_cut_off(tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from mtia_emu.view.gantt import Lane, gantt

    seen: list[Any] = []

    def keep(canvas: Any, file: Any, kind: str) -> None:
        FigureCanvasAgg(canvas).draw()
        seen.append(canvas)

    monkeypatch.setattr(plot, "_save", keep)
    name = "models/quarter/" + "a-long-name-with-parts-" * 5
    long = replace(report, model=name, machine="mtia-with-more-channels")
    roofline(long, ROOFS, tmp_path / "a.png")
    gantt("of a model " * 30, [Lane("layer", ())], 10.0, 1e9, tmp_path / "b.png")
    for canvas in seen:
        for axes in canvas.axes:
            box = axes._left_title.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= canvas.bbox.x1 and box.y1 <= canvas.bbox.y1
            assert axes._left_title.get_text().count("\n") >= 1
    assert len(seen) == 2
