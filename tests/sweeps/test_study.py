"""What the rows say: fronts, which parameter matters, the best; pictures, tables and the page of them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from browser import Browser
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtia_emu.errors import UserError
from mtia_emu.sweeps import pictures
from mtia_emu.sweeps.evaluate import make_job
from mtia_emu.sweeps.export import exported, inert, write_csv, write_parquet
from mtia_emu.sweeps.page import embedded, page, write_page
from mtia_emu.sweeps.row import OK, Row, metric_columns
from mtia_emu.sweeps.spec import make_spec
from mtia_emu.sweeps.store import Store, create
from mtia_emu.sweeps.study import Study, explained, pareto

HOSTILE = "</script><script>document.title='PWNED'</script><img src=x onerror=document.title='PWNED'>&amp;<b>"
DRAWN = ("pareto", "parallel", "sensitivity", "energy", "roofline")


def metrics(index: int, names: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {name: float(1 + index % 7 + len(name) % 5) for name in names}
    out |= {name: "dram" for name in names if name.endswith("bound_by")}
    channels, rows = 1 + index // 4, 1 + index % 4
    return out | {
        "seconds": 1.0 / channels,
        "joules": 2.0 / channels + 0.1 * rows,
        "area_mm2": 10.0 * rows + channels,
    }


@pytest.fixture
def store(product: Path) -> Any:
    """Give a store of 16 made-up rows whose names are hostile."""
    name = HOSTILE[:60]
    spec = make_spec(
        {
            "chip": "tiny",
            "model": [{"model": str(product), "name": name}, {"model": str(product), "name": "second"}],
            "set": {
                "dram.channels": [1, 2, 3, 4],
                "pe.matrix.rows": [1, 2, 3, 4],
                "name": ["tiny", HOSTILE[:50]],
            },
            "objectives": ["seconds", "joules", "area_mm2"],
        }
    )
    names = metric_columns(spec)
    group = [
        ["matmul", HOSTILE[:30], "dram", 3, 0.5, 100, 20, 30, 1.5],
        ["x", "map", "simd", 1, 0.1, 0, 5, 5, 0.1],
    ]
    layers = {name: group, "second": group}
    gpu = {"name": HOSTILE, "seconds": 0.1, "joules": 9.0, "area_mm2": 814.0, "seconds_error_share": 0.1}
    gpu |= {f"{name}.seconds": 0.1, f"{name}.macs": 1e3, f"{name}.dram_bytes": 1e2, f"{name}.joules": 3.0}
    params = {"dram.channels": 2, "pe.matrix.rows": 2, "name": "tiny"}
    base = {"params": params, "metrics": metrics(5, names), "layers": layers}
    with create(":memory:", make_job(spec), {"base": base, "gpu": gpu}) as opened:
        for i in range(16):
            here = {
                "dram.channels": 1 + i // 4,
                "pe.matrix.rows": 1 + i % 4,
                "name": HOSTILE[:50] if i % 2 else "tiny",
            }
            opened.put(Row(i, here, OK, "", metrics(i, names), layers))
        opened.put(Row(16, params, "failed", f"{HOSTILE} did not fit"))
        yield opened


@given(
    arrays.arrays(
        float, st.tuples(st.integers(0, 30), st.integers(1, 3)), elements=st.integers(0, 4).map(float)
    )
)
def test_the_front_is_what_no_row_dominates(values: Any) -> None:
    def beaten(i: int) -> bool:
        return any((v <= values[i]).all() and (v < values[i]).any() for v in values)

    assert pareto(values).tolist() == [not beaten(i) for i in range(len(values))]


def test_what_is_no_number_is_never_on_the_front() -> None:
    assert pareto(np.array([[np.nan, 0.0], [1.0, 1.0]])).tolist() == [False, True]


def test_a_parameter_explains_what_follows_it() -> None:
    groups = np.repeat(np.arange(4), 25)
    noise = np.random.default_rng(0).standard_normal(100)
    assert explained(groups, groups.astype(float)) == 1.0
    assert explained(groups, noise) < 0.1
    half = groups + noise * np.sqrt(1.25)
    assert explained(groups, half) == pytest.approx(0.5, abs=0.12)
    assert (
        explained(np.zeros(5, int), np.arange(5.0)) == 0.0 and explained(np.zeros(0, int), np.zeros(0)) == 0.0
    )


def test_sensitivity_is_of_the_parameter_that_matters(store: Store) -> None:
    study = Study.of(store)
    seconds, area = study.sensitivity("seconds"), study.sensitivity("area_mm2")
    assert seconds["dram.channels"] == pytest.approx(1.0) and seconds["pe.matrix.rows"] == 0.0
    assert area["pe.matrix.rows"] > 0.9


def test_the_best_and_the_failures(store: Store) -> None:
    study = Study.of(store)
    best = study.best()
    assert best["seconds"].params["dram.channels"] == 4 and best["area_mm2"].index == 0
    assert study.counts == {"ok": 16, "failed": 1} and study.failures == [(f"{HOSTILE} did not fit", 1)]
    front = study.front(["seconds", "area_mm2"])
    assert [r.index for r, on in zip(study.good, front, strict=True) if on] == [0, 4, 8, 12]
    with pytest.raises(UserError, match="no column 'second'"):
        study.column("second")


@pytest.mark.parametrize("kind", DRAWN)
def test_pictures_are_drawn_and_are_the_same_each_time(store: Store, tmp_path: Path, kind: str) -> None:
    study = Study.of(store, layers=True)
    for name in ("a.svg", "b.svg", "c.png"):
        getattr(pictures, kind)(study, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "<script" not in (tmp_path / "a.svg").read_text()
        and "\\mathdefault" not in (tmp_path / "a.svg").read_text()
    )


def test_a_roofline_of_what_is_not_there_is_refused(store: Store, tmp_path: Path) -> None:
    study = Study.of(store, layers=True)
    with pytest.raises(UserError, match="point 16 has no layers to draw"):
        pictures.roofline(study, tmp_path / "a.svg", 16)
    with pytest.raises(UserError, match="no model 'third'"):
        pictures.roofline(study, tmp_path / "a.svg", 1, "third")
    with pytest.raises(UserError, match="the suffix must be"):
        pictures.pareto(study, tmp_path / "a.pdf")


def test_tables_hold_every_row_in_canonical_order(store: Store, tmp_path: Path) -> None:
    write_csv(store, tmp_path / "r.csv")
    write_parquet(store, tmp_path / "r.parquet")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == exported(store.spec) and [r["point"] for r in rows] == [str(i) for i in range(17)]
    assert float(rows[3]["seconds"]) == 1.0 and rows[16]["seconds"] == "" and HOSTILE in rows[16]["reason"]
    frame = pandas.read_parquet(tmp_path / "r.parquet")
    assert list(frame) == exported(store.spec) and frame["seconds"].notna().sum() == 16
    assert frame["seconds"].tolist()[:16] == [float(r["seconds"]) for r in rows[:16]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@sum(a1)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1, -0.5, "dram", "", None, "a=b", "'=1"])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert inert(value) is value


def test_a_page_holds_hostile_names_as_text_alone(store: Store) -> None:
    html = page(Study.of(store, layers=True))
    assert html.count("</script>") == 3  # the data, plotly.js, ours
    assert HOSTILE[:60] not in html and "<img" not in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert data["gpu"]["name"] == HOSTILE and len(data["rows"]) == 16


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded({"a": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!--&\u2028"}


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed to open the page in")
def test_the_page_opens_in_a_browser(store: Store, tmp_path: Path) -> None:
    """The real page in a real browser, without a network: every plot drawn, nothing of the names run."""
    write_page(Study.of(store, layers=True), tmp_path / "r.html")
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-unsafe-swiftshader",
        "--enable-logging=stderr",
    ]
    words += ["--proxy-server=127.0.0.1:9", "--virtual-time-budget=20000", "--window-size=1250,3400"]
    words += [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'page.png'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [str(BROWSER), *words, (tmp_path / "r.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=900,  # a safety net
        check=False,
    )
    complaints = [
        line for line in done.stderr.splitlines() if "CONSOLE" in line and "Performance" not in line
    ]
    assert complaints == []
    assert 'data-ready="yes"' in done.stdout and "<title>Sweep of tiny</title>" in done.stdout
    drawn = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    assert drawn.count('class="main-svg"') >= 5 and 'class="parcoords' in drawn and "<img" not in drawn
    assert "PWNED" in drawn  # shown as text
    _look(tmp_path / "page.png")


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed to open the page in")
def test_a_chip_that_is_clicked_is_shown(store: Store, tmp_path: Path) -> None:
    """A click on a spot fills the part below; at no width is the page wider than the window."""
    study = Study.of(store, layers=True)
    write_page(study, tmp_path / "r.html")
    with Browser() as browser:
        for width in (360, 800, 1600):
            browser.open(tmp_path / "r.html", width=width, dark=width == 800)
            assert browser.ask("document.body.dataset.ready") == "yes" and not browser.asked[1:]
            assert browser.ask("document.documentElement.scrollWidth") <= width
            assert browser.ask("document.getElementById('chosen').textContent") == "tiny"
        assert browser.ask("document.querySelectorAll('#front .points path').length") >= len(study.good)
        browser.click("#front .scatterlayer .trace:nth-child(2) .points path")
        chosen = browser.ask("document.getElementById('chosen').textContent")
        assert chosen.startswith("point ")
        command = browser.ask("document.getElementById('again').textContent")
        row = next(r for r in study.good if f"point {r.index}" == chosen)
        assert all(f"{key}={value}" in command for key, value in row.params.items() if key != "name")


def test_a_page_begins_with_what_matters(store: Store) -> None:
    study = Study.of(store, layers=True)
    html = page(study)
    found = re.search(r'class="verdict">(.*?)</p>', html)
    assert found is not None and f"the best of {len(study.good)} chips is at" in found[1]
    name = study.spec.objectives[0]
    shares, chance = study.sensitivity(name), study.by_chance(name)
    key = max(shares, key=lambda k: shares[k])
    assert (f"{key} explains" in found[1]) == (shares[key] > chance[key])
    assert '<dl class="tiles">' in html and f"n = {len(study.good)} points" in html


def _look(picture: Path) -> None:
    """Look at the page: it has the colours of the front, the base chip and the GPU."""
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3).astype(int)
    assert len(pixels) > 1_000_000
    for colour in ((31, 95, 168), (217, 115, 13), (181, 68, 110)):
        assert (np.abs(pixels - colour).max(axis=1) < 12).sum() > 20, colour


@pytest.mark.parametrize("points", [16, 400])
def test_chance_explains_less_of_more_points(points: int) -> None:
    """A parameter of 4 values explains more of noise than the bound in one of twenty sweeps: the F law."""
    rng = np.random.default_rng(points)
    groups = np.arange(points) % 4
    bound = np.quantile([explained(groups, rng.normal(size=points)) for _ in range(2000)], 0.95)
    f = {16: 3.490, 400: 2.627}[points]  # the 95th percentile of F with 3 and n - 4 degrees of freedom
    ratio = 3 * f / (points - 4)  # of what lies between groups to what lies within
    share = 1 - (points - 1) / (points - 4) / (1 + ratio)
    assert bound == pytest.approx(share, rel=0.12)
    shuffled = [explained(groups, rng.permutation(np.arange(points) ** 2.0)) for _ in range(400)]
    assert np.quantile(shuffled, 0.95) == pytest.approx(share, rel=0.25)


def test_what_chance_explains_too_is_said(store: Store) -> None:
    study = Study.of(store)
    chance = study.by_chance("seconds")
    assert chance == study.by_chance("seconds") and set(chance) == set(study.spec.set)
    assert all(0 <= value <= 1 for value in chance.values())
    assert f"n = {len(study.good)} points." in page(Study.of(store, layers=True))
