"""The command that serves recommendation requests."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mtia_emu.cli.app import main

EXAMPLE = str(Path(__file__).resolve().parents[2] / "examples" / "ranking-2-chips.toml")
QUICK = (EXAMPLE, "--set", "load.requests=400")


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["rank", *words], catch_exceptions=False)


def test_a_run_is_printed_and_written(tmp_path: Path) -> None:
    shown = cli(*QUICK, "--json", str(tmp_path / "r.json")).output
    value = json.loads((tmp_path / "r.json").read_text())
    assert value == json.loads(cli(*QUICK, "--json", "-").output)
    assert "P99" in shown and "ranking" in shown and value["models"][0]["requests"] == 400
    assert value["p50_s"] < value["p90_s"] < value["p99_s"]


def test_a_rate_is_given_or_found() -> None:
    slow = json.loads(cli(*QUICK, "--rate", "10", "--json", "-").output)
    most = json.loads(cli(*QUICK, "--rate", "max", "--json", "-").output)
    assert slow["rate_per_s"] == 10 < most["rate_per_s"] and most["kept"]


def test_times_are_those_of_a_model_on_a_machine() -> None:
    """The larger chip answers sooner; nothing of the file says how long a job takes."""
    own = str(Path(EXAMPLE).with_name("ranking-mc2.toml"))
    small = ("--set", 'model.graph="zoo:dlrm-small"', "--set", "model.candidates=[64]", *QUICK[1:])
    found = {
        name: json.loads(cli(own, *small, "--set", f'model.machine="{name}"', "--json", "-").output)
        for name in ("mtia-1", "h100-sxm")
    }
    assert found["h100-sxm"]["chips_busy_share"] < found["mtia-1"]["chips_busy_share"]
    done = cli(own, "--set", 'model.machine="nothing"')
    assert done.exit_code == 2 and "nothing" in done.stderr


def test_what_is_wrong_is_said() -> None:
    for words, text in [
        ((EXAMPLE, "--rate", "nan"), "--rate"),
        ((EXAMPLE, "--rate", "-1"), "--rate"),
        ((EXAMPLE, "--set", "x"), "KEY=VALUE"),
        ((EXAMPLE, "--set", "model.remote_jobs=0"), "remote_jobs"),
        ((EXAMPLE, "--set", "model.remote_jobs=]"), "not TOML"),
        (("none.toml",), "not a file"),
    ]:
        done = cli(*words)
        assert done.exit_code == 2 and text in done.stderr
