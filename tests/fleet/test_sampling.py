"""Samples: their laws, what is kept of them, how fast they are."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.measures import measured
from mtia_emu.fleet.model import Values, ratio
from mtia_emu.fleet.sampling import (
    agrees,
    conditioned,
    draw,
    influences,
    percentiles,
    size_of,
)  # fmt: skip
from mtia_emu.fleet.scenario import Scenario

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"


def test_samples_fill_every_band_evenly(scenario: Scenario) -> None:
    samples = draw(scenario, 4096)
    assert size_of(samples) == 4096 and set(samples) == set(scenario.varied)
    for key, quantity in scenario.varied.items():
        low, high = quantity.ends
        assert low <= samples[key].min() < samples[key].max() <= high
        middle = float(quantity.at(np.array(0.5)))
        assert np.median(samples[key]) == pytest.approx(middle, rel=0.01, abs=1e-3)


def test_the_same_seed_gives_the_same_samples(scenario: Scenario) -> None:
    one, same, other = (draw(scenario, 64, seed) for seed in (1, 1, 2))
    assert all((one[key] == same[key]).all() for key in one)
    assert any((one[key] != other[key]).any() for key in one)


def test_kept_samples_agree_with_what_is_published(scenario: Scenario) -> None:
    samples = draw(scenario, 4096)
    kept = conditioned(scenario, samples)
    assert 100 < size_of(kept) == agrees(scenario, samples).sum() < 1000
    for anchor in scenario.published:
        found = ratio(Values(scenario, kept), anchor.measure, anchor.work, anchor.of, anchor.beside)
        assert anchor.low <= found.min() and found.max() <= anchor.high


def test_conditioning_lowers_what_the_chip_saves(scenario: Scenario) -> None:
    samples = draw(scenario, 4096)
    prior, kept = (
        percentiles(measured(scenario, "own", x)["saving_musd_per_year"], size_of(x))
        for x in (samples, conditioned(scenario, samples))
    )
    assert prior.p50 / kept.p50 > 1.4


def test_bands_that_nothing_agrees_with_are_refused() -> None:
    gain = {"value": 9.9, "source": "x", "status": "guess"}
    scenario = load_scenario(EXAMPLE, {"device.mtia-2i.device_busy_w": 5000, "rack.rack_w": 1e6})
    assert gain
    with pytest.raises(UserError, match="none of 64 samples agrees with what is published"):
        conditioned(scenario, draw(scenario, 64))


def test_indices_of_a_sum_are_its_shares(scenario: Scenario) -> None:
    """An answer of two inputs alone: each has the share of variance that it adds, others have none."""
    a, b = "device.h100-sxm.price_usd", "site.pue"

    def answer(at: object) -> object:
        return at[a] / 10_000 + at[b] * 40  # type: ignore[index]

    found = {x.key: x for x in influences(scenario, answer, samples=4096)}  # type: ignore[arg-type]
    low, high = (scenario.quantities[key].ends for key in (a, b))
    shares = [(low[1] - low[0]) / 10_000, (high[1] - high[0]) * 40]
    whole = sum(x * x for x in shares)
    assert found[a].first == pytest.approx(shares[0] ** 2 / whole, abs=0.03)
    assert found[b].total == pytest.approx(shares[1] ** 2 / whole, abs=0.03)
    assert found["finance.wacc_per_year"].total == pytest.approx(0, abs=1e-9)


def test_a_hundred_thousand_samples_take_under_two_seconds(scenario: Scenario) -> None:
    start = time.process_time()
    samples = draw(scenario, 100_000)
    measured(scenario, "own", samples)
    agrees(scenario, samples)
    assert size_of(samples) >= 100_000 and time.process_time() - start < 2


def test_too_many_samples_are_refused(scenario: Scenario) -> None:
    with pytest.raises(UserError, match="right: from 2 to 262144"):
        draw(scenario, 1 << 20)
