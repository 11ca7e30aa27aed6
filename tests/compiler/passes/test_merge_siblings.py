"""Products of one input as one."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, lowered, outcomes, results, with_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes import MergeSiblings
from mtia_emu.compiler.pipeline import compile_lowered

from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip


@pytest.mark.parametrize("case", cases("merge-siblings"))
def test_before_and_after(case: str) -> None:
    hold(case)


def family(widths: list[int], rows: str = "4", tail: str = "", seen: str = "exp") -> str:
    """Return a graph of products of one input, each read by an elementwise op."""
    lines = [f"  in %x : fp32[{rows},8]"]
    lines += [f"  const %w{i} : fp32[8,{n}] = absent" for i, n in enumerate(widths)]
    lines += [f"  %p{i} : fp32[{rows},{n}] = matmul(%x, %w{i})" for i, n in enumerate(widths)]
    lines += [f"  %y{i} : fp32[{rows},{n}] = {seen}(%p{i})" for i, n in enumerate(widths)]
    lines += [f"  out %y{i}" for i in range(len(widths))]
    return "\n".join(["graph g {", *lines, tail, "}"])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.sampled_from(["1", "4", "2,3"]))
def test_one_product_of_equal_results_is_left(widths: list[int], rows: str) -> None:
    graph = with_weights(text.parse(family(widths, rows)))
    made = lowered(graph, (MergeSiblings(),))
    assert [n.op for n in made.nodes].count("matmul") == 1
    before, after = results(graph), results(made, graph)
    assert all(np.allclose(before[name], after[name], 1e-5, 1e-5) for name in before)


@pytest.mark.parametrize("options", ["weights=int4", "weights=int4,zeros=true", "activations=none"])
def test_products_with_codes_are_joined_scales_and_zero_points_as_well(options: str) -> None:
    graph = with_weights(text.parse(family([4, 6, 5])))
    apart = lowered(graph, parse_passes(f"quantise{{{options}}},keep-packed"))
    made = lowered(apart, (MergeSiblings(),))
    assert [n.op for n in made.nodes].count("matmul_packed") == 1
    before, after = results(apart), results(made, apart)
    assert all(np.allclose(before[name], after[name], 1e-5, 1e-5) for name in before)


def test_an_output_lies_by_itself() -> None:
    reasons = outcomes("merge-siblings", family([4, 4], tail="  out %p0\n"))
    assert reasons == [
        "%p0 is an output of the model, which lies by itself",
        "the products of the same input cannot be joined",
    ]


def test_what_would_be_copied_stays() -> None:
    graph = family([4, 4], tail="  %flat : fp32[16] = reshape(%p1) {shape=[16]}\n  out %flat\n")
    assert outcomes("merge-siblings", graph)[1] == "its columns would be copied for %flat"


def test_a_joint_product_has_a_bound() -> None:
    reason = "the joint product would have 8 columns, 7 are allowed"
    assert outcomes("merge-siblings{max-columns=7}", family([4, 4])) == [reason, reason]


def test_weights_that_others_read_stay() -> None:
    graph = text.parse(family([4, 4], tail="  %n : fp32[8,4] = neg(%w0)\n  out %n\n"))
    assert lowered(graph, parse_passes("merge-siblings")) is graph


def test_one_product_takes_fewer_cycles() -> None:
    chip = load_chip("mtia-2i")
    graph = text.parse(family([256, 64, 64], "128").replace("fp32", "fp16"))
    made = lowered(graph, (MergeSiblings(),))
    before, after = (report(compile_lowered(g, chip, dtype="fp16"), chip) for g in (graph, made))
    assert after.cycles < before.cycles


def test_one_bias_of_two_products_stands_beside_itself() -> None:
    body = """graph g {
  in %x : fp32[3,8]
  const %w1 : fp32[8,4] = absent
  const %w2 : fp32[8,4] = absent
  const %b : fp32[4] = absent
  %h1 : fp32[3,4] = matmul(%x, %w1, %b)
  %h2 : fp32[3,4] = matmul(%x, %w2, %b)
  %y : fp32[3,4] = sub(%h1, %h2)
  out %y
}"""
    graph = with_weights(text.parse(body))
    np.testing.assert_allclose(
        results(lowered(graph, (MergeSiblings(),)), graph)["y"], results(graph)["y"], 1e-5, 1e-5
    )
