"""A training step on a terminal and as JSON."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

import mtia_emu
from mtia_emu.files.writing import json_text
from mtia_emu.results.training import Training
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


def test_the_json_holds_the_report_and_the_training(training: Training) -> None:
    value = json.loads(json_text(training_json(training)))
    assert value["schema"].startswith("mtia-emu.report") and value["gpu"]
    own = value["training"]
    assert own["mfu"] == pytest.approx(training.mfu) and own["losses"]["passed"]
    assert own["peak_bytes"]["total"] == training.memory.total
