"""Explanations of whole models: they agree with the report, and with the model run on the changed chip."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import mtia_emu
from mtia_emu.results.bounds import BOUNDS
from mtia_emu.results.explanation import SCHEMA, Explanation, as_json
from mtia_emu.study import explainer

Cli = Callable[..., Result]
MODEL = "zoo:dlrm-small"
DIMS = {"batch": 4}
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "explain-a-model.md"


@pytest.fixture(scope="module")
def done() -> Explanation:
    return mtia_emu.explain(MODEL, "tiny", dims=DIMS)


def test_the_explanation_is_of_the_run(done: Explanation) -> None:
    report = mtia_emu.run(MODEL, "tiny", dims=DIMS, gpu=None).report
    assert done.report == report
    assert [x.layer for x in done.layers] == list(report.layers)
    for x in done.layers:
        assert sum(x.parts.values()) == pytest.approx(x.cycles)
        assert set(x.parts) | set(x.busy) <= set(BOUNDS)
        assert 0 <= x.roof_share <= 1
        assert x.layer.ops >= 2 * x.layer.macs
        if x.layer.bound_by in x.busy:
            assert x.busy[x.layer.bound_by] == max(x.busy.values()) >= 0.5
    assert sum(done.seconds_by_part.values()) == pytest.approx(report.seconds)


def test_steps_are_judged_by_the_model_on_the_changed_chip(done: Explanation) -> None:
    assert done.effects is not None and not any(e.refused for e in done.effects)
    by_key = {e.step.key: e for e in done.effects}
    for key in (
        "dram.channels",
        "grid.cols",
        "clock_hz",
        "sram.bytes",
        "energy.leakage_w_per_mm2",
        "pe.matrix.rows",
    ):
        e = by_key[key]
        settings = {key: e.step.new}
        other = mtia_emu.run(MODEL, "tiny", dims=DIMS, settings=settings, gpu=None).report
        if e.step.kind != "retimed":
            assert e.seconds_change == pytest.approx(other.seconds / done.report.seconds - 1), key
            assert e.joules_change == pytest.approx(other.joules / done.report.joules - 1), key


def test_equal_calls_give_equal_explanations(done: Explanation) -> None:
    assert mtia_emu.explain(MODEL, "tiny", dims=DIMS) == done


def test_a_step_to_no_chip_says_why(monkeypatch: pytest.MonkeyPatch, done: Explanation) -> None:
    assert done.effects is not None
    wrong = [replace(e.step, new=-1) for e in done.effects if e.step.key in ("sram.bytes", "clock_hz")]
    monkeypatch.setattr(explainer, "steps", lambda *_: wrong)
    found = mtia_emu.explain(MODEL, "tiny", dims=DIMS).effects
    assert found is not None and len(found) == 2
    assert all(e.step.key in e.refused and e.seconds_change == 0 for e in found)


def test_a_program_is_only_retimed(done: Explanation) -> None:
    program = mtia_emu.compile_model(MODEL, "tiny", dims=DIMS)
    again = mtia_emu.explain(program)
    assert again.effects is not None and done.effects is not None
    assert {e.step.kind for e in again.effects} == {"repriced", "retimed"}
    assert "grid.rows" in again.left_out and "dram.channels" not in again.left_out
    assert len(again.effects) + len(again.left_out) == len(done.effects)
    assert again.effects == tuple(e for e in done.effects if e.step.kind != "recompiled")


def keys(value: Any) -> set[str]:
    """Return every key of nested JSON, but those of objects whose keys are names or dimensions."""
    if isinstance(value, list):
        return {key for x in value for key in keys(x)}
    if not isinstance(value, dict):
        return set()
    named = ("dims", "seconds_by_part", "busy")
    return set(value) | {k for key, x in value.items() if key not in named for k in keys(x)}


def test_every_key_of_the_json_is_documented(done: Explanation) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {key for key in keys(as_json(done)) if f"`{key}`" not in page} == set()
    assert f"`{SCHEMA}`" in page


def test_the_command(cli: Cli, tmp_path: Path, done: Explanation) -> None:
    words = ("explain", MODEL, "--chip", "tiny", "--dim", "batch=4")
    result = cli(*words, "--json", tmp_path / "e.json", "--roofline", tmp_path / "r.svg", "--layers", 3)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "e.json").read_text()) == json.loads(json.dumps(as_json(done)))
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    for title in ("Where the time went", "Layers", "Roofline", "What would change the time", "the energy"):
        assert title in result.stdout
    only = json.loads(cli(*words, "--no-what-if", "--json", "-").stdout)
    assert only["effects"] is None and only["layers"]


def test_a_compiled_program_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    cli("compile", MODEL, "--chip", "tiny", "--dim", "batch=4", "-o", tmp_path / "m.mtia")
    assert "cannot be compiled anew: grid.rows" in " ".join(
        cli("explain", tmp_path / "m.mtia").stdout.split()
    )


def test_what_is_wrong_is_refused(refused: Any, tmp_path: Path) -> None:
    assert "did you mean" in refused("explain", "zoo:dlrm-smal")
    assert "unknown key" in refused("explain", MODEL, "--set", "dram.chanels=3")
    assert "does not exist" in refused("explain", MODEL, "--json", tmp_path / "none" / "e.json")


def test_a_chip_at_its_limit_of_power_is_explained_at_the_clock_that_it_keeps() -> None:
    """Prices that fall buy clock; each step is what a run on the changed chip says."""
    limited = {"tdp_w": 26.0}
    found = mtia_emu.explain(MODEL, "mtia-2i", dims=DIMS, settings=limited)
    assert found.report == mtia_emu.run(MODEL, "mtia-2i", dims=DIMS, settings=limited, gpu=None).report
    assert found.report.power is not None and found.report.power.slowed
    assert sum(found.seconds_by_part.values()) == pytest.approx(found.report.seconds)
    assert all(x.roof_share <= 1 for x in found.layers)
    by_key = {e.step.key: e for e in found.effects or ()}
    for key in ("tdp_w", "energy.voltage_v", "energy.temperature_c"):
        e = by_key[key]
        other = mtia_emu.run(
            MODEL, "mtia-2i", dims=DIMS, settings=limited | {key: e.step.new}, gpu=None
        ).report
        assert (
            e.seconds_change == pytest.approx(other.seconds / found.report.seconds - 1)
            and e.seconds_change < 0
        )
        assert e.joules_change == pytest.approx(other.joules / found.report.joules - 1)
