"""Norms in the spellings of exporters."""

from __future__ import annotations

import pytest
from before_after import cases, hold, lowered, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.pass_text import parse_passes


@pytest.mark.parametrize("case", cases("fuse-norms"))
def test_before_and_after(case: str) -> None:
    hold(case, 5e-3)


NORM = """graph g {{
  in %x : fp32[8,8]
  const %w : {weight} = absent
  const %eps : fp32[] = [1e-05]
  %square : fp32[8,8] = mul(%x, %x)
  %mean : fp32[{mean}] = reduce_mean(%square) {{axes=[{axis}], keepdims=true}}
  %shifted : fp32[{mean}] = add(%mean, %eps)
  %root : fp32[{mean}] = rsqrt(%shifted)
  %scaled : fp32[8,8] = mul(%x, %root)
  %y : fp32[8,8] = mul(%scaled, %w)
  out %y
}}"""


def test_a_factor_a_row_is_no_weight_of_a_norm() -> None:
    graph = lowered(
        text.parse(NORM.format(weight="fp32[8,1]", mean="8,1", axis=1)), parse_passes("fuse-norms")
    )
    assert [node.op for node in graph.nodes] == ["rmsnorm", "mul"]


def test_the_mean_of_columns_is_no_norm() -> None:
    assert outcomes("fuse-norms", NORM.format(weight="fp32[8]", mean="1,8", axis=0)) == []


LAYER = """graph g {{
  in %x : fp32[8,8]
  const %w : fp32[8] = absent
  const %b : {bias} = absent
  %norm : fp32[8,8] = layernorm(%x, %w) {{epsilon=1e-05}}
  %y : fp32[8,8] = add(%norm, %b)
  out %y
  out %{other}
}}"""


def test_a_column_that_is_added_is_no_bias() -> None:
    assert outcomes("fuse-norms", LAYER.format(bias="fp32[8,1]", other="y")) == []


def test_a_norm_that_others_read_keeps_its_bias_apart() -> None:
    assert outcomes("fuse-norms", LAYER.format(bias="fp32[8]", other="norm")) == ["the norm has other users"]


def test_a_cast_that_loses_digits_stays_before_the_norm() -> None:
    body = NORM.format(weight="fp32[8]", mean="8,1", axis=1)
    narrow = """  in %z : fp32[8,8]
  %narrow : fp16[8,8] = cast(%z) {to="fp16"}
  %x : fp32[8,8] = cast(%narrow) {to="fp32"}"""
    made = str(
        lowered(text.parse(body.replace("  in %x : fp32[8,8]", narrow)), parse_passes("fuse-norms")).nodes
    )
    assert "rmsnorm" in made and "inputs=('narrow',)" in made
