"""Shared keys and values are read once."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("group-heads"))
def test_before_and_after(case: str) -> None:
    hold(case)


SHARED = """graph g {{
  in %q : {q}
  in %k : fp32[1,2,5,8]
  const %bias : fp32[3,5] = absent
  const %row : fp32[5] = absent
  %wide : fp32[{wide}] = reshape(%k) {{shape=[{wide}]}}
  %spread : fp32[{spread}] = expand(%wide) {{shape=[{spread}]}}
  %heads : fp32[1,4,5,8] = reshape(%spread) {{shape=[1, 4, 5, 8]}}
  %turned : fp32[1,4,8,5] = transpose(%heads) {{perm=[0, 1, 3, 2]}}
  %y : fp32[1,4,3,5] = matmul(%q, %turned{extra})
  out %y
}}"""


def test_heads_that_are_repeated_in_turn_are_not_shared() -> None:
    body = SHARED.format(q="fp32[1,4,3,8]", wide="1, 1, 2, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == []


def test_a_bias_keeps_the_heads() -> None:
    body = SHARED.format(q="fp32[1,4,3,8]", wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra=", %bias")
    assert outcomes("group-heads", body) == [
        "the product has a bias or scale that is neither a number nor a row"
    ]


@pytest.mark.parametrize("q", ["fp32[3,8]", "fp32[4,3,8]"])
def test_queries_without_a_batch_are_left_alone(q: str) -> None:
    body = SHARED.format(q=q, wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == []


def test_one_query_head_for_all_is_left_alone() -> None:
    body = SHARED.format(q="fp32[1,1,3,8]", wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == ["1 query heads on 2 shared heads repeated 2 times"]
