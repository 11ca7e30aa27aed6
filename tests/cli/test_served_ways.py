"""Many ways to serve: what is done is kept, wherever it was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mtia_emu.cli import served_ways
from mtia_emu.cli.app import main
from mtia_emu.serving.load import Load
from mtia_emu.serving.simulate import Service
from tests.serving.flat import SYNCHRONOUS, load
from tests.serving.tables import toy_table

ASKED: dict[str, Any] = {"slo": None, "rate": None, "bounds": False}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """What is computed, and how often it was."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return {"number": self.times}


def service(**more: Any) -> Service:
    return Service(toy_table(), SYNCHRONOUS, **{"blocks": 100, **more})


def test_a_way_is_computed_once(cache: Path) -> None:
    counted = Counted()
    one = [served_ways.kept_way(service(), load((0.0, 4, 3)), ASKED, counted) for _ in range(2)]
    assert one == [{"number": 1}] * 2
    for file in (cache / "ways").iterdir():
        file.write_bytes(b"not what was written")
    assert served_ways.kept_way(service(), load((0.0, 4, 3)), ASKED, counted) == {"number": 2}


@pytest.mark.parametrize(
    ("changed", "requests", "asked"),
    [
        ({"engines": 2}, load((0.0, 4, 3)), ASKED),
        ({}, load((0.0, 4, 2)), ASKED),
        ({}, load((1.0, 4, 3)), ASKED),
        ({}, load((0.0, 4, 3), concurrency=1), ASKED),
        ({}, load((0.0, 4, 3)), ASKED | {"slo": "ttft=1"}),
    ],
)
def test_another_question_is_another_answer(changed: dict[str, Any], requests: Load, asked: Any) -> None:
    counted = Counted()
    served_ways.kept_way(service(), load((0.0, 4, 3)), ASKED, counted)
    assert served_ways.kept_way(service(**changed), requests, asked, counted) == {"number": 2}


ROOT = Path(__file__).resolve().parents[2]
WAYS = (
    "serve", "toy-decoder", "--table", str(ROOT / "examples" / "step-table.json"), "--requests", "30",
    "--over", "concurrency=1,8", "--json", "-",
)  # fmt: skip


def test_a_dask_cluster_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    here = CliRunner().invoke(main, WAYS, catch_exceptions=False).stdout
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / "other"))
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        there = CliRunner().invoke(
            main, (*WAYS, "--scheduler", cluster.scheduler_address), catch_exceptions=False
        )
    assert there.stdout == here and (tmp_path / "other" / "ways").is_dir()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*WAYS, "--scheduler", "tcp://127.0.0.1:1"), "no dask scheduler answers there"),
        ((*WAYS, "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"), "--workers and --scheduler"),
        ((*WAYS[:6], "--rate", "2", "--scheduler", "tcp://127.0.0.1:1"), "--scheduler is for --over"),
    ],
)
def test_a_cluster_that_is_not_there_is_said(
    words: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(served_ways, "CONNECT_S", 0.2)
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 2 and text in done.stderr
