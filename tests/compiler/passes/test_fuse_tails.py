"""Elementwise work behind a product."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("fuse-tails"))
def test_before_and_after(case: str) -> None:
    hold(case)


TAIL = """graph g {{
  in %x : fp32[2,3,8]
  in %y : fp32[2,3,4]
  in %wide : fp32[5,2,3,4]
  const %w : fp32[8,4] = absent
  const %b : fp32[4] = absent
  {nodes}
  out %z
  out %{other}
}}"""
PLAIN = "%p : fp32[2,3,4] = matmul(%x, %w)"


@pytest.mark.parametrize(
    ("nodes", "other", "reasons"),
    [
        (f"{PLAIN}\n  %z : fp32[2,3,4] = add(%p, %y)", "p", ["the product has other users"]),
        (f"{PLAIN}\n  %z : fp32[5,2,3,4] = add(%p, %wide)", "z", []),
        (f'{PLAIN}\n  %z : int32[2,3,4] = cast(%p) {{to="int32"}}', "z", []),
        (
            f"{PLAIN}\n  %v : fp32[2,12] = reshape(%p) {{shape=[2, 12]}}\n  %z : fp32[2,12] = neg(%v)",
            "z",
            ["the product is seen in a shape of other columns"],
        ),
        (
            "%p : fp32[2,3,4] = matmul(%x, %w, %b)\n"
            "  %v : fp32[6,4] = reshape(%p) {shape=[6, 4]}\n  %z : fp32[6,4] = neg(%v)",
            "z",
            ["the product's own operands do not broadcast to the shape that it is seen in"],
        ),
    ],
)
def test_what_stays_apart_and_why(nodes: str, other: str, reasons: list[str]) -> None:
    assert outcomes("fuse-tails", TAIL.format(nodes=nodes, other=other)) == reasons


def test_operands_are_bounded() -> None:
    body = TAIL.format(nodes=f"{PLAIN}\n  %z : fp32[2,3,4] = add(%p, %y)", other="z")
    reason = "the fused product would have 1 operands besides its factors"
    assert outcomes("fuse-tails{max-inputs=0}", body) == [reason]


def test_a_scale_of_higher_rank_does_not_go_behind_a_view() -> None:
    body = TAIL.format(
        nodes="%p : fp32[2,3,4] = matmul(%x, %w, _, %one)\n"
        "  %v : fp32[6,4] = reshape(%p) {shape=[6, 4]}\n  %z : fp32[6,4] = neg(%v)",
        other="z",
    ).replace("const %b", "const %one : fp32[1,1,1] = [2.0]\n  const %b")
    reason = "the product's own operands do not broadcast to the shape that it is seen in"
    assert outcomes("fuse-tails", body) == [reason]
