"""Products with weights in int8."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, outcomes, with_weights
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.codes import FORMATS, block_scales
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.ops import work
from mtia_emu.compiler.ops.dequantise import expand
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes.quantise import Quantise
from mtia_emu.compiler.passes.set_weight_layout import SetWeightLayout
from mtia_emu.compiler.pipeline import passes
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.types import FP16, FP32, ExpertsWork, TensorType


@pytest.mark.parametrize("case", cases("quantise"))
def test_before_and_after(case: str) -> None:
    hold(case, 5e-2)


def test_products_of_activations_and_empty_ones_stay() -> None:
    body = """graph g {
  in %x : fp32[4,4]
  in %none : fp32[0,4]
  const %w : fp32[4,4] = absent
  const %batch : fp32[2,4,4] = absent
  %a : fp32[4,4] = matmul(%x, %x)
  %b : fp32[0,4] = matmul(%none, %w)
  %c : fp32[2,4,4] = matmul(%x, %batch)
  out %a
  out %b
  out %c
}"""
    weights = "its right side is not a weight matrix"
    assert outcomes("quantise", body) == [weights, "it is empty", weights]


def test_weights_are_not_read_before_they_are_needed() -> None:
    def load() -> np.ndarray:
        raise AssertionError("read")

    kind = TensorType(FP32, (8, 4))
    graph = text.parse("""graph g {
  in %x : fp32[2,8]
  const %w : fp32[8,4] = absent
  %y : fp32[2,4] = matmul(%x, %w)
  out %y
}""")
    lazy = graph.with_nodes(graph.nodes, consts={"w": Const(kind, load)})
    for step in (*passes(FP32, FP16, quantise=Quantise()), SetWeightLayout()):
        lazy = step(lazy)
    assert any(n.op == "matmul_map" for n in lazy.nodes) and all(c.present for c in lazy.consts.values())


PRODUCT = """graph g {
  in %x : fp32[2,64]
  const %w : fp32[64,4] = absent
  %y : fp32[2,4] = matmul(%x, %w)
  out %y
}"""


@pytest.mark.parametrize(
    ("spelling", "codes"),
    [
        ("quantise{weights=int4}", "uint8[32,4]"),
        ("quantise{weights=int4,group=16,zeros=true}", "uint8[32,4]"),
        ("quantise{activations=none}", "int8[64,4]"),
        ("quantise{weights=fp8_e5m2,activations=none}", "fp8_e5m2[64,4]"),
        ("quantise{weights=fp8_e4m3}", "fp8_e4m3[64,4]"),
    ],
)
def test_weights_are_stored_as_codes(spelling: str, codes: str) -> None:
    (step,) = parse_passes(spelling)
    graph = step(text.parse(PRODUCT))
    assert codes in {str(c.type) for c in graph.consts.values()}
    assert step.spelling == spelling


def test_static_scales_come_from_samples_and_need_values() -> None:
    rng = np.random.default_rng(0)
    graph = text.parse(PRODUCT)
    weights = Const(TensorType(FP32, (64, 4)), rng.standard_normal((64, 4)).astype(np.float32))
    ready = graph.with_nodes(graph.nodes, consts={"w": weights})
    made = Quantise(activations="static", calibrate="2")(ready)
    assert [n.op for n in made.nodes] == ["map", "matmul_map"]
    inputs = {"x": rng.standard_normal((2, 64)).astype(np.float32)}
    error = evaluate(made, inputs)["y"] - evaluate(ready, inputs)["y"]
    assert np.abs(error).max() < 0.05 * np.abs(evaluate(ready, inputs)["y"]).max()
    with pytest.raises(UserError, match="weights are absent"):
        Quantise(activations="static")(graph)


def test_products_of_one_input_share_its_static_scale() -> None:
    rng = np.random.default_rng(0)
    body = """graph g {
  in %x : fp32[4,8]
  const %a : fp32[8,4] = absent
  const %b : fp32[8,6] = absent
  %y : fp32[4,4] = matmul(%x, %a)
  %z : fp32[4,6] = matmul(%x, %b)
  %u : fp32[4,4] = exp(%y)
  %v : fp32[4,6] = exp(%z)
  out %u
  out %v
}"""
    graph = text.parse(body)
    consts = {
        name: Const(c.type, rng.standard_normal(c.type.shape).astype(np.float32))
        for name, c in graph.consts.items()
    }
    graph = graph.with_nodes(graph.nodes, consts=consts)
    for step in parse_passes("quantise{activations=static},fold,merge-siblings"):
        graph = step(graph)
    assert [n.op for n in graph.nodes].count("matmul_map") == 1


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("quantise{weights=int5}", "quantise: weights 'int5'"),
        ("quantise{activations=all}", "quantise: activations 'all'"),
        ("quantise{weights=int4,activations=dynamic}", "has no 4-bit form"),
        ("quantise{group=32}", "needs activations=none"),
        ("quantise{zeros=true}", "zeros=true is for weights=int4"),
    ],
)
def test_options_that_do_not_fit_are_refused(spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_passes(spelling)


EXPERTS = """graph g {
  in %x : fp32[6,64]
  const %router : fp32[64,5] = absent
  const %w : fp32[5,64,24] = absent
  %scores : fp32[6,5] = matmul(%x, %router)
  %best : fp32[6,2], %chosen : int64[6,2] = topk(%scores) {axis=1, k=2, largest=true}
  %y : fp32[12,24] = expert_matmul(%x, %w, %chosen)
  out %y
  out %best
}"""


@pytest.mark.parametrize("weights", ["int8", "fp8_e4m3"])
def test_experts_are_quantised_and_what_chooses_them_is_not(weights: str) -> None:
    graph = with_weights(text.parse(EXPERTS))
    made = check(Quantise(weights)(graph))
    kinds = {node.op: made.type_of(node.inputs[1]).dtype.name for node in made.nodes if "matmul" in node.op}
    assert kinds == {"matmul": "fp32", "expert_matmul": weights}
    given = {"x": np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)}
    before, after = evaluate(graph, given), evaluate(made, given)
    assert np.array_equal(before["best"], after["best"])
    scale = np.abs(before["y"]).max()
    assert 0 < np.abs(before["y"] - after["y"]).max() < (0.02 if weights == "int8" else 0.08) * scale


@pytest.mark.parametrize("step", [Quantise("int4"), Quantise("int4", group=16, zeros=True)])
def test_experts_of_four_bits_are_expanded_as_they_are_read(step: Quantise) -> None:
    graph = with_weights(text.parse(EXPERTS))
    made = check(step(graph))
    (product,) = (node for node in made.nodes if node.op == "expert_matmul_packed")
    assert made.type_of(product.inputs[1]).shape == (5, 32, 24) and len(product.inputs) == 4 + step.zeros
    given = {"x": np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)}
    before, after = evaluate(graph, given), evaluate(made, given)
    assert np.array_equal(before["best"], after["best"])
    assert 0 < np.abs(before["y"] - after["y"]).max() < 0.2 * np.abs(before["y"]).max()


def test_a_gpu_reads_codes_and_scales_of_the_experts_that_have_rows() -> None:
    graph = Quantise("int4", group=16)(text.parse(EXPERTS))
    (node,) = (node for node in graph.nodes if node.op == "expert_matmul_packed")
    made = work(graph, node)
    assert isinstance(made, ExpertsWork)
    expert = 64 * 24 // 2 + 4 * 24 * 4  # codes of 4 bits, scales of fp32
    rows, chosen = 6 * 64 * 4, 6 * 2 * 8
    assert made.expert_bytes == expert and made.read_bytes == made.batch * expert + rows + chosen


def test_each_expert_is_quantised_as_it_would_be_alone() -> None:
    graph = with_weights(text.parse(EXPERTS))
    weights = graph.consts["w"].array("w")
    made = Quantise("int4", group=16)(graph)
    (product,) = (node for node in made.nodes if node.op == "expert_matmul_packed")
    codes, scales = (made.consts[v].array(v) for v in (product.inputs[1], product.inputs[3]))
    for expert, matrix in enumerate(weights):
        assert np.array_equal(scales[expert], block_scales(matrix, 16, FORMATS["int4"]))
        alone = expand([codes[expert], scales[expert]], {"k": 64, "block": 16})
        assert (
            np.abs(alone - matrix).max() <= np.abs(scales[expert]).max() * 1.5
        )  # the largest may be cut off
