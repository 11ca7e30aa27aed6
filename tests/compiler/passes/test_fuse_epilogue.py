"""Work on the result of a product."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes


@pytest.mark.parametrize("case", cases("fuse-epilogue"))
def test_before_and_after(case: str) -> None:
    hold(case)


PRODUCT = """graph g {{
  in %x : fp32[4,8]
  in %z : fp32[4,4]
  const %w : fp32[8,4] = absent
  const %half : fp32[1] = [0.5]
  const %small : fp32[1] = [1e-06]
  const %row : fp32[4] = absent
  const %column : fp32[4,1] = absent
  {nodes}
  out %y
  out %{other}
}}"""


@pytest.mark.parametrize(
    ("nodes", "other", "reasons"),
    [
        ("%p : fp32[4,4] = matmul(%x, %w)\n  %y : fp32[4,4] = add(%p, %column)", "y", []),
        ("%p : fp32[4,4] = matmul(%x, %w)\n  %y : fp32[4,4] = add(%p, %z)", "y", []),
        ("%p : fp32[4,4] = matmul(%x, %w)\n  %y : fp32[4,4] = add(%p, %p)", "y", []),
        (
            "%p : fp32[4,4] = matmul(%x, %w)\n  %y : fp32[4,4] = add(%p, %row)",
            "p",
            ["the product has other users"],
        ),
        (
            "%p : fp32[4,4] = matmul(%x, %w)\n  %y : fp32[4,4] = relu(%p)",
            "p",
            ["the product has other users"],
        ),
        (
            '%p : fp32[4,4] = matmul(%x, %w) {activation="relu"}\n  %y : fp32[4,4] = add(%p, %row)',
            "y",
            ["the product has a bias or an activation already"],
        ),
        (
            "%p : fp32[4,4] = matmul(%x, %w, %row)\n  %y : fp32[4,4] = mul(%p, %half)",
            "y",
            ["the product has a bias or an activation already"],
        ),
        (
            "%p : fp32[4,4] = matmul(%x, %w, _, %small)\n  %y : fp32[4,4] = mul(%p, %half)",
            "y",
            ["the product has a scale that is not one number, or a narrow format does not hold both"],
        ),
        (
            "%s : fp32[4,8] = mul(%x, %half)\n  %y : fp32[4,4] = matmul(%s, %w)",
            "s",
            ["the scaled operand %s has other users"],
        ),
    ],
)
def test_what_stays_outside_the_product_and_why(nodes: str, other: str, reasons: list[str]) -> None:
    assert outcomes("fuse-epilogue", PRODUCT.format(nodes=nodes, other=other)) == reasons


def test_integers_keep_their_activation_apart() -> None:
    body = """graph g {
  in %x : int8[4,8]
  const %w : int8[8,4] = absent
  %p : int32[4,4] = matmul(%x, %w)
  %y : int32[4,4] = relu(%p)
  out %y
}"""
    assert outcomes("fuse-epilogue", body) == []
