"""The way back through attention as one kernel."""

from __future__ import annotations

from mtia_emu.compiler.gradients.differentiate import differentiate
from mtia_emu.compiler.passes.groups import MarkAttentionBack, mark
from mtia_emu.compiler.text import parse

from mtia_emu.types import AttentionWork

FORWARD = """graph g {
 in %q : fp32[2,4,256,16]
 in %k : fp32[2,2,256,16]
 in %v : fp32[2,2,256,16]
 %y : fp32[2,4,256,16] = attention(%q, %k, %v) {tape="1 -> t0 | t0 = mul(x0, 0.25) : fp32"}
 %s : fp32[2,4,256,16] = tanh(%y)
 %loss : fp32[] = reduce_sum(%s) {axes=[0, 1, 2, 3]}
 out %loss
}
"""


def test_all_that_its_gradient_rule_made_is_one_kernel() -> None:
    graph = differentiate(parse(FORWARD), "loss", ["q", "k", "v"])
    marked = MarkAttentionBack()(mark(graph))
    (group,) = marked.groups
    inside = {node.name for node in graph.nodes if node.origin == "y (backward)"}
    assert set(group.nodes) == inside & marked.flow.works.keys() and group.at == group.nodes[-1]
    assert isinstance(group.work, AttentionWork) and group.work.back
    assert (group.work.kv_heads, group.work.group, group.work.queries) == (2, 2, 256)


def test_the_way_there_alone_has_none() -> None:
    assert MarkAttentionBack()(mark(parse(FORWARD))).groups == ()
