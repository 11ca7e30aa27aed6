"""Rotary embeddings as one op."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("fuse-rotary"))
def test_before_and_after(case: str) -> None:
    hold(case)


HALVES = """graph g {{
  in %x : fp32[2,{size}]
  in %cos : {angle}
  in %sin : {angle}
  %low : fp32[2,2] = slice(%x) {{ends=[2, 2], starts=[0, 0], steps=[1, 1]}}
  %high : fp32[2,2] = slice(%x) {{ends=[2, 4], starts=[0, 2], steps=[1, 1]}}
  %neg : fp32[2,2] = neg(%{first})
  %turned : fp32[2,4] = concat(%neg, %{second}) {{axis=1}}
  %straight : {result} = mul(%x, %cos)
  %crossed : {result} = mul(%turned, %sin)
  %y : {result} = add(%straight, %crossed)
  out %y
}}"""


def test_the_first_half_turned_is_no_rotation() -> None:
    body = HALVES.format(size=4, angle="fp32[4]", first="low", second="high", result="fp32[2,4]")
    assert outcomes("fuse-rotary", body) == []


def test_angles_that_make_the_result_larger_are_left_apart() -> None:
    body = HALVES.format(size=4, angle="fp32[3,1,4]", first="high", second="low", result="fp32[3,2,4]")
    assert outcomes("fuse-rotary", body) == ["the angles make fp32[3,2,4] of fp32[2,4]"]
