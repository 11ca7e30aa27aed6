"""Ranks executed on emulated chips: against onnxruntime, under every strategy and mixes of them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from mtia_emu import api
from mtia_emu.study.rank_runs import _Meeting, exchanged
from mtia_emu.system.load import load_system

from .tiny_experts import write

BOARD = load_system("tiny-board")
LLAMA, DLRM = "zoo:llama-tiny", "zoo:dlrm-small"


@pytest.mark.parametrize(
    ("model", "parallel", "dims"),
    [
        (LLAMA, "tp=2", {}),
        (LLAMA, "tp=4,sp", {}),
        (LLAMA, "tp=4", {"seq": 1, "past": 16}),
        (LLAMA, "cp=2,tp=2", {}),
        (LLAMA, "pp=2,tp=2,mb=2", {"batch": 2}),
        (DLRM, "dp=4,tables=row", {}),
        (DLRM, "dp=2,tables=column", {}),
    ],
)
def test_ranks_together_give_what_onnxruntime_gives(model: str, parallel: str, dims: dict[str, int]) -> None:
    outcome = api.run_over(model, dims=dims, gpu=None, system="tiny-board", parallel=parallel, check=True)
    assert outcome.check is not None and outcome.check.passed, outcome.check


def test_one_rank_is_no_system_bit_for_bit() -> None:
    alone = api.run(LLAMA, "tiny", gpu=None, check=True)
    one = api.run_over(LLAMA, gpu=None, system="tiny-board", parallel="tp=1", check=True)
    assert {k: x.tobytes() for k, x in one.outputs.items()} == {
        k: x.tobytes() for k, x in alone.outputs.items()
    }
    assert (one.report.cycles, one.report.traffic.dram_read_bytes) == (
        alone.report.cycles,
        alone.report.traffic.dram_read_bytes,
    )


X = [np.arange(12, dtype=np.float32).reshape(2, 6) + 100 * r for r in range(2)]


@pytest.mark.parametrize(
    ("op", "attrs", "right"),
    [
        ("all_reduce", {}, [X[0] + X[1]] * 2),
        ("all_gather", {"dim": 1}, [np.concatenate(X, axis=1)] * 2),
        ("reduce_scatter", {"dim": 1}, np.split(X[0] + X[1], 2, axis=1)),
        (
            "all_to_all",
            {"dim": 1, "join": 0},
            [np.concatenate([x[:, 3 * i : 3 * i + 3] for x in X]) for i in range(2)],
        ),
    ],
)
def test_what_the_system_computes_is_what_the_op_says(op: str, attrs: dict, right: list) -> None:
    for got, expected in zip(exchanged(BOARD, (0, 1), op, [[x] for x in X], attrs), right, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_ranks_that_meet_in_different_exchanges_say_so() -> None:
    meeting = _Meeting(2, lambda op, given, attrs: [arrays[0] for arrays in given])
    faults: list[BaseException] = []

    def go(position: int, op: str) -> None:
        try:
            meeting.meet(position, op, [X[0]], {})
        except (RuntimeError, threading.BrokenBarrierError) as error:
            faults.append(error)
            meeting.give_up()

    threads = [threading.Thread(target=go, args=(i, op)) for i, op in enumerate(("all_reduce", "all_gather"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("different exchanges" in str(fault) for fault in faults)


@pytest.mark.parametrize(
    "parallel", ["ep=2", "ep=2,tp=2", "dp=2,ep=2", "ep=2,dispatch", "dp=2,ep=2,tp=2,dispatch"]
)
def test_experts_split_over_ranks_give_what_onnxruntime_gives(parallel: str, tmp_path: Path) -> None:
    model = str(write(tmp_path))
    outcome = api.run_over(model, gpu=None, system="tiny-board", parallel=parallel, check=True)
    assert outcome.check is not None and outcome.check.passed, outcome.check
    assert not any("no layout rule" in note for note in outcome.report.notes if "expert" in note)
