"""Shared keys and values are read once."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler.passes import GroupHeads
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.text import parse


@pytest.mark.parametrize("case", cases("group-heads"))
def test_before_and_after(case: str) -> None:
    hold(case)


SHARED = """graph g {{
  in %q : {q}
  in %k : fp32[1,2,5,8]
  const %bias : fp32[3,5] = absent
  const %row : fp32[5] = absent
  %wide : fp32[{wide}] = reshape(%k) {{shape=[{wide}]}}
  %spread : fp32[{spread}] = expand(%wide) {{shape=[{spread}]}}
  %heads : fp32[1,4,5,8] = reshape(%spread) {{shape=[1, 4, 5, 8]}}
  %turned : fp32[1,4,8,5] = transpose(%heads) {{perm=[0, 1, 3, 2]}}
  %y : fp32[1,4,3,5] = matmul(%q, %turned{extra})
  out %y
}}"""


def test_heads_that_are_repeated_in_turn_are_not_shared() -> None:
    body = SHARED.format(q="fp32[1,4,3,8]", wide="1, 1, 2, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == []


def test_a_bias_keeps_the_heads() -> None:
    body = SHARED.format(q="fp32[1,4,3,8]", wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra=", %bias")
    assert outcomes("group-heads", body) == [
        "the product has a bias or scale that is neither a number nor a row"
    ]


@pytest.mark.parametrize("q", ["fp32[3,8]", "fp32[4,3,8]"])
def test_queries_without_a_batch_are_left_alone(q: str) -> None:
    body = SHARED.format(q=q, wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == []


def test_one_query_head_for_all_is_left_alone() -> None:
    body = SHARED.format(q="fp32[1,1,3,8]", wide="1, 2, 1, 5, 8", spread="1, 2, 2, 5, 8", extra="")
    assert outcomes("group-heads", body) == ["1 query heads on 2 shared heads repeated 2 times"]


FOR_ALL = """graph g {
  in %q : fp32[2,4,3,8]
  in %k : fp32[2,1,5,8]
  %heads : fp32[2,4,5,8] = expand(%k) {shape=[2, 4, 5, 8]}
  %turned : fp32[2,4,8,5] = transpose(%heads) {perm=[0, 1, 3, 2]}
  %y : fp32[2,4,3,5] = matmul(%q, %turned)
  out %y
}"""


def test_one_head_of_keys_for_all_query_heads_is_not_repeated() -> None:
    graph = parse(FOR_ALL)
    made = GroupHeads()(graph)
    (product,) = [n for n in made.nodes if n.op == "matmul"]
    assert made.type_of(product.inputs[0]).shape == (2, 1, 12, 8), "rows of all heads of one product"
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.inputs.items()}
    assert np.allclose(evaluate(made, inputs)["y"], evaluate(graph, inputs)["y"], atol=1e-6)
