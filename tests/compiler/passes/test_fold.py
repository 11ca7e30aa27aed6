"""What is known is computed, what is equal is made once."""

from __future__ import annotations

import pytest
from before_after import cases, hold
from mtia_emu.compiler import text
from mtia_emu.compiler.passes import Fold


@pytest.mark.parametrize("case", cases("fold"))
def test_before_and_after(case: str) -> None:
    hold(case)


@pytest.mark.parametrize(
    "node",
    [
        '%y : fp32[2,4] = cast(%h) {to="fp32"}',
        "%y : fp32[4,2] = transpose(%x) {perm=[1, 0]}",
        "%y : fp32[2,4] = slice(%x) {ends=[-1, -1], starts=[1, 3], steps=[-1, -1]}",
    ],
)
def test_what_changes_something_stays(node: str) -> None:
    graph = text.parse(f"graph g {{\n  in %x : fp32[2,4]\n  in %h : fp16[2,4]\n  {node}\n  out %y\n}}")
    assert text.dump(Fold()(graph)) == text.dump(graph)


def test_equal_outputs_keep_their_names() -> None:
    graph = text.parse(
        "graph g {\n  in %x : fp32[2]\n  %a : fp32[2] = neg(%x)\n  %b : fp32[2] = neg(%x)\n"
        "  out %a\n  out %b\n}"
    )
    assert Fold()(graph).outputs == ("a", "b")


def test_equal_exchanges_stay_two() -> None:
    gathered = 'fp32[4] = all_gather(%x) {axes=["dp"], dim=0, size=2}'
    graph = text.parse(
        f"graph g {{\n  in %x : fp32[2]\n  %a : {gathered}\n  %n : fp32[4] = neg(%a)\n  %b : {gathered}\n"
        "  %y : fp32[4] = add(%n, %b)\n  out %y\n}"
    )
    assert [node.op for node in Fold()(graph).nodes] == ["all_gather", "neg", "all_gather", "add"]


def test_what_depends_on_constants_is_computed() -> None:
    graph = text.parse(
        "graph g {\n  in %x : fp32[2]\n  const %c : fp32[2] = [1.0, 2.0]\n  %n : fp32[2] = neg(%c)\n"
        "  %y : fp32[2] = add(%x, %n)\n  out %y\n}"
    )
    folded = Fold()(graph)
    assert [node.op for node in folded.nodes] == ["add"]
    assert [const.array().tolist() for const in folded.consts.values()] == [[-1.0, -2.0]]
