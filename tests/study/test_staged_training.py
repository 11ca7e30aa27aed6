"""Training over the stages of a pipeline: executed steps, times and memory held to closed forms, refusals."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from mtia_emu.compiler.partition.mesh import parse_parallel

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.results.training import Training
from mtia_emu.study.staged_training import refuse_schedule

RECIPE = {"loss": "cross-entropy", "optimizer": "adamw", "dims": {"batch": 4, "seq": 4}, "gpu": None}


def trained(model: str = "gpt-tiny", **more: Any) -> Training:
    return mtia_emu.train(f"zoo:{model}", **{**RECIPE, "system": "tiny-board", **more})


@cache
def timed(parallel: str, accumulate: int = 4, **more: Any) -> Training:
    return trained(parallel=parallel, accumulate=accumulate, **more)


@pytest.mark.parametrize(
    ("model", "parallel", "more"),
    [
        ("gpt-tiny", "pp=2,dp=2", {"accumulate": 2, "clip": 0.5, "zero": 1}),
        ("gpt-tiny", "tp=2,pp=2,schedule=gpipe", {"accumulate": 2}),
        ("gpt-tiny", "dp=2", {"accumulate": 3}),
        ("gpt-tiny", "pp=2,vp=2", {"accumulate": 2}),
    ],
)
def test_executed_stages_learn_as_one_chip_does(model: str, parallel: str, more: dict[str, Any]) -> None:
    losses = trained(model, parallel=parallel, steps=2, check=True, **more).losses
    assert losses is not None and losses.passed and losses.error < 1e-5
    assert losses.losses[1] < losses.losses[0]


def test_schedules_hold_as_many_micro_batches_as_is_published() -> None:
    few, every = (timed(f"pp=3,schedule={name}", 6) for name in ("1f1b", "gpipe"))
    assert few.pipeline is not None and every.pipeline is not None
    assert [p.alive for p in few.pipeline.peaks] == [3, 2, 1]
    assert [p.alive for p in every.pipeline.peaks] == [6, 6, 6]
    for one, other in zip(few.pipeline.peaks, every.pipeline.peaks, strict=True):
        assert one.kept * 6 == other.kept * one.alive > 0
        assert one.memory.total <= other.memory.total
    assert few.report.seconds == pytest.approx(every.report.seconds, rel=0.1), "the same bubble"


def test_more_micro_batches_make_the_bubble_smaller() -> None:
    shares = []
    for count in (2, 4, 8):
        used = timed("pp=2", count).pipeline
        assert used is not None and used.even_bubble == pytest.approx(1 / count)
        shares.append(used.bubble)
    assert shares[0] > shares[1] > shares[2] > 0


def test_micro_batches_on_several_chips_are_exchanged_once() -> None:
    one, four = (timed("dp=2", count) for count in (1, 4))
    assert one.pipeline is None and four.pipeline is None
    assert one.report.system is not None and four.report.system is not None
    for found in four.report.system.exchanges:
        each = "last" in found.stage or found.kind != "all_reduce" or found.bytes == 4
        assert each, "but for the loss, and rows of tables, only the last micro-batch exchanges"
    assert four.items == 4 * one.items and four.report.seconds < 4 * one.report.seconds


def test_the_report_has_all_chips_and_micro_batches() -> None:
    whole, plain = timed("pp=2"), mtia_emu.train("zoo:gpt-tiny", chip="tiny", accumulate=4, **RECIPE)
    assert whole.report.macs == plain.report.macs and whole.items == plain.items
    assert whole.parameters == plain.parameters, "a tied weight counts once"
    used = whole.report.system
    assert used is not None and (used.chips, used.batches, len(used.stages)) == (2, 4, 2)
    assert sum(whole.phases.values()) < whole.report.seconds
    layers = [x for x in whole.report.layers if x.op == "send"]
    assert len(layers) == 2 * 4, "a micro-batch goes there and comes back"


def test_a_gpu_system_stands_beside() -> None:
    beside = timed("pp=2", 2, gpu="h100-sxm").gpu
    assert beside is not None and beside.seconds > 0 and beside.system is not None


def test_one_stage_a_chip_takes_any_number_of_micro_batches() -> None:
    refuse_schedule(parse_parallel("pp=4,schedule=1f1b"), 3)
    refuse_schedule(parse_parallel("pp=4,vp=2"), 8)
    with pytest.raises(UserError, match="--accumulate 8"):
        refuse_schedule(parse_parallel("pp=4,vp=2"), 6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"parallel": "pp=2,schedule=gipe"}, "unknown schedule .* 'gipe'; did you mean 'gpipe'"),
        ({"parallel": "pp=2,vp=2", "accumulate": 3}, r"in groups of pp=2 \(right: --accumulate 4\)"),
        ({"parallel": "pp=2,mb=2"}, r"right: --accumulate 2"),
        ({"parallel": "pp=8,vp=8", "accumulate": 8}, "64 stages, .* has only"),
        ({"parallel": "pp=2,dp=2", "zero": 3}, r"--zero 3 with pp .*right: --zero 1"),
        ({"parallel": "pp=2,dp=3"}, "a batch of 4 .* does not divide among 3"),
        ({"parallel": "pp=2,cp=2"}, "split over dp, tp and pp"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        trained(**more)
