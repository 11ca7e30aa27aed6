"""The greatest rate at a service level."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.arrivals import TokenLengths, gamma, poisson, synthetic
from mtia_emu.serving.search import greatest_rate
from mtia_emu.serving.simulate import Service
from mtia_emu.serving.slo import ServiceLevel

from .flat import SYNCHRONOUS, FlatTable

SERVICE = Service(FlatTable(0.1), replace(SYNCHRONOUS, max_sequences=1), blocks=100)  # type: ignore[arg-type]
ONE = TokenLengths.fixed(1)


def test_evenly_spaced_requests_are_served_up_to_the_rate_of_the_server() -> None:
    made = synthetic("x", gamma(1.0, 400, 0), ONE, ONE)
    found = greatest_rate(SERVICE, made, ServiceLevel(ttft=0.2))
    # a queue that grows by 1 - 1 / (0.1 x rate) of a service each request: one service after 400 of them
    assert found.rate_per_s == pytest.approx(10.0, rel=0.02) and found.bounded
    assert all((t.kept_share >= 0.99) == (t.rate_per_s <= found.rate_per_s) for t in found.tried)


def test_a_tighter_level_is_a_lower_rate() -> None:
    made = synthetic("x", poisson(1.0, 800, 3), ONE, ONE)
    rates = [greatest_rate(SERVICE, made, ServiceLevel(ttft=t)).rate_per_s for t in (0.2, 0.4, 0.8)]
    assert None not in rates and rates == sorted(rates)  # type: ignore[type-var]


def test_a_level_that_no_rate_keeps_is_said() -> None:
    made = synthetic("x", poisson(1.0, 100, 3), ONE, ONE)
    found = greatest_rate(SERVICE, made, ServiceLevel(ttft=0.05))
    assert found.rate_per_s is None and "one at a time, 0% of the requests keep the level" in found.reason


def test_a_load_too_small_to_fill_the_service_is_said() -> None:
    made = synthetic("x", poisson(1.0, 5, 3), ONE, ONE)
    found = greatest_rate(SERVICE, made, ServiceLevel(ttft=100.0))
    assert not found.bounded and found.rate_per_s is not None


def test_a_level_without_a_limit_has_no_greatest_rate() -> None:
    with pytest.raises(UserError, match="needs a limit"):
        greatest_rate(SERVICE, synthetic("x", poisson(1.0, 5, 3), ONE, ONE), ServiceLevel())
