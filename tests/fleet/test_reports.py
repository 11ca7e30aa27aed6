"""Rates read from the tool's own reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mtia_emu import api
from mtia_emu.cli.app import main
from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.reports import reported
from mtia_emu.results.report_json import as_json

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "fleet-mtia-2i.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a report of a small recommender of batch 64, beside a GPU."""
    outcome = api.run("zoo:dlrm-small", "mtia-2i", dims={"batch": 64}, gpu="h100-sxm")
    path = tmp_path_factory.mktemp("reports")
    (path / "run.json").write_text(json.dumps(as_json(outcome.report, outcome.gpu, None, outcome.basis)))
    return path


def test_a_scenario_takes_rates_from_reports(folder: Path) -> None:
    """Samples a second of both machines from one file; the GPU's band is that of its model."""
    text = EXAMPLE.read_text()
    for device, machine in (("h100-sxm", "gpu"), ("mtia-2i", "chip")):
        head, _, rest = text.partition(f"[work.ranking.on.{device}]\n")
        said = f'report = {{ file = "run.json", units = 64, machine = "{machine}", error_share = 0.2 }}\n'
        text = head + f"[work.ranking.on.{device}]\n" + said + rest.partition("\n")[2]
    (folder / "s.toml").write_text(text)
    found, run = load_scenario(folder / "s.toml"), json.loads((folder / "run.json").read_text())
    rate = found.quantities["work.ranking.on.mtia-2i.per_s"]
    assert rate.value == pytest.approx(64 / run["seconds"]) and rate.status == "computed"
    assert rate.ends == pytest.approx((rate.value / 1.2, rate.value / 0.8))
    assert found.quantities["work.ranking.on.mtia-2i.joules"].value == pytest.approx(run["joules"] / 64)
    gpu = found.quantities["work.ranking.on.h100-sxm.per_s"]
    assert gpu.value == pytest.approx(64 / run["gpu"]["seconds"])


def test_a_gpus_band_is_its_models(folder: Path) -> None:
    asked = {"file": "run.json", "units": 64, "machine": "gpu"}
    band = json.loads((folder / "run.json").read_text())["gpu"]["seconds_band"]
    rate = reported(asked, folder, "x")["per_s"]
    assert rate["value"] / rate["low"] == pytest.approx(band["high"])


@pytest.fixture(scope="module")
def served(folder: Path) -> Path:
    """Return a folder with what `serve` says of two engines, at a rate that keeps a level, and too fast."""
    for name, rate in (("serve.json", "4"), ("fast.json", "400")):
        flags = ["--engines", "2", "--rate", rate, "--requests", "60", "--slo", "ttft=0.5,tpot=0.05"]
        table = ["--table", str(EXAMPLES / "step-table.json"), "--json", str(folder / name)]
        assert CliRunner().invoke(main, ["serve", "toy-decoder", *table, *flags]).exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("counts", "in_all"), [("output tokens", 60 * 128), ("input tokens", 60 * 512), ("requests", 60)]
)
def test_rates_of_requests_served_are_a_chips(served: Path, counts: str, in_all: int) -> None:
    """What all requests come to, over the time and the two chips; joules add up to those of the run."""
    found = reported({"file": "serve.json", "counts": counts, "error_share": 0.2}, served, "x")
    said = json.loads((served / "serve.json").read_text())["answers"]
    rate = found["per_s"]
    assert rate["value"] == pytest.approx(in_all / said["span_s"] / 2)
    assert (rate["low"], rate["high"]) == pytest.approx((rate["value"] / 1.2, rate["value"] / 0.8))
    assert found["joules"]["value"] * in_all == pytest.approx(said["joules"])
    assert "2 chips, 100.0% keep the level" in rate["source"]


def test_joules_that_no_table_knows_are_left_to_watts(served: Path) -> None:
    value = json.loads((served / "serve.json").read_text())
    value["answers"]["joules"] = None
    (served / "dark.json").write_text(json.dumps(value))
    assert set(reported({"file": "dark.json", "counts": "requests", "error_share": 0}, served, "x")) == {
        "per_s"
    }


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"file": "serve.json", "units": 64, "error_share": 0.1},
            "is of requests served (right: beside file",
        ),
        ({"file": "serve.json", "counts": "words", "error_share": 0.1}, 'of "output tokens", "input tokens"'),
        ({"file": "serve.json", "counts": "requests"}, "has no error_share"),
        ({"file": "fast.json", "counts": "requests", "error_share": 0.1}, "requests keep the service level"),
        ({"file": "run.json", "units": 64, "counts": "requests", "error_share": 0.1}, "right: { file ="),
    ],
)
def test_what_was_served_gives_no_other_rate(served: Path, asked: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        reported(asked, served, "x")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("run.json", "right: { file ="),
        ({"file": "run.json"}, "right: { file ="),
        ({"file": "run.json", "units": 64}, "has no error_share"),
        ({"file": "run.json", "units": 0, "error_share": 0.1}, "'units' is 0: right: a number from"),
        ({"file": "run.json", "units": 64, "error_share": 1}, "'error_share' is 1"),
        ({"file": "run.json", "units": 64, "machine": "tpu"}, "has no machine 'tpu'"),
        ({"file": "none.json", "units": 64}, "cannot be read"),
        ({"file": "other.json", "units": 64}, "is no report"),
        ({"file": "nan.json", "units": 64, "error_share": 0.1}, "'seconds' is nan"),
        ({"file": "run.json", "units": 10**400, "error_share": 0.1}, "'units' is 1000"),
    ],
)
def test_what_gives_no_rate_is_refused(folder: Path, asked: Any, words: str) -> None:
    (folder / "other.json").write_text("[]")
    nan = json.loads((folder / "run.json").read_text()) | {"seconds": float("nan")}
    (folder / "nan.json").write_text(json.dumps(nan))
    with pytest.raises(UserError) as caught:
        reported(asked, folder, "x")
    assert words in str(caught.value)
