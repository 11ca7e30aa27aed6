"""The figures of a training step's page hold what was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import mtia_emu
from mtia_emu.results.training import PHASES, Losses, PeakMemory, Training
from mtia_emu.view import training_charts as charts


@pytest.fixture(scope="module")
def training() -> Training:
    return mtia_emu.train("zoo:llama-tiny", "tiny", loss="cross-entropy", gpu=None)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("model.layers.12.mlp.up_proj (backward)", "model.layers.12"),
        ("model.layers.1.self_attn again (backward)", "model.layers.1"),
        ("/blocks/3/conv/Conv", "/blocks/3"),
        ("lm_head.weight (optimizer)", "lm_head"),
        ("cross-entropy (backward)", "cross-entropy"),
    ],
)
def test_layers_are_of_blocks(layer: str, block: str) -> None:
    assert charts.block_of(layer) == block


def test_blocks_take_all_the_time_of_each_phase(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (40, 2):
        monkeypatch.setattr(charts, "MOST_BLOCKS", most)
        chart = charts.by_block(training)
        assert len(chart.bars) == (
            3 if most == 2 else len({charts.block_of(x.name) for x in training.report.layers})
        )
        for number, phase in enumerate(PHASES):
            total = math.fsum(bar.parts[number] for bar in chart.bars)
            assert total == pytest.approx(training.phases[phase])


def test_memory_is_by_kind() -> None:
    peak = PeakMemory(2, 12, 4, 3, 1, 40)
    chart = charts.memory(peak)
    assert list(chart.bars[0].parts) == [2, 12, 4, 3, 1] and chart.bars[0].high == 40
    assert "optimizer: 55% of 22" in chart.summary and "fits" in chart.summary
    assert charts.memory(replace(peak, capacity=1000)).bars[0].high is None
    assert "does not fit" in charts.memory(replace(peak, capacity=10)).summary


def test_losses_stand_beside_the_oracle() -> None:
    chart = charts.losses(Losses((3.0, 1.0), (3.0, 2.0), "onnxruntime", 1e-4))
    assert [line.name for line in chart.lines] == ["loss", "onnxruntime"] and "FAILED" in chart.summary
    assert len(charts.losses(Losses((3.0, 1.0))).lines) == 1
