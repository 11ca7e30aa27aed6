"""Ways to serve, side by side."""

from __future__ import annotations

from pathlib import Path

from mtia_emu.serving.answers_json import as_json
from mtia_emu.serving.arrivals import TokenLengths, closed_loop, gamma, synthetic
from mtia_emu.serving.served import serve
from mtia_emu.serving.simulate import Service
from mtia_emu.serving.trade import ServingWay, columns, front, rows, ways_json, write_ways

from .flat import SYNCHRONOUS, FlatTable

LENGTHS = TokenLengths.fixed(8)


def way(open_at_once: int, step_s: float = 0.1, **more: object) -> ServingWay:
    table = FlatTable(step_s, step_s / 10)
    service = Service(table, SYNCHRONOUS, blocks=1000, **more)  # type: ignore[arg-type]
    served = serve(service, closed_loop(open_at_once, 60, LENGTHS, LENGTHS), "ttft=9")
    return ServingWay({"open": str(open_at_once)}, as_json(served))


def test_a_way_that_another_beats_at_both_is_not_on_the_front() -> None:
    found = [way(1), way(8), way(8, chips=2)]
    assert front(found) == [True, True, False]
    assert [row[1] for row in rows(found)] == ["*", "*", ""]
    assert all(len(row) == len(columns(found)) for row in rows(found))


def test_a_user_of_a_fast_machine_reads_whole_tokens() -> None:
    fast = way(1, 1e-4)
    assert rows([fast])[0][4] == f"{fast.user_rate:,.0f}" and fast.user_rate > 1000


def test_equals_are_both_on_the_front() -> None:
    assert front([way(2), way(2)]) == [True, True]


def test_a_way_without_a_rate_is_on_no_front(tmp_path: Path) -> None:
    service = Service(FlatTable(0.1), SYNCHRONOUS, blocks=1000)  # type: ignore[arg-type]
    none = ServingWay(
        {"rate": "max", "table": "a/none.json"},
        as_json(serve(service, synthetic("x", gamma(1.0, 70, 0), LENGTHS, LENGTHS), "ttft=0.01", rate="max")),
    )
    assert front([none, way(1)]) == [False, True] and rows([none])[0][:4] == ["max", "none", "", "no rate"]
    assert ways_json([none])["ways"][0]["greatest_rate"]["rate_per_s"] is None
    write_ways(tmp_path / "w.html", [none, ServingWay(none.chosen, way(1).value)])
    text = (tmp_path / "w.html").read_text()
    assert "1 of 2 ways" in text and "no rate" in text
