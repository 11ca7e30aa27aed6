"""Attention a few heads at a time."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("split-into-strips"))
def test_before_and_after(case: str) -> None:
    hold(case)


ATTENTION = """graph g {{
  in %q : fp32[{b},{h},3,4]
  in %k : fp32[{b},{h},4,5]
  in %v : fp32[{vb},{vh},5,4]
  %scores : fp32[{b},{h},3,5] = matmul(%q, %k)
  %p : fp32[{b},{h},3,5] = {between}(%scores){attrs}
  %y : fp32[{b},{h},3,4] = matmul(%p, %v)
  out %y
  out %{other}
}}"""


def skipped(limit: int = 1, **changed: object) -> list[str]:
    whole = {"b": 1, "h": 2, "vb": 1, "vh": 2, "between": "softmax", "attrs": " {axis=3}", "other": "y"}
    return outcomes(f"split-into-strips{{max-bytes={limit}}}", ATTENTION.format(**(whole | changed)))


def test_scores_that_fit_are_not_split() -> None:
    assert skipped(120) == ["the scores take 120 bytes, 120 are allowed"]


def test_one_head_is_not_split() -> None:
    assert skipped(h=1, vh=1) == ["there is one head"]


@pytest.mark.parametrize(
    "changed",
    [
        {"attrs": " {axis=1}"},  # over heads
        {"between": "exp", "attrs": ""},  # no softmax
        {"other": "scores"},
        {"vh": 1},  # values broadcast over heads
        {"b": 2},  # values broadcast over the batch
    ],
)
def test_what_is_no_attention_is_not_split(changed: dict[str, object]) -> None:
    assert skipped(**changed) == []


def test_nothing_is_split_without_a_limit() -> None:
    assert skipped(0) == []
