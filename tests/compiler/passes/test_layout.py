"""Weights k innermost."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("layout"))
def test_before_and_after(case: str) -> None:
    hold(case)


def test_weights_that_others_read_and_activations_stay() -> None:
    body = """graph g {
  in %x : fp16[2,4]
  in %v : fp16[4,4]
  const %w : fp16[4,4] = absent
  %a : fp16[2,4] = matmul(%x, %w)
  %b : fp16[4,4] = add(%v, %w)
  %c : fp16[2,4] = matmul(%x, %v)
  out %a
  out %b
  out %c
}"""
    assert outcomes("layout", body) == ["%w has other users"]
