"""A design point as a fleet: its columns are what the fleet's model says of the same numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.model import evaluate
from mtia_emu.fleet.programme import programme
from mtia_emu.machine.chip import load_chip
from mtia_emu.silicon import area
from mtia_emu.silicon.estimate import estimate
from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.row import OK, Row, columns, record
from mtia_emu.sweeps.space import Space
from mtia_emu.sweeps.spec import FLEET_OBJECTIVES, make_spec
from mtia_emu.sweeps.study import ParameterMove, Study

SCENARIO = str(Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml")
FLEET = {"scenario": SCENARIO, "option": "own", "work": {"product": {"work": "ranking", "units": 64.0}}}
CHIP = {
    "chip": "mtia-2i",
    "set": {"dram.channels": [8, 16]},
    "constraints": [],
    "gpu": "none",
    "fleet": FLEET,
}


def test_a_points_columns_are_its_fleets(make: Any) -> None:
    """Every number set by hand on the scenario, from a run's report and the chip's silicon."""
    spec = make(**CHIP, objectives=["tco_per_year", "mw", "tco2e", "dollars_per_million_tokens"])
    evaluator = Evaluator(make_job(spec))
    for point in Space(spec):
        row = evaluator.row(point)
        assert row.status == OK and set(record(row, spec)) == set(columns(spec))
        chip = load_chip("mtia-2i", point.params)
        seconds, joules = row.metrics["product.seconds"], row.metrics["product.joules"]
        silicon = estimate("mtia-2i", point.params).costs[1]
        key, on = "device.mtia-2i.", "work.ranking.on.mtia-2i."
        by_hand = evaluate(
            load_scenario(SCENARIO),
            "own",
            {
                key + "die_mm2": area(chip).total_mm2,
                key + "package_test_usd": silicon.package_test_usd,
                key + "memory_gb": chip.dram.bytes / 1e9,
                key + "device_busy_w": joules / seconds,
                on + "per_s": 64 / seconds,
                on + "joules": joules / 64,
            },
        )
        assert row.metrics["tco_per_year"] == pytest.approx(by_hand.usd_per_year)
        assert row.metrics["mw"] == pytest.approx(by_hand.meter_w / 1e6)
        assert row.metrics["tco2e"] == pytest.approx(by_hand.sum_of("carbon.total_kg") / 1e3)
        million = by_hand.usd_per_million("ranking")
        assert row.metrics["dollars_per_million_tokens"] == pytest.approx(million)


def test_net_present_value_is_an_objective(make: Any) -> None:
    """That of the programme with each of the point's numbers set by hand."""
    spec = make(**CHIP, objectives=["npv_usd"])
    evaluator = Evaluator(make_job(spec))
    rows = [evaluator.row(point) for point in Space(spec)]
    scenario, key = load_scenario(SCENARIO), "device.mtia-2i."
    for row in rows:
        chip = load_chip("mtia-2i", row.params)
        seconds, joules = row.metrics["product.seconds"], row.metrics["product.joules"]
        numbers = {
            key + "die_mm2": area(chip).total_mm2,
            key + "package_test_usd": estimate("mtia-2i", row.params).costs[1].package_test_usd,
            key + "memory_gb": chip.dram.bytes / 1e9,
            key + "device_busy_w": joules / seconds,
            "work.ranking.on.mtia-2i.per_s": 64 / seconds,
            "work.ranking.on.mtia-2i.joules": joules / 64,
        }
        by_hand = float(programme(scenario, "own", numbers).npv_usd())
        assert row.metrics["npv_usd"] == pytest.approx(by_hand)


def test_what_each_parameter_moves_is_a_difference_of_means() -> None:
    """Of a value that may be below 0, the widest first; its variance is its own, not its logarithm's."""
    spec = make_spec(
        {
            "model": [{"model": "zoo:dlrm-small"}],
            "chip": "mtia-2i",
            "objectives": ["npv_usd"],
            "set": {"dram.channels": [8, 16], "grid.rows": [4, 8]},
            "fleet": FLEET | {"work": {"dlrm-small": {"work": "ranking", "units": 1.0}}},
        }
    )
    good = [
        Row(8 * a + 2 * b, {"dram.channels": a, "grid.rows": b}, OK, "", {"npv_usd": value})
        for a, b, value in ((8, 4, -3e8), (8, 8, -1e8), (16, 4, 1e8), (16, 8, 2e8))
    ]
    study = Study(spec, "", Counter(), good, [], good[0], {}, {})
    first, second = study.moves("npv_usd")
    assert first == ParameterMove("dram.channels", 8, 16, pytest.approx(-2e8), pytest.approx(1.5e8))
    assert second == ParameterMove("grid.rows", 4, 8, pytest.approx(-1e8), pytest.approx(5e7))
    shares = study.sensitivity("npv_usd")
    assert shares["dram.channels"] > 0.7 > 0.1 > shares["grid.rows"]


def test_a_value_needs_a_programme(make: Any, tmp_path: Path) -> None:
    text = Path(SCENARIO).read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("[programme]", "compared_at"))]
    (tmp_path / "s.toml").write_text("\n".join(lines))
    fleet = FLEET | {"scenario": str(tmp_path / "s.toml")}
    with pytest.raises(UserError, match=r"'npv_usd' is of a programme \(right: \[programme\] in"):
        make_job(make(**CHIP | {"fleet": fleet}, objectives=["npv_usd"]))
    row = Evaluator(job := make_job(make(**CHIP | {"fleet": fleet}))).row(next(iter(Space(job.spec))))
    assert row.metrics["npv_usd"] is None and row.metrics["mw"] > 0


def test_a_sweep_without_a_fleet_has_no_such_columns(make: Any) -> None:
    assert not set(FLEET_OBJECTIVES) & set(columns(make()))
    with pytest.raises(UserError, match=r"objective 'mw' is of a fleet \(right: with a table \[fleet\]\)"):
        make(objectives=["mw"])


def test_a_fleet_that_cannot_be_built_fails_its_point(make: Any) -> None:
    spec = make(
        **(
            CHIP
            | {"set": {"dram.channels": [16]}, "silicon": {"node.5.defects_per_cm2": 1e5}, "fleet": FLEET}
        )
    )
    row = Evaluator(make_job(spec)).row(next(iter(Space(spec))))
    assert row.status == "failed" and "no good die" in row.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"option": "both"}, "fleet.option is 'both' (known: gpu, own)"),
        ({"option": "gpu"}, "'gpu' is not one own device"),
        ({"work": {"other": {"work": "ranking", "units": 1.0}}}, "sweep: fleet.work has no model 'other'"),
        ({"work": {"product": {"work": "rank", "units": 1.0}}}, "fleet.work.product.work is 'rank'"),
        ({"scenario": "none.toml"}, "scenario none.toml is not a file"),
    ],
)
def test_a_fleet_that_does_not_fit_is_refused_before_work(make: Any, change: Any, words: str) -> None:
    spec = make(**(CHIP | {"fleet": FLEET | change}))
    with pytest.raises(UserError) as caught:
        make_job(spec)
    assert words in str(caught.value)
