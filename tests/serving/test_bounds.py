"""Service between the errors of its steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.arrivals import TokenLengths, closed_loop, gamma, synthetic
from mtia_emu.serving.bounds import bound
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.served import serve
from mtia_emu.serving.simulate import Service
from mtia_emu.serving.step_table import GroupedSteps, ServingStep

from .flat import FlatTable
from .tables import FACTS, toy_table

RULES = EngineRules(max_sequences=8, token_budget=64, gap_s=0.0)
STEPS = (ServingStep(((16, 64),), (64, 512)), ServingStep(((64, 0),)), ServingStep((), (1, 64)))


def banded(
    seconds: tuple[float, float] = (0.5, 3.0), joules: tuple[float, float] = (0.8, 2.0)
) -> GroupedSteps:
    return replace(toy_table(), facts=replace(FACTS, seconds_band=seconds, joules_band=joules))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_lies_between_its_bounds_by_error_and_band(step: ServingStep) -> None:
    middle = toy_table().step(step)
    fast, slow = (bound(banded(), slow=slow).step(step) for slow in (False, True))
    assert fast.seconds == pytest.approx(middle.seconds * 0.99 * 0.5)
    assert slow.seconds == pytest.approx(middle.seconds * 1.01 * 3)
    assert (fast.joules, slow.joules) == pytest.approx((middle.joules * 0.99, middle.joules * 1.01))
    assert fast.error_share == slow.error_share == 0


def test_what_is_served_lies_between_and_joules_by_their_own_band() -> None:
    load = synthetic("even", gamma(0.001, 40, 0), TokenLengths.fixed(16), TokenLengths.fixed(8))
    found = serve(Service(banded(), RULES, blocks=100), load, "ttft=1e4", bounds=True)
    bounds, middle = found.bounds, found.answers
    assert bounds is not None and middle.ttft_s and bounds.fast.ttft_s and bounds.slow.ttft_s
    fast, slow = bounds.fast.ttft_s.p50.value, bounds.slow.ttft_s.p50.value
    assert fast < middle.ttft_s.p50.value < slow
    assert bounds.joules_per_output_token is not None and middle.joules_per_output_token is not None
    low, high = bounds.joules_per_output_token
    assert low < middle.joules_per_output_token < high
    assert middle.joules is not None and middle.idle_joules is not None
    steps = middle.joules - middle.idle_joules
    tokens = load.output_tokens.sum()
    assert (
        high >= (2 * steps + middle.idle_joules) / tokens
        and low <= (0.8 * steps + middle.idle_joules) / tokens
    )


def test_without_errors_nothing_is_between() -> None:
    table = toy_table()
    exact = replace(
        table,
        **{
            name: replace(getattr(table, name), values=getattr(table, name).values * np.array([1, 1, 0]))
            for name in ("linear", "head", "prefill", "decode")
        },
    )
    lengths = TokenLengths.fixed(8)
    found = serve(Service(exact, RULES, blocks=100), closed_loop(2, 30, lengths, lengths), bounds=True)
    assert found.bounds is not None and found.bounds.fast.e2e_s and found.answers.e2e_s
    for side in (found.bounds.fast, found.bounds.slow):
        assert side.e2e_s and side.e2e_s.p99.value == pytest.approx(found.answers.e2e_s.p99.value)
    assert found.bounds.joules_per_output_token == pytest.approx((found.answers.joules_per_output_token,) * 2)


def test_the_greatest_rate_is_bounded_too() -> None:
    lengths = TokenLengths.fixed(8)
    load = synthetic("even", gamma(0.001, 60, 0), lengths, lengths)
    found = serve(Service(banded(), RULES, blocks=100), load, "e2e=2000", rate="max", bounds=True)
    assert found.greatest and found.bounds and found.greatest.rate_per_s
    assert found.bounds.fast_rate_per_s and found.bounds.fast_rate_per_s > found.greatest.rate_per_s
    assert (found.bounds.slow_rate_per_s or 0) < found.greatest.rate_per_s


def test_a_table_without_errors_has_no_bounds() -> None:
    with pytest.raises(UserError, match="a step table without errors has no bounds"):
        bound(FlatTable(), slow=True)
