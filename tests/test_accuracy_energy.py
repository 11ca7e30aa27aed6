"""The comparison with published power: its arithmetic, its data, and that busy chips are near it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import accuracy_energy as accuracy  # noqa: E402

from mtia_emu.engine.energy import standing  # noqa: E402
from mtia_emu.machine.chip import load_chip  # noqa: E402


@pytest.mark.parametrize("name", ["mtia-1", "mtia-2i"])
def test_the_inferred_size_fills_the_gap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "ungapped", lambda *_: 20.0)
    chip = load_chip(name)
    size = accuracy.inferred_pf_per_mm2(name, 0.75)
    full = standing(load_chip(name, {"energy.clock_pf_per_mm2": size})).clock
    assert full + 20.0 == pytest.approx((chip.typical_w + chip.tdp_w) / 2)
    monkeypatch.setattr(accuracy, "ungapped", lambda *_: 1000.0)
    assert accuracy.inferred_pf_per_mm2(name, 0.75) == 0.0


def test_published_figures_are_read() -> None:
    assert len(accuracy.published("mtia300_gemm.csv")) == 69
    assert [int(r["elements"]) for r in accuracy.published("mtia300_add.csv")] == [
        1 << e for e in range(20, 31)
    ]


@pytest.mark.parametrize("name", ["mtia-1", "mtia-2i"])
def test_busy_chips_draw_about_what_is_published(name: str) -> None:
    chip = load_chip(name)
    for program, report in accuracy.programs(chip, accuracy.BUSY[:2]).items():
        assert 0.75 * chip.typical_w < report.watts < 1.25 * chip.tdp_w, program
        assert sum(accuracy.watts(report).values()) == pytest.approx(report.watts)


def test_addition_streams_at_about_the_published_rate() -> None:
    row = accuracy.published("mtia300_add.csv")[-3]
    report = accuracy.run_operator(accuracy.Add(int(row["elements"])), load_chip("mtia-300"), "bf16", "dram")
    assert report.seconds * 1e6 == pytest.approx(float(row["microseconds"]), rel=0.25)


def test_an_unknown_table_is_refused() -> None:
    command = [sys.executable, str(DOCS / "accuracy_energy.py"), "watt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "no table 'watt'" in done.stderr and "Traceback" not in done.stderr
