"""What a run says, worked out by hand, and against every token of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mtia_emu.serving.answers import answers, inter_token
from mtia_emu.serving.arrivals import TokenLengths, poisson, synthetic
from mtia_emu.serving.simulate import Service, simulate
from mtia_emu.serving.slo import ServiceLevel

from .flat import SYNCHRONOUS, FlatTable, load


def test_two_requests_by_hand() -> None:
    # steps of 1 s: [0, 1) prompt of 0; [1, 2) 0 decodes, prompt of 1; [2, 3) 1 decodes; [9, 10)
    made = load((0.0, 16, 2), (0.5, 16, 2), (9.0, 16, 1))
    log = simulate(Service(FlatTable(), SYNCHRONOUS, blocks=10, chips=2), made)  # type: ignore[arg-type]
    found = answers(log, ServiceLevel(ttft=1.2, share=0.5))
    assert (found.requests, found.span_s, found.steps, found.chips) == (3, 10.0, 4, 2)
    assert found.ttft_s is not None and found.ttft_s.mean.value == pytest.approx((1 + 1.5 + 1) / 3)
    assert found.tpot_s is not None and found.tpot_s.count == 2 and found.tpot_s.p99.value == 1.0
    assert found.output_tokens_per_s == 0.5 and found.output_tokens_per_s_per_chip == 0.25
    assert found.input_tokens_per_s == 4.8 and found.output_tokens_per_s_per_user == 1.0
    assert found.utilisation == 0.4 and found.idle_joules == 6 * 2.0 and found.joules == 4 * 10 + 12
    assert found.joules_per_output_token == 52 / 5
    assert found.fullness.mean_decoding == 0.2
    # blocks after each step was put together: 1, 2 + 1 (both need a second), 2, 1
    assert found.fullness.cache_most == 0.3 and found.fullness.cache_mean == pytest.approx(
        (1 + 3 + 2 + 1) / 10 / 10
    )
    assert found.kept_share == pytest.approx(2 / 3) and found.goodput_per_s == pytest.approx(0.2)
    assert found.keeps_level is True
    assert answers(log).keeps_level is None


def test_joules_that_a_table_does_not_know_are_not_made_up() -> None:
    table = FlatTable(watts=float("nan"))
    found = answers(simulate(Service(table, SYNCHRONOUS, blocks=10), load((0.0, 1, 1))))  # type: ignore[arg-type]
    assert found.joules is None and found.joules_per_output_token is None
    assert found.tpot_s is None and found.output_tokens_per_s_per_user is None and found.itl_s is None


def test_gaps_between_tokens_are_those_of_every_request() -> None:
    lengths = TokenLengths(np.array([4, 40]), np.ones(2))
    made = synthetic("x", poisson(2.0, 150, 1), lengths, lengths, 1)
    table, rules = FlatTable(0.05, 0.001), replace(SYNCHRONOUS, max_sequences=8)
    log = simulate(Service(table, rules, blocks=12, engines=2), made)  # type: ignore[arg-type]
    assert log.preemptions.sum() > 0
    values, weights = inter_token(log)
    every = np.concatenate([np.diff(log.token_times(n)) for n in range(len(made))])
    assert weights.sum() == len(every) and (values * weights).sum() == pytest.approx(every.sum())
    assert np.allclose(np.sort(np.repeat(values, weights.astype(int))), np.sort(every))


@pytest.mark.parametrize(("gap_s", "outrun"), [(3.0, False), (1.2, False), (0.5, True)])
def test_a_rate_that_is_never_served_is_seen(gap_s: float, outrun: bool) -> None:
    """A request of one token takes a second, one after another."""
    rules = replace(SYNCHRONOUS, max_sequences=1)
    service = Service(FlatTable(1.0), rules, blocks=100)  # type: ignore[arg-type]
    found = answers(simulate(service, load(*((gap_s * n, 4, 1) for n in range(50)))))
    assert found.is_outrun is outrun
    assert found.last_taken_up_s == pytest.approx(max(49 * (1 - gap_s), 0))
