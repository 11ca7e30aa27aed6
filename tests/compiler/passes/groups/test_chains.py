"""Chains of elementwise work as one kernel."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkChains, MarkedGraph, mark

from mtia_emu.types import ElementwiseWork


def marked(body: str) -> MarkedGraph:
    """Return the marked graph of work on %x and %y, of 1,000 elements."""
    lines = f"in %x : fp16[10,100]\nin %y : fp16[10,100]\n{body}"
    return MarkChains()(mark(check(text.parse(f"graph g {{\n{lines}\n}}"))))


A, B, C = (f"%{name} : fp16[10,100] = " for name in "abc")


def test_a_chain_moves_each_outer_byte_once() -> None:
    asked = marked(f"{A}exp(%x)\n{B}add(%a, %y)\n{C}tanh(%b)\nout %c").asked
    (group,) = asked.groups
    assert (group.parts, group.at) == ((0, 1, 2), 2)
    assert isinstance(group.work, ElementwiseWork) and group.work.name == "c"
    assert (group.work.read_bytes, group.work.write_bytes, group.work.flops) == (4000, 2000, 3000)


def test_two_chains_that_meet_are_one() -> None:
    asked = marked(f"{A}exp(%x)\n{B}tanh(%y)\n{C}mul(%a, %b)\nout %c").asked
    (group,) = asked.groups
    assert group.parts == (0, 1, 2) and (group.work.read_bytes, group.work.flops) == (4000, 3000)


def test_it_goes_through_a_change_of_shape() -> None:
    view = "%r : fp16[1000] = reshape(%a) {shape=[1000]}\n%b : fp16[1000] = tanh(%r)\nout %b"
    assert [g.nodes for g in marked(f"{A}exp(%x)\n{view}").groups] == [("a", "b")]


@pytest.mark.parametrize(
    "body",
    [
        f"{A}exp(%x)\n{B}tanh(%a)\n{C}relu(%a)\nout %b\nout %c",  # two read it
        f"{A}exp(%x)\n{B}tanh(%a)\nout %a\nout %b",  # it is an output as well
        f"{A}softmax(%x) {{axis=1}}\n{B}tanh(%a)\nout %b",  # a row waits for itself
        "%a : fp16[10,1] = reduce_sum(%x) {axes=[1], keepdims=true}\n%b : fp16[10,1] = tanh(%a)\nout %b",
    ],
)
def test_what_is_no_chain_stays_apart(body: str) -> None:
    assert marked(body).groups == ()
