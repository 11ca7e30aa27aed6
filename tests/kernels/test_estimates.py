"""Estimates of every kernel, held to the timing: any call within its band, many as near as is stated."""

from __future__ import annotations

import numpy as np
import pytest
from estimated import CALLS, calls, spread
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.estimates import BANDS, OVERLAP_LOSS, chain, exposed

from mtia_emu.machine.chip import load_chip


def test_every_kind_of_estimate_has_a_band() -> None:
    assert set(BANDS) == set(CALLS)


@pytest.mark.parametrize("name", BANDS)
@settings(max_examples=25)
@given(st.data())
def test_an_estimate_stays_in_its_band(name: str, data: st.DataObject) -> None:
    call = data.draw(calls(name))
    band = BANDS[name]
    assert band.least <= call.share <= band.most, f"{call.what}: {call.estimated} for {call.timed} cycles"


@pytest.mark.parametrize(
    ("count", "off"), [(50, 0.08), pytest.param(400, 0.011, marks=pytest.mark.deep)], ids=["some", "many"]
)
@pytest.mark.parametrize("name", BANDS)
def test_estimates_are_as_near_as_is_stated(name: str, count: int, off: float) -> None:
    band, shares = BANDS[name], spread(name, count)
    assert np.percentile(shares, (10, 50, 90)) == pytest.approx(band.spread, abs=off)
    assert band.least <= shares[0] and shares[-1] <= band.most


def test_work_that_overlaps_shows_by_a_share() -> None:
    assert exposed(300, 100) == pytest.approx(200 * OVERLAP_LOSS["product"])
    assert exposed(300, 100, "attention") == pytest.approx(200 * OVERLAP_LOSS["attention"])


def test_sums_pass_along_a_chain_bank_by_bank() -> None:
    """tiny: 32 B a cycle, 4 banks, 1 cycle a hop. 256 B take 8 cycles, a bank 2 and its hop 1."""
    assert chain([1, 2, 3, 5], 256, load_chip("tiny")).tolist() == [0, 8, 8 + 3, 8 + 9]
