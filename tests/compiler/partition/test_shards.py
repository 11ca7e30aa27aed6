"""Weights that are shared out: copies for each use, and when they are gathered."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.marks import is_back
from mtia_emu.compiler.graph import Node
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.shards import prefetched, with_gathers
from mtia_emu.compiler.partition.step import split_step
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP32, TensorType

from .test_step import inputs, step

KIND = TensorType(FP32, (4,))


def test_copies_change_no_value() -> None:
    one = step("llama-tiny")
    graph, copies = with_gathers(one.graph, list(one.parameters))
    feed = {n: x for n, x in inputs(one).items() if n in one.graph.inputs}
    right, got = evaluate(one.graph, feed), evaluate(graph, feed)
    assert all(np.array_equal(got[name], x) for name, x in right.items())
    assert set(copies.values()) == set(one.parameters)
    assert not any(n.origin.endswith("(optimizer)") for n in graph.nodes if copies.keys() & {*n.inputs})


MADE_OF_A_WEIGHT = """graph g {
  in %x : fp32[2,4]
  in %w : fp32[3,4]
  %t : fp32[4,3] = transpose(%w) {perm=[1, 0]}
  %c : fp32[4,3] = neg(%t)
  %y : fp32[2,3] = matmul(%x, %c)
  %b : fp32[2,3] = neg(%y)   # n (backward)
  %t.b : fp32[3,4] = transpose(%c) {perm=[1, 0]}   # n (backward)
  %d : fp32[2,4] = matmul(%b, %t.b)   # n (backward)
  %w.next : fp32[3,4] = neg(%w)   # w (optimizer)
  out %y
  out %d
  out %w.next at %w
}
"""


def test_what_forward_makes_of_a_weight_is_made_again_for_the_way_back() -> None:
    whole = text.parse(MADE_OF_A_WEIGHT)
    graph, copies = with_gathers(whole, ["w"])
    assert copies == {"w.gathered": "w", "w.gathered.2": "w"}
    forward = {v for n in graph.nodes if not is_back(n) and n.output != "y" for v in n.outputs}
    assert forward == {"w.gathered", "t", "c"}
    assert not any(forward.intersection(n.inputs) for n in graph.nodes if is_back(n))
    feed = {n: np.random.default_rng(1).standard_normal(t.shape, np.float32) for n, t in whole.inputs.items()}
    right, got = evaluate(whole, feed), evaluate(graph, feed)
    assert all(np.array_equal(got[name], x) for name, x in right.items())


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 48))
def test_two_units_at_most_are_gathered_and_each_before_its_first_reader(reads: list[int], unit: int) -> None:
    used = sorted(set(reads))
    gathers = [
        Node(f"g{w}", "all_gather", (f"w{w}",), (f"g{w}",), (KIND,), {"axes": ("dp",), "size": 2, "dim": 0})
        for w in used
    ]
    readers = [Node(f"n{i}", "neg", (f"g{w}",), (f"n{i}",), (KIND,)) for i, w in enumerate(reads)]
    out = prefetched([*gathers, *readers], {f"w{w}" for w in used}, unit)
    assert sorted(n.name for n in out) == sorted(n.name for n in (*gathers, *readers))
    assert [n.name for n in out if n.op == "neg"] == [n.name for n in readers]
    waiting, most = set[str](), 2 * max(-(-unit // KIND.bytes), 1)
    for node in out:
        if node.op == "all_gather":
            waiting.add(node.output)
            assert len(waiting) <= most
        else:
            assert (node.inputs[0] in waiting) == (int(node.name[1:]) == reads.index(int(node.inputs[0][1:])))
            waiting.discard(node.inputs[0])
    assert not waiting


def test_two_units_lie_gathered_each_of_as_many_weights_as_fill_a_bucket() -> None:
    gathers = [Node(f"g{i}", "all_gather", (f"w{i}",), (f"g{i}",), (KIND,)) for i in range(6)]
    readers = [Node(f"n{i}", "neg", (f"g{i}",), (f"n{i}",), (KIND,)) for i in range(6)]
    out = prefetched([*gathers, *readers], {f"w{i}" for i in range(6)}, 2 * KIND.bytes)
    assert " ".join(n.name for n in out) == "g0 g1 g2 g3 n0 n1 g4 g5 n2 n3 n4 n5"


def test_the_next_weight_is_on_its_way_while_one_is_multiplied_with() -> None:
    nodes = split_step(step("llama-tiny"), parse_parallel("dp=2"), zero=3).stage.nodes
    place = {v: i for i, n in enumerate(nodes) for v in n.outputs}
    up, down = (f"model.layers.1.mlp.{n}_proj.weight.gathered.all_gather" for n in ("up", "down"))
    reader = {v: next(i for i, n in enumerate(nodes) if v in n.inputs) for v in (up, down)}
    assert place[down] < reader[up] < reader[down]
    assert place[down] > place["model.layers.0.mlp.down_proj.weight.gathered.all_gather"]
