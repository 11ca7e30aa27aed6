"""One spelling for each thing."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("legalise"))
def test_before_and_after(case: str) -> None:
    hold(case)


def test_a_divisor_whose_reciprocal_a_narrow_format_cannot_hold_stays() -> None:
    reasons = outcomes(
        "legalise",
        """graph g {
  in %x : fp32[2]
  const %tiny : fp32[] = [1e-06]
  %y : fp32[2] = div(%x, %tiny)
  out %y
}""",
    )
    assert reasons == ["a narrow format does not hold 1 / 1e-06"]


@pytest.mark.parametrize(
    "node",
    [
        "%y : int64[2] = div(%i, %seven)",  # truncates
        "%y : int64[2] = pow(%i, %two)",
        "%y : fp32[2] = pow(%x, %x)",
        "%y : fp32[2,2] = div(%x, %column)",
        "%y : fp32[2] = div(%x, %zero)",
    ],
)
def test_what_only_looks_alike_stays(node: str) -> None:
    body = f"""graph g {{
  in %x : fp32[2]
  in %i : int64[2]
  in %column : fp32[2,1]
  const %seven : int64[] = [7]
  const %two : int64[] = [2]
  const %zero : fp32[] = [0.0]
  {node}
  out %y
}}"""
    assert outcomes("legalise", body) == []
