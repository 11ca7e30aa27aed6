"""The builder: inference, folding, sharing, and leaving out what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.build import FOLD_ELEMENTS, NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Const, Graph, Match, Node, Rewrite

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT8, TensorType

T = TensorType(FP32, (2, 3))


@pytest.fixture
def builder() -> NodeBuilder:
    made = NodeBuilder()
    made.declare("x", T)
    return made


def test_types_are_inferred(builder: NodeBuilder) -> None:
    assert builder.type_of(builder.add("transpose", "x", perm=(1, 0))).shape == (3, 2)
    with pytest.raises(UserError, match="unknown op"):
        builder.add("transpoze", "x")


def test_the_same_node_is_made_once(builder: NodeBuilder) -> None:
    assert builder.add("exp", "x") == builder.add("exp", "x")
    assert builder.constant(1.0) == builder.constant(1.0)
    assert builder.constant(np.float32(1)) != builder.constant(1.0)
    assert len(builder.nodes) == 1


def test_what_changes_nothing_is_left_out(builder: NodeBuilder) -> None:
    one = builder.constant(np.ones(3, np.float32))
    for made in (
        builder.add("reshape", "x", shape=(2, 3)),
        builder.add("transpose", "x", perm=(0, 1)),
        builder.add("cast", "x", to="fp32"),
        builder.add("expand", "x", shape=(2, 3)),
        builder.add("slice", "x", starts=(0, 0), ends=(2, 3), steps=(1, 1)),
        builder.add("concat", "x", axis=0),
        builder.add("mul", "x", one),
        builder.add("mul", one, "x"),
    ):
        assert made == "x"
    assert builder.add("slice", "x", starts=(1, 0), ends=(-1, 3), steps=(-1, 1)) != "x"


def test_reshapes_of_reshapes_are_one(builder: NodeBuilder) -> None:
    made = builder.add("reshape", builder.add("reshape", "x", shape=(6,)), shape=(3, 2))
    (node,) = [n for n in builder.nodes if n.output == made]
    assert node.inputs == ("x",)


def test_constants_fold_now_later_or_not_at_all(builder: NodeBuilder) -> None:
    small = builder.constant(np.ones((2, 2), np.float32))
    assert builder.consts[builder.add("exp", small)].loaded is not None
    absent = builder.put("w", Const(TensorType(FP32, (4, 2))))
    assert builder.const_of(builder.add("transpose", absent, perm=(1, 0))) is not None
    assert not builder.consts["w.transpose"].present
    big = np.ones((1 << 12, 1 << 13), np.float32)
    lazy = builder.add("transpose", builder.put("big", Const.of(big)), perm=(1, 0))
    assert builder.consts[lazy].loaded is None and builder.consts[lazy].array().shape == (1 << 13, 1 << 12)
    giant = builder.add("expand", builder.constant(np.int8(1)), shape=(FOLD_ELEMENTS + 1,))
    assert builder.nodes[-1].output == giant and builder.type_of(giant).dtype == INT8


def test_it_builds_inside_a_rule() -> None:
    graph = Graph("g", [Node("y", "silu", ("x",), ("y",), (T,))], {"x": T}, ["y"])

    def rule(node: Node, match: Match) -> Rewrite | None:
        if node.op != "silu":
            return None
        b = NodeBuilder(match)
        half = b.add("mul", node.inputs[0], b.constant(np.float32(0.5)))
        return b.rewrite({node.output: b.add("mul", "x", b.add("sigmoid", half))})

    after = check(graph.rewrite(rule))
    assert [n.op for n in after.nodes] == ["mul", "sigmoid", "mul"]
    assert after.nodes[-1].output == "y" and len(after.consts) == 1
