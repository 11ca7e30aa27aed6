"""Plans: by hand, against every choice tried, dual values against differences, and laws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.cli.app import main
from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.model import Values
from mtia_emu.fleet.plan import QUARTERS, FleetPlan, agreeing_means, as_json, plan
from mtia_emu.fleet.plan_problem import LIMITS, Problem, left_of_installed, solve

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-plan.toml"
NONE = dict.fromkeys(LIMITS, np.inf)


def problem(demand: list[float], **changes: object) -> Problem:
    """Return a plan of one work, a bought device of rate 1 and an own one of rate 2, life 4."""
    steps = len(demand)
    even = np.ones((2, steps))
    base = Problem(
        devices=("gpu", "own"), works=("w",), demand=np.array([demand]), rates=np.array([[1.0, 2.0]]),
        is_own=np.array([False, True]), life=4, capital_usd=40 * even, held_usd=even * [[10.0], [12.0]],
        run_usd=even * [[2.0], [3.0]], power_mw=even, discount=np.ones(steps), ready=np.array([0, 2]),
        design_usd=np.array([0.0, 100.0]), wafers=np.array([0.0, 0.1]), supply=np.full(2, np.inf),
        installed=np.zeros(2), limits=NONE,
    )  # fmt: skip
    return replace(base, **changes)


def test_one_device_worked_by_hand() -> None:
    """Ten devices for four steps: 10 x (10 + 2) x 4; a design of 100 for what is left does not pay."""
    found = solve(problem([10] * 4, design_usd=np.array([0.0, 1e6])))
    assert found.cost_usd == pytest.approx(480) and not found.designed.any()
    assert found.bought[0].tolist() == pytest.approx([10, 0, 0, 0])


def test_an_own_device_is_designed_where_it_pays_and_not_before_it_is_ready() -> None:
    """200 more from step 2 on: 200 GPUs cost 12 a step, 100 own ones 15; 100 for the design."""
    found = solve(problem([0, 0, 200, 200]))
    assert found.designed.tolist() == [False, True]
    assert found.bought[1].tolist() == pytest.approx([0, 0, 100, 0])
    assert found.cost_usd == pytest.approx(100 + 100 * 2 * 15)
    early = solve(problem([200, 200, 200, 200]))
    assert early.bought[1, :2].sum() == 0


@given(st.lists(st.floats(1, 300), min_size=4, max_size=6), st.floats(0, 3000))
@settings(max_examples=12)
def test_the_choice_of_a_design_is_the_better_of_both(demand: list[float], design: float) -> None:
    whole = problem(demand, design_usd=np.array([0.0, design]))
    both = [solve(whole, designed=np.array([False, yes])).cost_usd for yes in (False, True)]
    assert solve(whole).cost_usd == pytest.approx(min(both), rel=2e-4)


@given(st.lists(st.floats(1, 300), min_size=3, max_size=5), st.floats(0.5, 1.0))
@settings(max_examples=12)
def test_power_is_worth_what_one_more_saves(demand: list[float], part: float) -> None:
    """A dual value is the slope of the cost: it lies between the differences on both sides."""
    free = problem(demand, design_usd=np.array([0.0, 0.0]), ready=np.array([0, 0]))
    most = float(solve(free).used["power"].max())
    chosen = np.array([False, True])

    def at(limit: float) -> float:
        return solve(replace(free, limits={**NONE, "power": limit}), designed=chosen).cost_usd

    limit = max(part * most, 0.51 * max(demand))
    dual = float(solve(replace(free, limits={**NONE, "power": limit}), designed=chosen).duals["power"].sum())
    step = 1e-3 * limit
    more, less = (at(limit) - at(limit + step)) / step, (at(limit - step) - at(limit)) / step
    slack = 1e-6 * max(abs(less), 1.0) + 1e-4
    assert more - slack <= dual <= less + slack


@given(st.floats(0.6, 2), st.floats(1, 2))
@settings(max_examples=10)
def test_a_looser_limit_never_costs_more(part: float, more: float) -> None:
    whole = problem([50, 80, 120, 160])
    costs = [solve(replace(whole, limits={**NONE, "power": 100 * p})).cost_usd for p in (part, part * more)]
    assert costs[1] <= costs[0] * (1 + 1e-4)


def test_what_is_served_is_asked_for_and_owned() -> None:
    whole = problem([50, 80, 120, 60, 60, 200], installed=np.array([60.0, 0.0]))
    found = solve(whole)
    served = np.einsum("wd,wdt->wt", whole.rates, found.placed)
    assert (served >= whole.demand - 1e-6).all() and found.shortage.max() < 1e-9
    assert (found.serving <= found.owned + 1e-6).all()
    assert left_of_installed(whole)[0].tolist() == [60, 45, 30, 15, 0, 0]


def test_supply_and_wafers_are_kept() -> None:
    limits = {**NONE, "wafers": 3.0}
    found = solve(problem([0, 0, 200, 200, 200], limits=limits, supply=np.array([150.0, np.inf])))
    assert (found.used["wafers"] <= 3 + 1e-9).all() and (found.bought[0] <= 150 + 1e-9).all()


@pytest.fixture(scope="module")
def found() -> FleetPlan:
    """Return the example's plan."""
    scenario = load_scenario(EXAMPLE)
    return plan(scenario, agreeing_means(scenario))


def test_the_example_keeps_its_limits(found: FleetPlan) -> None:
    assert len(found.steps) == 8 * QUARTERS and found.designed == ("mtia-2i",)
    assert max(x.provisioned_mw for x in found.steps) <= 400 * (1 + 1e-9)
    assert found.bought_only_usd > found.cost_usd and found.month_usd > 0
    power = next(x for x in found.prices if x.limit == "power")
    assert power.usd > 0 and power.binding_quarters > 0
    first = next(x.quarter for x in found.steps if x.bought["mtia-2i"] > 0)
    assert first > 12  # a programme of more than three years


def test_the_inputs_are_those_that_agree() -> None:
    scenario = load_scenario(EXAMPLE)
    means = agreeing_means(scenario)
    at, central = Values(scenario, means), Values(scenario, {})
    key = "work.ranking.on.mtia-2i.per_s"
    assert at(key) < central(key) and set(means) == set(scenario.varied)


def test_what_cannot_be_is_refused() -> None:
    for setting, value, words in (
        ("plan.power_mw", 50, "'ranking' falls short by .* raise a limit"),
        ("plan.supply_per_year.h200", {"value": 1, "source": "x", "status": "chosen"}, "no such device"),
        ("plan.installed.h100-sxm", -5, "is -5: right: from 0 to"),
        ("plan.years", 40, "less than or equal to 12"),
    ):
        with pytest.raises(UserError, match=words):
            plan(load_scenario(EXAMPLE, {setting: value}))
    with pytest.raises(UserError, match=r"has no \[plan\]"):
        plan(load_scenario(EXAMPLE.with_name("fleet-h100.toml")))


def test_the_command_prints_and_writes(found: FleetPlan) -> None:
    done = CliRunner().invoke(main, ["plan", str(EXAMPLE)], catch_exceptions=False)
    for words in ("serving at its end", "MW for a year", "own devices a month earlier", "designed: mtia-2i"):
        assert words in done.output
    value = json.loads(json.dumps(as_json(found)))
    assert value["format"] == "mtia-emu plan 1" and len(value["steps"]) == 32
