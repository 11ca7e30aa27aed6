"""Gathers and reductions as embedding bags."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("fuse-bags"))
def test_before_and_after(case: str) -> None:
    hold(case)


POOLED = """graph g {{
  in %ids : int64[3,5]
  const %table : {table} = absent
  %rows : {rows} = gather(%table, %ids) {{axis={axis}}}
  %y : {result} = reduce_sum(%rows) {{axes=[{over}]}}
  out %y
  out %{other}
}}"""


def pooled(**changed: object) -> list[str]:
    whole = {
        "table": "fp32[10,4]",
        "rows": "fp32[3,5,4]",
        "axis": 0,
        "result": "fp32[3,4]",
        "over": 1,
        "other": "y",
    }
    return outcomes("fuse-bags", POOLED.format(**(whole | changed)))


def test_rows_that_others_read_are_gathered() -> None:
    assert pooled(other="rows") == ["the gathered rows have other users"]


def test_a_sum_along_rows_is_no_bag() -> None:
    reason = "the reduction is over axes [2], not over a bag's rows, axis 1"
    assert pooled(over=2, result="fp32[3,5]") == [reason]


def test_columns_are_no_bag() -> None:
    reason = "the gather does not take rows of a matrix, some for each bag"
    assert pooled(axis=1, table="fp32[4,10]", rows="fp32[4,3,5]", result="fp32[4,5]") == [reason]


def test_integers_are_no_bag() -> None:
    assert pooled(table="int32[10,4]", rows="int32[3,5,4]", result="int32[3,4]") == []
