"""A training step as a page: it says what the terminal says, whatever was left out, and fetches nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mtia_emu
from mtia_emu.results.training import Losses, Training
from mtia_emu.study.activity import PARTS, bounds_over_time, phase_activity
from mtia_emu.view.training_page import TrainingPage, verdict, write_training_page

HOSTILE = "<img src=http://example.com/x onerror=alert(1)>"


@pytest.fixture(scope="module")
def training() -> Training:
    return mtia_emu.train(
        "zoo:gpt-tiny", "tiny", loss="cross-entropy", optimizer="adamw", steps=2, check=True, until=1e6
    )


def written(training: Training, folder: Path, origin: str = "") -> str:
    shown = TrainingPage(training, phase_activity(training), bounds_over_time(training.report), origin=origin)
    write_training_page(folder / "t.html", shown)
    return (folder / "t.html").read_text(encoding="utf-8")


def test_it_shows_all_that_a_step_comes_to(training: Training, tmp_path: Path) -> None:
    text = written(training, tmp_path, "mtia-emu train model.onnx")
    for words in (
        "The loss", "passed: at most", "What ran when", "Forward against backward", "Memory at its peak",
        "Where the time goes", "Time beside the GPU", "The whole training", "MFU", "HFU",
        "Notes on this step",
        "model.layers.1", "mtia-emu train model.onnx", "times as long as forward",
    ):  # fmt: skip
        assert words in text, words
    assert text.count("<figure") == 8 and "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_step_alone_is_a_page_too(training: Training, tmp_path: Path) -> None:
    bare = replace(training, gpu=None, losses=None, whole=None)
    text = written(bare, tmp_path)
    assert text.count("<figure") == 5 and "GPU" not in verdict(TrainingPage(bare))


def test_names_from_outside_stay_text(training: Training, tmp_path: Path) -> None:
    report = replace(training.report, model=HOSTILE, notes=(HOSTILE,))
    losses = Losses((1.0, float("nan")), (1.0, 2.0), HOSTILE, 1e-4)
    assert "<img" not in written(replace(training, report=report, losses=losses), tmp_path)


def test_phases_fill_the_time_one_after_another(training: Training) -> None:
    lanes = {lane.name: lane.shares for lane in phase_activity(training)}
    assert list(lanes) == ["forward", "backward", "optimizer"] and len(lanes["forward"]) == PARTS
    assert lanes["forward"][0] > 0 and lanes["optimizer"][-1] > 0 == lanes["forward"][-1]


def test_the_verdict_says_what_does_not_fit(training: Training) -> None:
    small = replace(training, memory=replace(training.memory, capacity=1000))
    assert "does not fit in 1,000 B" in verdict(TrainingPage(small)).replace("1.00 kB", "1,000 B")
