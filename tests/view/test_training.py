"""A training step on a terminal and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

import mtia_emu
from mtia_emu.files.writing import json_text
from mtia_emu.results.training import Training
from mtia_emu.results.whole_run import Stops, WholeRun
from mtia_emu.view.training import print_training, training_json


@pytest.fixture(scope="module")
def training() -> Training:
    dims = {"batch": 2}
    return mtia_emu.train(
        "zoo:dlrm-small", "tiny", loss="bce", steps=2, check=True, dims=dims, optimizer="adagrad"
    )


def shown(training: Training, width: int = 100) -> str:
    out = io.StringIO()
    print_training(training, Console(file=out, width=width), layers=3)
    return out.getvalue()


def test_what_is_printed(training: Training) -> None:
    text = shown(training)
    for words in (
        "MFU",
        "HFU",
        "forward",
        "backward",
        "optimizer",
        "weights",
        "Longest layers  3 of",
        "passed: largest",
    ):
        assert words in text
    assert "samples a second" in text and "chip / GPU" in text


def test_a_narrow_terminal_is_kept_to(training: Training) -> None:
    assert all(len(line) <= 60 for line in shown(training, 60).splitlines())


def test_long_names_of_machines_leave_room_for_what_is_compared(training: Training) -> None:
    assert training.gpu is not None
    machines = [replace(x, machine="a-server-of-many (dp=2,tp=2)") for x in (training.report, training.gpu)]
    text = shown(replace(training, report=machines[0], gpu=machines[1]), 60)
    lines = text[text.index("Beside the GPU") :].splitlines()
    assert any(line.startswith("  samples") for line in lines)
    assert sum("(dp=2,tp=2)" in line for line in lines) == 1 and "…" not in "".join(lines[:9])


def test_the_json_holds_the_report_and_the_training(training: Training) -> None:
    value = json.loads(json_text(training_json(training)))
    assert value["schema"].startswith("mtia-emu.report") and value["gpu"]
    own = value["training"]
    assert own["mfu"] == pytest.approx(training.mfu) and own["losses"]["passed"]
    assert own["peak_bytes"]["total"] == training.memory.total


def test_the_whole_training_is_printed_where_it_was_asked_for(training: Training) -> None:
    assert "The whole training" not in shown(training) and "whole" not in training_json(training)["training"]
    stops = Stops(mtbf_s=11_136.6, checkpoint_s=33.0, restart_s=600.0, every_s=900.0)
    asked = replace(training, whole=WholeRun(10**9, 0.01, 16_384, stops))
    text = " ".join(shown(asked).split())
    for words in (
        "16,384 chips that can fail", "1,000,000,000 steps, 2.00 Gsample", f"goodput {stops.goodput:.1%}",
        "every 15 min of steps, 33 s each", "restarts 5.2% 10 min each", "one in 3.09 h",
    ):  # fmt: skip
        assert words in text
    own = json.loads(json_text(training_json(asked)))["training"]["whole"]
    assert own["every_s"] == 900 and sum(own["shares"].values()) == pytest.approx(1)
    never = " ".join(
        shown(replace(training, whole=WholeRun(10**9, 0.01, 9, replace(stops, mtbf_s=0.1)))).split()
    )
    assert "time without end" in never and "failures: one in 100 ms" in never and " inf" not in never
    plain = replace(training, whole=WholeRun(10**9, 0.01, 1))
    assert "goodput" not in shown(plain) and "116 days" in shown(plain)
