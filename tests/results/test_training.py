"""What a training step comes to: phases by name, utilization, memory and losses."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from mtia_emu.results.report import Joules, Layer, Report, Stretch, Traffic
from mtia_emu.results.spans import Track
from mtia_emu.results.training import Losses, PeakMemory, PipelineUse, StagePeak, Training, phase_of

TRACK = Track("chip", 1e9)


def layer(name: str, start: int, end: int) -> Layer:
    return Layer(name, "map", "map", start, end, 0, 0, 0, 0.0, "dram", track=TRACK)


LAYERS = (layer("a", 0, 100), layer("a (backward)", 100, 350), layer("a.weight (optimizer)", 350, 400))
REPORT = Report(
    "m",
    "c",
    "fp32",
    {},
    (TRACK,),
    (Stretch(LAYERS, Fraction(400, 10**9)),),
    Joules(dram=2.0),
    Traffic(),
    450,
    1000.0,
)
MEMORY = PeakMemory(4, 8, 3, 2, 1, 18)
TRAINING = Training(REPORT, None, MEMORY, 150, 1, 8, "tokens")


def test_layers_fall_into_phases_by_their_names() -> None:
    assert [phase_of(x.name) for x in LAYERS] == ["forward", "backward", "optimizer"]
    assert TRAINING.phases == pytest.approx({"forward": 1e-7, "backward": 2.5e-7, "optimizer": 5e-8})


def test_utilization_with_and_without_what_is_done_again() -> None:
    assert TRAINING.mfu == TRAINING.hfu == 0.45
    again = dataclasses.replace(TRAINING, report=dataclasses.replace(REPORT, macs=600))
    assert (again.mfu, again.hfu) == (0.45, 0.6)


def test_rates_are_by_item() -> None:
    assert TRAINING.items_per_s == pytest.approx(8 / 4e-7)
    assert TRAINING.joules_per_item == 0.25


def test_memory_fits_up_to_its_last_byte() -> None:
    assert MEMORY.total == 18 and MEMORY.fits
    assert not dataclasses.replace(MEMORY, data=2).fits


def test_stages_wait_a_share_of_what_they_work() -> None:
    peak = StagePeak("stage 0", 4, 4, MEMORY)
    used = PipelineUse("1f1b", 4, 2, 8, 0.5, 0.1, (peak,))
    assert used.bubble == pytest.approx(0.2) and used.even_bubble == pytest.approx(3 / 16)
    piped = dataclasses.replace(TRAINING, pipeline=used)
    assert piped.phases["forward"] == pytest.approx(TRAINING.phases["forward"] / 4), "the mean of its chips"


def test_losses_that_follow_last_digits_are_held_to_how_far_these_lead() -> None:
    parted = Losses((1.0, 9.0, 0.5), (1.0, 10.0, 0.5), "an oracle", 1e-4, spread=(0.0, 0.8, 0.0))
    assert not parted.within and parted.passed and parted.chaotic == (2,)
    assert not dataclasses.replace(parted, spread=(0.0, 0.4, 0.0)).passed, "further than these lead"
    assert not dataclasses.replace(parted, spread=(0.0, 0.0, 9.0)).passed, "at another step"
    assert not dataclasses.replace(parted, spread=()).passed
    infinite = dataclasses.replace(parted, losses=(1.0, float("inf"), 0.5), spread=(0.0, float("inf"), 0.0))
    assert not infinite.passed


def test_losses_are_held_to_the_largest() -> None:
    losses = Losses((10.0, 1.2), (10.0, 1.0), "an oracle", 0.02)
    assert losses.error == pytest.approx(0.02) and not Losses((10.0, 1.3), (10.0, 1.0), "", 0.02).passed
    assert Losses((1.0,)).error == 0.0
    assert not Losses((float("nan"),), (1.0,), "", 1.0).passed
