"""Runs over a system: what stands beside, what is asked wrongly."""

from __future__ import annotations

import pytest

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.study.system_run import beside, executed
from mtia_emu.system.load import load_system

from .systems import machine, model


def test_a_system_of_the_gpu_stands_beside_split_alike() -> None:
    board = load_system("tiny-board")
    other = beside(board, "h100-sxm", machine("tp=2").mesh)
    assert other is not None and set(other.system.chips) == {"h100-sxm"}
    assert beside(board, "dgx-a100", machine("tp=2").mesh).system.name == "dgx-a100"
    assert beside(load_system("hgx-h200"), "h200-sxm", machine("tp=2").mesh) is None
    outcome = api.run_over("zoo:llama-tiny", system="tiny-board", parallel="tp=2")
    assert outcome.gpu is not None and outcome.comparison.speed is not None


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--by-layer is of one chip", {"system": "tiny-board", "by_layer": True}),
        ("right: --system NAME too", {"parallel": "tp=2"}),
        ("unknown system 'tiny-bord'; did you mean 'tiny-board'", {"system": "tiny-bord"}),
        (
            "nothing of weights and heads divides among all of them, 7 would be alike",
            {"system": "tiny-board", "parallel": "tp=7"},
        ),
    ],
)
def test_what_is_asked_wrongly_is_told(words: str, options: dict) -> None:
    with pytest.raises(UserError, match=words):
        api.run_over("zoo:llama-tiny", gpu=None, **options)


def test_a_run_of_one_chip_names_the_other_door() -> None:
    with pytest.raises(UserError, match=r"right: api\.run_over"):
        api.run("zoo:llama-tiny", system="tiny-board")


def test_absent_weights_are_said_before_anything_is_executed() -> None:
    with pytest.raises(UserError, match=r"llama-tiny: \d+ weights are absent \(first: %"):
        executed(machine("tp=2"), model("llama-tiny"), {})
