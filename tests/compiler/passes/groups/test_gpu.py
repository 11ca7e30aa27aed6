"""The passes that mark what a GPU runs as one kernel, as a list."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes import groups

GRAPH = """graph g {
  in %x : fp16[4,6]
  %a : fp16[4,6] = tanh(%x)
  %b : fp16[4,6] = exp(%a)
  out %b
}"""


def test_every_marking_is_in_the_list_once() -> None:
    named = {name for name in groups.__all__ if name.startswith("Mark")} - {"MarkedGraph", "Marking"}
    assert sorted(type(x).__name__ for x in groups.GPU_PASSES) == sorted(named)


def test_what_is_asked_has_every_nodes_work_and_the_groups_of_all_passes() -> None:
    asked = groups.asked_work(check(text.parse(GRAPH)))
    assert [w.name for w in asked.works] == ["a", "b"] and [g.parts for g in asked.groups] == [(0, 1)]
