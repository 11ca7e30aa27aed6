"""Chains of elementwise work."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.passes.fuse_maps import FuseMaps


@pytest.mark.parametrize("case", cases("fuse-maps"))
def test_before_and_after(case: str) -> None:
    hold(case)


CHAIN = """graph g {{
  in %x : {kind}[2,4]
  in %row : {kind}[4]
  in %y : {kind}[2,4]
  {nodes}
  out %z
  out %{other}
}}"""


@pytest.mark.parametrize(
    ("kind", "nodes", "other", "reasons"),
    [
        ("fp32", "%a : fp32[2,4] = add(%x, %y)\n  %z : fp32[2,4] = neg(%a)", "a", ["%a has other users"]),
        ("fp32", "%a : fp32[4] = neg(%row)\n  %z : fp32[2,4] = add(%x, %a)", "z", []),  # a row stays a row
        ("int64", "%a : int64[2,4] = add(%x, %y)\n  %z : int64[2,4] = neg(%a)", "z", []),
        ("fp64", "%a : fp64[2,4] = add(%x, %y)\n  %z : fp64[2,4] = neg(%a)", "z", []),
        ("fp32", '%a : int32[2,4] = cast(%x) {to="int32"}\n  %z : int32[2,4] = neg(%a)', "z", []),
    ],
)
def test_what_stays_apart_and_why(kind: str, nodes: str, other: str, reasons: list[str]) -> None:
    assert outcomes("fuse-maps", CHAIN.format(kind=kind, nodes=nodes, other=other)) == reasons


def test_operands_and_steps_are_bounded() -> None:
    nodes = "%a : fp32[2,4] = add(%x, %row)\n  %z : fp32[2,4] = mul(%a, %y)"
    body = CHAIN.format(kind="fp32", nodes=nodes, other="z")
    reason = ["fused it would have 3 operands and 2 steps"]
    assert outcomes("fuse-maps{max-inputs=2}", body) == reason
    assert outcomes("fuse-maps{max-steps=1}", body) == reason


def test_the_other_operand_is_tried_where_the_first_is_too_much() -> None:
    nodes = """%a : fp32[2,4] = where(%m, %x, %row)
  %b : fp32[2,4] = neg(%y)
  %z : fp32[2,4] = add(%a, %b)"""
    body = CHAIN.format(kind="fp32", nodes=nodes, other="z").replace(
        "  in %x", "  in %m : bool[2,4]\n  in %x"
    )
    made = FuseMaps(max_inputs=3)(text.parse(body))
    assert [n.op for n in made.nodes] == ["where", "map"]
