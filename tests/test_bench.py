"""The page of `make bench`: a miss is printed as one, a part that was never measured is named as such."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bench
from bench_page import Aim, Part, Table, keep, kept, page
from bench_process import Job, cost, medians

TABLE = Table("Times", ("command", "time"), (("a | b", "1.00 s"),), ("A note.",))
PART = Part("2 cores", (TABLE,), (Aim("gemm", 1.0, 0.99), Aim("rate", 5.0, 3.1, "points/s", least=True)))


def test_a_part_is_kept_as_it_was_found(tmp_path: Path) -> None:
    keep(PART, tmp_path / "new" / "part.json")
    assert kept(tmp_path / "new" / "part.json") == PART


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": "", "tables": 3, "aims": []}'])
def test_what_is_no_part_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "part.json").write_text(text)
    assert kept(tmp_path / "part.json") is None
    assert kept(tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim("x", 2.0, 2.0), True),
        (Aim("x", 2.0, 2.1), False),
        (Aim("x", 2.0, 2.0, least=True), True),
        (Aim("x", 2.0, 1.9, least=True), False),
    ],
)
def test_an_aim_is_met_on_its_own_side(aim: Aim, met: bool) -> None:
    assert aim.met == met
    assert aim.row()[-1] == ("yes" if met else "**no**")


def test_the_page_has_every_table_and_counts_what_is_reached() -> None:
    text = page({"questions": PART, "zoo": None}, "import numpy")
    assert "## What was aimed at: 1 of 2 reached" in text
    assert "| rate | at least 5 points/s | 3.1 points/s | **no** |" in text
    assert "| a \\| b | 1.00 s |" in text and "A note." in text
    assert "Not measured yet: `make bench PART=zoo`." in text


def test_a_process_costs_time_and_memory_and_says_why_it_fails() -> None:
    busy = Job((sys.executable, "-c", "sum(range(10**6))"), ())
    found = medians({"busy": busy}, runs=1)["busy"]
    assert found.cpu_s > 0 and found.wall_s > 0 and found.memory_bytes > 1 << 20
    with pytest.raises(RuntimeError, match="no such thing"):
        cost(Job((sys.executable, "-c", "raise SystemExit('no such thing')"), ()))


def test_parts_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["nothing"])
    assert stopped.value.code == 2 and "right: questions" in capsys.readouterr().err
