"""Bags of a batch that is split: each rank its own where they are equal, else all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate

TEXT = """graph bags {{
  in %x : fp32[{batch},2]
  in %indices : int64[{batch},{pooling}]
  const %table : fp32[9,4] = present
  const %offsets : int64[{ends}] = present
  %flat : int64[{count}] = reshape(%indices) {{shape=[{count}]}}
  %y : fp32[{batch},4] = embedding_bag(%table, %flat, %offsets) {{mode="{mode}"}}
  out %y
}}
"""


def bags(offsets: list[int], pooling: int, mode: str = "sum") -> Graph:
    batch = len(offsets) - 1
    graph = text.parse(
        TEXT.format(batch=batch, pooling=pooling, count=batch * pooling, ends=len(offsets), mode=mode)
    )
    rng = np.random.default_rng(5)
    table = rng.standard_normal((9, 4)).astype(np.float32)
    consts = {"table": Const.of(table), "offsets": Const.of(np.array(offsets))}
    return graph.with_nodes(graph.nodes, consts=consts)


@given(
    st.sampled_from([2, 3, 4, 6]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from(["sum", "mean", "max"]),
    st.booleans(),
)
def test_ranks_together_pool_what_one_does(
    ranks: int, each: int, pooling: int, mode: str, even: bool
) -> None:
    batch = ranks * each
    offsets = [pooling * i for i in range(batch + 1)]
    if not even and pooling > 1:
        offsets[1] += 1
    graph = bags(offsets, pooling, mode)
    rng = np.random.default_rng(7)
    feed = {"x": np.zeros((batch, 2), np.float32), "indices": rng.integers(0, 9, (batch, pooling))}
    split = propagate(graph, parse_parallel(f"dp={ranks}"))
    got, right = evaluate_split(split, feed), evaluate(graph, feed)
    np.testing.assert_array_equal(got["y"], right["y"])
    own = even or pooling == 1
    (node,) = [n for n in split.nodes if n.op == "embedding_bag"]
    assert node.type.shape == ((each if own else batch), 4)
    assert bool(split.notes) is not own


@pytest.mark.parametrize("offsets", [[1, 2, 4, 6, 8], [0, 2, 4, 6, 7]])
def test_bags_that_leave_indices_out_are_not_cut(offsets: list[int]) -> None:
    split = propagate(bags(offsets, 2), parse_parallel("dp=2"))
    assert [n.type.shape for n in split.nodes if n.op == "embedding_bag"] == [(4, 4)]
