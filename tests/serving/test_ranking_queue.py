"""Recommendation services: closed forms of queues, and what decides a request's latency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.ranking import JobTimes, RankingLoad, RankingModel, RankingServer, RankingService
from mtia_emu.serving.ranking_queue import greatest_ranking_rate, serve_ranking, with_model

ONE_S = JobTimes((1,), (1.0,))
NOTHING = JobTimes((1,), (0.0,))


def service(chips: int = 1, hop_s: float = 0.0, order: str = "arrival", **model: object) -> RankingService:
    """Return a service of one model whose window holds one request, a merge job of a second."""
    base = RankingModel("m", 1.0, NOTHING, ONE_S, most_candidates=1)
    one = replace(base, **model)  # type: ignore[arg-type]
    return RankingService(RankingServer(chips, order, hop_s), (one,), 10.0)


def load(rate: float, requests: int = 20_000, **more: object) -> RankingLoad:
    return RankingLoad(rate, requests, 1.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_one_job_a_request_waits_as_m_d_1(share: float) -> None:
    run = serve_ranking(service(), load(share, 60_000))
    waited = share / (2 * (1 - share))  # Pollaczek and Khinchine, service of one second
    assert run.latencies_s.mean() - 1 == pytest.approx(waited, rel=0.08)
    assert run.busy_share[0] == pytest.approx(share, rel=0.02)


def test_littles_law_holds() -> None:
    run = serve_ranking(service(remote_s=ONE_S, chips=2, shards=(1.0, 1.0)), load(0.4))
    ends = run.arrivals_s + run.latencies_s
    at = np.linspace(run.arrivals_s[100], run.arrivals_s[-100], 20_000)
    inside = np.searchsorted(run.arrivals_s, at) - np.searchsorted(np.sort(ends), at)
    rate = len(ends) / run.arrivals_s[-1]
    assert inside.mean() == pytest.approx(rate * run.latencies_s.mean(), rel=0.05)


def test_alone_a_request_takes_its_jobs_and_hops() -> None:
    jobs = service(3, 0.25, remote_s=ONE_S, remote_jobs=2, shards=(1.0, 1.5, 0.5), window_s=4.0)
    run = serve_ranking(jobs, load(1e-4, 200))
    assert run.latencies_s == pytest.approx(4 * 0.25 + 2 * 0.75 + 1)  # the slowest shard decides
    at_once = serve_ranking(with_model(jobs, in_turn=False), load(1e-4, 200))
    assert at_once.latencies_s == pytest.approx(3 * 0.25 + 2 * 0.75 + 1)


def test_a_window_waits_for_its_time_or_until_it_is_full() -> None:
    wide = service(window_s=5.0, most_candidates=4)
    alone = serve_ranking(wide, load(1e-4, 200))
    assert alone.latencies_s == pytest.approx(6.0) and alone.fill == pytest.approx(0.25)
    full = serve_ranking(wide, load(100.0, 400))
    assert full.batches == 100 and full.fill == 1.0


def test_only_so_many_windows_run_at_once() -> None:
    hops = service(chips=1, hop_s=1.0, merge_s=NOTHING)
    free = serve_ranking(hops, load(10.0, 1000))
    one = serve_ranking(with_model(hops, most_windows=1), load(10.0, 1000))
    assert free.latencies_s == pytest.approx(3.0)
    assert one.requests_per_s == pytest.approx(1 / 3, rel=0.01)


def test_cold_caches_and_transfers_and_preprocessing_take_their_time() -> None:
    cold = service(remote_s=NOTHING, cold_remote_s=ONE_S, cold_batches=5)
    run = serve_ranking(cold, load(1e-4, 200))
    assert run.latencies_s[:5] == pytest.approx(2.0) and run.latencies_s[5:] == pytest.approx(1.0)
    server = RankingServer(2, cores=1, host_bytes_per_s=8.0, network_bytes_per_s=4.0)
    model = replace(cold.models[0], shards=(1.0, 1.0), cold_batches=0, preprocess_share=0.5)
    moved = RankingService(server, (replace(model, input_bytes=2.0, pooled_bytes=1.0),), 10.0)
    assert serve_ranking(moved, load(1e-4, 200)).latencies_s == pytest.approx(0.5 + 0.25 + 0.25 + 1)


def test_models_of_a_server_share_its_host_memory() -> None:
    alone = replace(service(), server=RankingServer(2, host_bytes_per_s=1.0))
    one = replace(alone.models[0], input_bytes=1.0, merge_s=NOTHING)
    two = replace(alone, models=(one, replace(one, name="other")))
    both = serve_ranking(two, load(0.8, 20_000))
    assert both.host_share == pytest.approx(0.8, rel=0.05)
    assert set(both.model) == {0, 1}
    assert both.quantile(0.5, 1) == pytest.approx(both.quantile(0.5, 0), rel=0.1)


def test_one_remote_job_in_place_of_two_shortens_the_tail() -> None:
    twice = service(2, 0.25, remote_s=ONE_S, remote_jobs=2, shards=(1.0, 1.0), most_windows=2)
    before = serve_ranking(twice, load(0.5))
    after = serve_ranking(with_model(twice, remote_jobs=1), load(0.5))
    assert after.busy_share == pytest.approx(before.busy_share, rel=0.02)  # the same work on the chips
    assert after.quantile(0.99) < 0.9 * before.quantile(0.99)


def test_the_oldest_batch_goes_first_where_that_is_asked_for() -> None:
    busy = service(2, remote_s=ONE_S, shards=(1.0, 1.0))
    oldest = replace(busy, server=replace(busy.server, order="oldest"))
    one, other = serve_ranking(busy, load(0.62)), serve_ranking(oldest, load(0.62))
    assert other.quantile(0.99) != one.quantile(0.99)
    assert other.busy_share == pytest.approx(one.busy_share, rel=0.02)


def test_the_greatest_rate_keeps_the_promise_and_a_higher_one_breaks_it() -> None:
    promised = replace(service(), slo_s=5.0)
    rate, run = greatest_ranking_rate(promised, load(1.0, 4000))
    assert run.quantile(0.99) <= 5.0
    assert serve_ranking(promised, load(rate * 1.05, 4000)).quantile(0.99) > 5.0
    with pytest.raises(UserError, match="no rate keeps"):
        greatest_ranking_rate(replace(service(), slo_s=0.5), load(1.0, 500))


def test_the_same_seed_is_the_same_run() -> None:
    jobs = service(2, 0.1, remote_s=ONE_S, shards=(1.0, 1.0))
    one, two = serve_ranking(jobs, load(0.5, 500, cv=0.5)), serve_ranking(jobs, load(0.5, 500, cv=0.5))
    assert one.latencies_s.tolist() == two.latencies_s.tolist()
    other = serve_ranking(jobs, load(0.5, 500, cv=0.5, seed=1))
    assert one.latencies_s.tolist() != other.latencies_s.tolist()
