"""Steps composed of groups of operators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.serving.step_table import ServingStep, StepLimits, StepTable

from .tables import constant_ratio, toy_table

TABLE: StepTable = toy_table()


def test_a_step_is_the_sum_of_its_groups() -> None:
    cost = TABLE.step(ServingStep(((16, 64), (8, 0)), (5, 100, 3)))
    linear, head = 1 + (16 + 8 + 3), 2 * 5
    seconds = linear + head + 16 * 65 + 8 + (5 + 100 + 3)
    assert cost.seconds == pytest.approx(seconds)
    assert cost.joules == pytest.approx(10 * seconds)
    assert cost.error_share == pytest.approx(0.01)


def test_a_mixed_step_reads_its_weights_once() -> None:
    prompt, decode = ServingStep(((16, 0),)), ServingStep((), (10, 20))
    both = TABLE.step(ServingStep(prompt.prefills, decode.contexts)).seconds
    assert both == pytest.approx(TABLE.step(prompt).seconds + TABLE.step(decode).seconds - 1)


def test_attention_goes_by_each_context_not_by_their_mean() -> None:
    spread, even = TABLE.step(ServingStep((), (1, 511))), TABLE.step(ServingStep((), (256, 256)))
    assert spread.seconds == pytest.approx(even.seconds)  # of what is linear; a bend tells them apart
    bent = toy_table()
    bent.decode.values[:, 2, 0] *= 3
    assert bent.step(ServingStep((), (1, 511))).seconds > 1.1 * bent.step(ServingStep((), (256, 256))).seconds


def test_a_kernel_for_both_has_a_speed_of_its_own() -> None:
    half = toy_table(constant_ratio(0.5))
    alone, mixed = ServingStep(((16, 64),)), ServingStep(((16, 64),), (5, 80))
    assert half.step(alone) == TABLE.step(alone)
    attention = 16 * 65 + 85
    assert half.step(mixed).seconds == pytest.approx(TABLE.step(mixed).seconds - attention / 2)


def test_a_kernel_for_both_ends_with_its_longest_sequence() -> None:
    both = toy_table(constant_ratio(1.0))
    mixed = ServingStep(((8, 2), (16, 64)), (5, 200, 95))  # 100 on the mean, 80 of the longer prompt
    rows = both.prefill.x[0]
    longer, usual = (float(both.prefill.each([rows], [keys - rows])[0, 0]) for keys in (200, 100))
    assert longer - usual == pytest.approx(100 * rows)
    assert both.step(mixed).seconds == pytest.approx(TABLE.step(mixed).seconds + longer - usual)
    even = ServingStep(mixed.prefills, (60, 80, 70))  # none is longer than the prompt
    assert both.step(even).seconds == pytest.approx(TABLE.step(even).seconds)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=32), st.integers(1, 100))
def test_steps_of_decodes_are_each_what_one_step_is(contexts: list[int], count: int) -> None:
    costs = TABLE.decodes(np.array(contexts), count)
    for i in {0, count // 2, count - 1}:
        one = TABLE.step(ServingStep((), tuple(c + i for c in contexts)))
        assert costs.seconds[i] == pytest.approx(one.seconds)
        assert costs.joules[i] == pytest.approx(one.joules)
        assert costs.error_share[i] == pytest.approx(one.error_share)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 400))
def test_more_work_never_takes_less(contexts: list[int], more: int) -> None:
    less = TABLE.step(ServingStep((), tuple(contexts))).seconds
    assert TABLE.step(ServingStep((), (*contexts, more))).seconds > less
    assert TABLE.step(ServingStep(((1, 0),), tuple(contexts))).seconds > less


def test_what_its_steps_may_be_off_by_is_that_of_its_anchors() -> None:
    assert toy_table().error_shares == (pytest.approx(0.01), pytest.approx(0.01))
    doubtful = toy_table()
    doubtful.decode.values[1, 1, 2] = 30.0  # seconds, of 8 sequences of 64 keys
    step = doubtful.step(ServingStep((), (64,) * 8))
    assert doubtful.error_shares == (pytest.approx(0.01), pytest.approx(step.error_share))
    assert step.error_share > 0.04


def test_limits_are_the_last_anchors() -> None:
    assert TABLE.limits == StepLimits(128, 32, 64, 256, 32, 512)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (ServingStep(), "no tokens"),
        (ServingStep(((0, 4), (1, 0))), "chunk of none"),
        (ServingStep(((1, -1),)), "fewer than 0"),
        (ServingStep(((64, 0), (64, 0), (1, 0))), "129 tokens"),
        (ServingStep(((65, 0),)), "65 tokens of one chunk"),
        (ServingStep(((1, 257),)), "257 tokens before a chunk"),
        (ServingStep((), (1,) * 33), "33 sequences"),
        (ServingStep((), (513,)), "513 keys"),
        (ServingStep((), (0,)), "context of 0"),
    ],
)
def test_what_is_outside_is_refused(step: ServingStep, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        TABLE.step(step)
    assert "toy-model on toy" in str(error.value)


def test_decodes_outside_are_refused() -> None:
    with pytest.raises(UserError, match="513 keys"):
        TABLE.decodes(np.array([500]), 14)
    with pytest.raises(UserError, match="1 or more"):
        TABLE.decodes(np.array([], np.int64), 3)
