"""Mixtures of experts as exporters spell them."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, outcomes, with_weights
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.passes.route_experts import RouteExperts
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.testing.grower import Grower, Seeded
from mtia_emu.testing.motifs_joint import experts


@pytest.mark.parametrize("case", cases("route-experts"))
def test_before_and_after(case: str) -> None:
    hold(case)


GATHERED = """graph g {{
  in %x : fp32[3,{rows},4]
  in %chosen : int64[3]
  const %w : fp32[5,4,6] = absent
  %own : fp32[3,4,6] = {gather}
  %y : fp32[3,{rows},6] = matmul(%x, %own)
  out %y
}}"""
SORTED = """graph g {{
  in %x : fp32[8,4]
  in %row : int64[8,1]
  in %end : int64[1]
  {weights}
  %before : bool[8,1] = less(%row, %end)
  %a : fp32[8,6] = matmul(%x, %w0)
  %b : fp32[8,6] = matmul({second}, %w1)
  %y : fp32[8,6] = where(%before, %a, %b)
  out %y
}}"""
CONSTS = "const %w0 : fp32[4,6] = absent\n  const %w1 : fp32[4,6] = absent"


def gathered(rows: int = 1, gather: str = "gather(%w, %chosen) {axis=0}") -> list[str]:
    return outcomes("route-experts", GATHERED.format(rows=rows, gather=gather))


def test_one_row_for_each_gathered_weight() -> None:
    assert gathered(2) == ["several rows meet each gathered weight"]


def test_weights_that_are_inputs_stay() -> None:
    inputs = CONSTS.replace("const", "in").replace(" = absent", "")
    reason = "the experts' weights are not constants of one shape"
    assert outcomes("route-experts", SORTED.format(weights=inputs, second="%x")) == [reason]


def test_products_of_other_rows_stay() -> None:
    other = SORTED.format(weights=f"in %z : fp32[8,4]\n  {CONSTS}", second="%z")
    assert outcomes("route-experts", other) == []


def test_a_law_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--routing 'fair'"):
        outcomes("route-experts{law=fair}", SORTED.format(weights=CONSTS, second="%x"))


def grown(seed: int) -> Graph:
    """Return rows times gathered weights, as `fuzz` draws them."""
    g = Grower(Seeded(seed), "fp32")
    experts(g)
    return g.graph()


def test_random_mixtures_compute_what_their_graph_says() -> None:
    chips, routed = [(load_chip("tiny"), "fp32", 1e-4), (load_chip("mtia-2i"), "fp16", 2e-2)], 0
    for seed in range(40):
        graph = grown(seed)
        inputs = random_inputs(graph, seed)
        right = evaluate(graph, inputs)
        for chip, form, tolerance in chips:
            program = compile_graph(graph, chip, dtype=form).program
            given = {b.name: inputs[b.name] for b in program.inputs}
            made = execute(program, chip, given, core_library(), check=True).outputs
            routed += any(block.routed is not None for block in program.blocks)
            for name, value in right.items():
                scale = np.abs(value).max(initial=1e-3)
                assert np.abs(made[name].astype(float) - value).max(initial=0.0) < tolerance * scale
    assert routed > 20


BESIDE = """graph g {{
  in %x : fp32[5,1,6]
  in %chosen : int64[5,2]
  const %w : fp32[4,6,6] = absent
  %own : fp32[5,2,6,6] = gather(%w, %chosen) {{axis=0}}
  %turned : fp32[5,6,2,6] = transpose(%own) {{perm={perm}}}
  %flat : fp32[5,6,12] = reshape(%turned) {{shape=[5, 6, 12]}}
  %y : fp32[5,1,12] = matmul(%x, %flat)
  out %y
}}"""


@pytest.mark.parametrize("perm", ["[0, 2, 1, 3]", "[0, 3, 1, 2]"])
def test_weights_of_a_token_s_choices_beside_one_another(perm: str) -> None:
    graph = with_weights(check(text.parse(BESIDE.format(perm=perm))))
    made = check(RouteExperts()(graph))
    assert any(n.op == "expert_matmul" for n in made.nodes) == (perm == "[0, 2, 1, 3]")
    inputs = {**random_inputs(graph, 1), "chosen": np.array([[0, 3], [1, 2], [3, 1], [2, 0], [-1, 1]])}
    assert np.allclose(evaluate(made, inputs)["y"], evaluate(graph, inputs)["y"], atol=1e-5)
