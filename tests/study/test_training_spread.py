"""Training over the chips of a system: executed steps, what is reported, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.results.training import Training

RECIPE = {"loss": "cross-entropy", "optimizer": "adamw", "dims": {"batch": 4, "seq": 4}, "gpu": None}


def trained(model: str = "llama-tiny", **more: Any) -> Training:
    return mtia_emu.train(f"zoo:{model}", **{**RECIPE, "system": "tiny-board", **more})


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("resnet-tiny", {"dims": {"batch": 2}, "parallel": "dp=2", "optimizer": "sgd"}),
        ("llama-tiny", {"parallel": "dp=2,tp=2", "zero": 2}),
        ("llama-tiny", {"parallel": "dp=2,tp=2,bucket=64KiB", "zero": 3}),
    ],
)
def test_executed_chips_learn_as_one_does(model: str, more: dict[str, Any]) -> None:
    losses = trained(model, steps=2, check=True, **more).losses
    assert losses is not None and losses.passed and losses.error < 1e-5
    assert losses.losses[1] < losses.losses[0]


def test_the_report_says_who_waits_and_holds_what() -> None:
    plain = trained(parallel="dp=2")
    use = plain.report.system
    assert use is not None and (use.chips, use.parallel) == (2, "dp=2")
    assert 0 < use.exposed_s <= use.stages[0].exchange_s
    assert plain.items == 16 and plain.items_per_s == pytest.approx(16 / plain.report.seconds)
    phases = sum(plain.phases.values())
    assert phases == pytest.approx(use.stages[0].compute_s, rel=0.05), "phases leave exchanges out"


def test_each_stage_holds_less_of_its_kind() -> None:
    none, states, gradients, weights = (trained(parallel="dp=2", zero=z).memory for z in range(4))
    assert states.optimizer < 0.6 * none.optimizer, "all but that of the table, whose rows are looked up"
    assert states.optimizer == gradients.optimizer == weights.optimizer
    assert gradients.gradients < 0.6 * states.gradients <= 1.1 * none.gradients
    assert weights.weights < 0.7 * gradients.weights == 0.7 * none.weights
    assert weights.total < gradients.total < states.total < none.total


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"system": None, "parallel": "dp=2"}, "--parallel is of chips that share a step"),
        ({"system": None, "zero": 1}, "--zero is of chips that share a step"),
        ({"system": "dgx-h100"}, "is of GPUs, which run no programs"),
        ({"parallel": "dp=2", "zero": 4}, "--zero 4 .right: a stage, 1, 2, 3"),
        ({"parallel": "tp=2", "zero": 1}, "shares out over dp, of which tp=2 has none"),
        ({"parallel": "dp=64"}, "takes 64 chips"),
        ({"chip": "mtia-2i"}, "tiny-board is of tiny, the chip at hand is mtia-2i"),
    ],
)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        trained(**more)
