"""Each ratio beside the GPU: its band, and what it is of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtia_emu.results.report import Report, compare
from mtia_emu.view.versus import in_words, ratios, sentences


def test_every_ratio_says_what_it_is_of(report: Report, gpu: Report) -> None:
    rows = {x.name: x for x in ratios(report, gpu, compare(report, gpu, "server"))}
    assert list(rows) == ["time", "energy", "power", "runs per joule", "utilization"]
    assert all(x.basis for x in rows.values())
    assert rows["energy"].named == "energy (server)" and "server" in rows["power"].basis
    assert rows["time"].named == "time (one run)"


def test_bands_are_of_chip_over_gpu(report: Report, gpu: Report) -> None:
    """The GPU takes 0.9 to 1.15 of its time: chip over GPU is 1 / 1.15 to 1 / 0.9 of what is shown."""
    time, energy, power, runs, peak = ratios(report, gpu, compare(report, gpu))
    whole = report.seconds / gpu.seconds
    assert time.band is not None
    assert (time.band.low, time.band.high) == pytest.approx((whole / 1.15, whole / 0.9))
    assert energy.band is not None and runs.band is not None
    assert energy.band.low == pytest.approx(1 / runs.band.high)
    assert power.band is None and peak.band is None


def test_without_a_band_or_a_basis_none_is_made_up(report: Report, gpu: Report) -> None:
    bare = replace(gpu, seconds_band=None, joules_band=None, around=None)
    versus = compare(report, bare)
    rows = ratios(report, bare, versus)
    assert all(x.band is None for x in rows) and rows[1].named == "energy"
    assert not any("band" in line for line in sentences(report, bare, versus))
    assert "as fast as a100-sxm-80gb" in in_words(report, bare, versus)
