"""Recommendation services as files, read without trusting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.ranking import JobTimes, RankingJobs, RankingLoad
from mtia_emu.serving.ranking_form import read_ranking

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ranking-2-chips.toml"


def test_the_example_is_a_service() -> None:
    service, load = read_ranking(EXAMPLE)
    assert service.server.chips == len(service.models[0].shards) == 2 and service.slo_s == 0.1
    assert service.models[0].remote_jobs == 2 and load.cv == 0.5
    changed, slower = read_ranking(EXAMPLE, {"model.remote_jobs": 1, "load.rate_per_s": 10.0})
    assert changed.models[0].remote_jobs == 1 and slower.rate_per_s == 10


def test_times_go_on_as_between_the_last_two_sizes() -> None:
    times = JobTimes((10, 20), (1.0, 3.0))
    assert [times(n) for n in (1, 10, 15, 20, 30)] == [1, 1, 2, 3, 5]
    assert JobTimes((10,), (1.0,))(99) == 1


def test_candidates_have_their_mean_and_spread() -> None:
    arrivals, drawn = RankingLoad(50.0, 50_000, 200.0, 0.5).drawn()
    assert drawn.mean() == pytest.approx(200, rel=0.02) and drawn.std() == pytest.approx(100, rel=0.05)
    assert len(arrivals) / arrivals[-1] == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("chips = 2", "chips = 1", "2 shards, its server 1 chips"),
        ("chips = 2", "chips = 0", "server.chips"),
        ("chips = 2", "chip = 2", "unknown key 'server.chip'$|key 'server.chips' is missing"),
        ("share", "shares", r"\.toml: unknown key 'model\.0\.preprocess_shares'$"),
        ("[256, 1024]", "[1024, 256]", "rise"),
        ("remote_s = [0.0024, 0.006]", "remote_s = [0.0024]", "remote_s is not a time"),
        ("remote_s = [0.0024, 0.006]", "remote_s = [0.0024, nan]", "finite"),
        ("remote_s = [0.0024, 0.006]", "graph = 'zoo:x'", "remote_s and merge_s, or a graph and its machine"),
        ("merge_s = [0.0024, 0.006]", "machine = 'm'", "remote_s and merge_s, or a graph and its machine"),
        ("rate_per_s = 800", "rate_per_s = 0", "load.rate_per_s"),
        ("requests = 4000", "requests = 10000000", "load.requests"),
        ("slo_s = 0.1", "slo_s = -1", "slo_s"),
        ("[[model]]", "[model", "not TOML"),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, text: str, tmp_path: Path) -> None:
    good = EXAMPLE.read_text()
    assert old in good
    (tmp_path / "s.toml").write_text(good.replace(old, new))
    with pytest.raises(UserError, match=text):
        read_ranking(tmp_path / "s.toml")


OF_A_GRAPH = Path(__file__).resolve().parents[2] / "examples" / "ranking-mc2.toml"


def test_times_of_a_graph_are_asked_for() -> None:
    def jobs_of(graph: str, machine: str, candidates: tuple[int, ...]) -> RankingJobs:
        assert (graph, machine, candidates) == ("zoo:dlrm-mc2", "mtia-2i", (256, 1024))
        return RankingJobs(*(JobTimes(candidates, (k, 2 * k)) for k in (1.0, 3.0, 5.0)), 100, 50)

    service, _ = read_ranking(OF_A_GRAPH, {}, jobs_of)
    assert service.models[0].remote_s(1024) == 2 and service.models[0].merge_s(256) == 3
    with pytest.raises(UserError, match=r"shard is 0.0 GB, mtia-2i has .* 3 chips or more"):
        read_ranking(OF_A_GRAPH, {"model.shards": [0.6, 0.4]}, jobs_of)
    with pytest.raises(UserError, match=r"'zoo:dlrm-mc2': its jobs are not timed here"):
        read_ranking(OF_A_GRAPH)


def test_an_order_that_is_not_known_is_refused() -> None:
    with pytest.raises(UserError, match=r"order|arrival"):
        read_ranking(EXAMPLE, {"server.order": "newest"})
    with pytest.raises(UserError, match="no table 'nothing'"):
        read_ranking(EXAMPLE, {"nothing.order": 1})
