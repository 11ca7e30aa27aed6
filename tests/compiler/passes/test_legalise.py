"""One spelling for each thing."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes, results
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.legalise import Legalise


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


CHOICE = """graph g {{
  in %x : fp32[2,3]
  const %all : bool[2,1] = [{truth}]
  const %zero : fp32[] = [0.0]
  %y : fp32[2,3] = where(%all, %zero, %x)
  %z : fp32[2,3] = relu(%y)
  out %z
}}"""


@pytest.mark.parametrize("truth", ["true, true", "false, false"])
def test_a_choice_that_a_constant_makes_is_what_it_chooses(truth: str) -> None:
    graph = check(text.parse(CHOICE.format(truth=truth)))
    made = check(Legalise()(graph))
    assert "where" not in [n.op for n in made.nodes]
    for name, value in results(graph).items():
        assert (results(made, graph)[name] == value).all()


def test_a_choice_that_differs_by_row_stays() -> None:
    assert outcomes("legalise", CHOICE.format(truth="true, false")) == []


ADDED = """graph g {{
  in %x : fp32[2,3]
  const %bias : fp32[3] = [0.0, 0.0, {last}]
  %y : fp32[2,3] = add(%bias, %x)
  %z : fp32[2,3] = {reader}
  out %z
}}"""


def test_zeros_are_not_added_to_scores() -> None:
    made = Legalise()(check(text.parse(ADDED.format(last="0.0", reader="softmax(%y) {axis=1}"))))
    assert [n.op for n in check(made).prune().nodes] == ["softmax"]


@pytest.mark.parametrize(("last", "reader"), [("1.0", "softmax(%y) {axis=1}"), ("0.0", "reciprocal(%y)")])
def test_what_is_added_stays_where_it_tells(last: str, reader: str) -> None:
    assert outcomes("legalise", ADDED.format(last=last, reader=reader)) == []
