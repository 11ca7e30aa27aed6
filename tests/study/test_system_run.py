"""Runs over a system: what stands beside, what is asked wrongly."""

from __future__ import annotations

from pathlib import Path

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


def test_micro_batches_on_one_chip_keep_activations_in_sram(tmp_path: Path) -> None:
    """In a batch of four they are in DRAM; one by one they are not, and values are the same."""
    small = {"sram.bytes": 1 << 18, "sram.granule_bytes": 1 << 12}
    path = tmp_path / "wide.ir"
    path.write_text(
        """graph wide {
  in %x : fp32[4,128,64]
  const %w : fp32[64,256] = absent
  %y : fp32[4,128,256] = matmul(%x, %w)
  %z : fp32[4,128,256] = softmax(%y) {axis=2}
  %s : fp32[4,256] = reduce_sum(%z) {axes=[1], keepdims=false}
  out %s
}
"""
    )
    whole = api.run(str(path), "tiny", settings=small, gpu=None, state="cold").report
    parts, first = (
        api.run_over(str(path), settings=small, gpu=None, state=state, system="tiny", parallel="mb=4").report
        for state in ("warm", "cold")
    )
    assert any("(micro-batches need less: --parallel mb=N)" in note for note in whole.notes)
    assert not any("no room" in note for note in parts.notes) and parts.macs == whole.macs
    assert parts.traffic.dram_write_bytes < whole.traffic.dram_write_bytes / 10
    assert parts.system is not None and parts.system.host_w == 0
    cold = "each micro-batch is timed as a first run"
    assert [any(cold in note for note in r.notes) for r in (parts, first)] == [False, True]


def test_absent_weights_are_said_before_anything_is_executed() -> None:
    with pytest.raises(UserError, match=r"llama-tiny: \d+ weights are absent \(first: %"):
        executed(machine("tp=2"), model("llama-tiny"), {})
