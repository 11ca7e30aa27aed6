"""Recommendation services as files, read without trusting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.ranking import JobTimes, RankingLoad
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
        ("chips = 2", "chip = 2", "chip"),
        ("[256, 1024]", "[1024, 256]", "rise"),
        ("remote_s = [0.0024, 0.006]", "remote_s = [0.0024]", "remote_s is not a time"),
        ("remote_s = [0.0024, 0.006]", "remote_s = [0.0024, nan]", "finite"),
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


def test_an_order_that_is_not_known_is_refused() -> None:
    with pytest.raises(UserError, match=r"order|arrival"):
        read_ranking(EXAMPLE, {"server.order": "newest"})
    with pytest.raises(UserError, match="no table 'nothing'"):
        read_ranking(EXAMPLE, {"nothing.order": 1})
