"""Steps that are too large for a block: cut, they compute the same; what cannot be cut is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.lower import split
from mtia_emu.compiler.lower.schedule import schedule
from mtia_emu.compiler.lower.steps import Step
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.kernels import builder
from mtia_emu.kernels.builder import TooLarge
from onnx import helper
from run_model import graph_of, model_of, read

from mtia_emu import api
from mtia_emu.engine.bounds import roofs
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP16

Array = np.ndarray[Any, Any]


def whole(*shape: int, most: int = 4) -> Array:
    """Return whole numbers as floats: their sums are exact in any order."""
    rng = np.random.default_rng(sum(shape))
    return rng.integers(-most, most + 1, shape).astype(np.float32)


MODELS: dict[str, tuple[str, dict[str, Array]]] = {
    "product, rows": (
        "g (float[160,32] x, float[32,48] w, float[48] b, float[160,48] r) => (float[160,48] y) "
        "{ p = MatMul(x, w) q = Add(p, b) y = Mul(q, r) }",
        {"x": whole(160, 32), "w": whole(32, 48), "b": whole(48), "r": whole(160, 48)},
    ),
    "product, columns": (
        "g (float[8,32] x, float[32,320] w, float[320] b, float[8,1] c) => (float[8,320] y) "
        "{ p = MatMul(x, w) q = Add(p, b) y = Mul(q, c) }",
        {"x": whole(8, 32), "w": whole(32, 320), "b": whole(320), "c": whole(8, 1)},
    ),
    "product, batches": (
        "g (float[1,6,32,16] x, float[1,6,16,32] w, float[1,6,32,1] c) => (float[1,6,32,32] y) "
        "{ p = MatMul(x, w) y = Add(p, c) }",
        {"x": whole(1, 6, 32, 16), "w": whole(1, 6, 16, 32), "c": whole(1, 6, 32, 1)},
    ),
    "elements": (
        "g (float[7,3000] x, float[3000] b) => (float[7,3000] y) { s = Add(x, b) y = Neg(s) }",
        {"x": whole(7, 3000), "b": whole(3000)},
    ),
    "turned": (
        "g (float[60,70,30] x) => (float[30,70,60] y) { y = Transpose<perm=[2,1,0]>(x) }",
        {"x": whole(60, 70, 30)},
    ),
    "rows": (
        "g (float[500,40] x) => (float[500] y) <int64[1] a = {1}> { y = ReduceSum<keepdims=0>(x, a) }",
        {"x": whole(500, 40)},
    ),
    "gather": (
        "g (float[50,16] x, int64[600] i) => (float[600,16] y) { y = Gather(x, i) }",
        {"x": whole(50, 16), "i": np.arange(600) * 7 % 50},
    ),
    "bags": (
        "g (float[50,16] x, int64[200,5] i) => (float[200,16] y) <int64[1] a = {1}> "
        "{ r = Gather(x, i) y = ReduceSum<keepdims=0>(r, a) }",
        {"x": whole(50, 16), "i": np.arange(1000).reshape(200, 5) * 7 % 50},
    ),
}


def compiled(name: str) -> tuple[Any, dict[str, Array]]:
    text, given = MODELS[name]
    return compile_graph(graph_of(read(text), given), load_chip("tiny")).program, given


@pytest.mark.parametrize("share", [0.9, 0.3])
@pytest.mark.parametrize("name", MODELS)
def test_cut_steps_compute_the_same(name: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    program, given = compiled(name)
    most = max(len(b.commands) for b in program.blocks)
    monkeypatch.setattr(split, "SMALL_MACS", 0)
    monkeypatch.setattr(split, "SMALL_ELEMENTS", 0)
    monkeypatch.setattr(builder, "MOST_COMMANDS", int(most * share))
    cut, _ = compiled(name)
    assert len(cut.launches) > len(program.launches)
    assert max(len(b.commands) for b in cut.blocks) <= most * share
    first, second = (api.run(p, inputs=given, gpu=None) for p in (program, cut))
    for output, value in first.outputs.items():
        np.testing.assert_array_equal(second.outputs[output], value)
    assert (second.report.macs, second.report.cycles > 0) == (first.report.macs, True)


def test_attention_is_cut_by_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "g (float[2,4,32,16] q, float[2,4,16,32] k, float[2,4,32,16] v, float[1,1,32,32] m) "
        "=> (float[2,4,32,16] y) { s = MatMul(q, k) t = Add(s, m) p = Softmax(t) y = MatMul(p, v) }"
    )
    sizes = {"q": (2, 4, 32, 16), "k": (2, 4, 16, 32), "v": (2, 4, 32, 16), "m": (1, 1, 32, 32)}
    given = {name: whole(*shape, most=1) for name, shape in sizes.items()}
    graph, chip = graph_of(read(text), given), load_chip("mtia-2i")
    program = compile_graph(graph, chip).program
    assert [b.kernel for b in program.blocks] == ["attention"]
    monkeypatch.setattr(split, "SMALL_MACS", 0)
    monkeypatch.setattr(builder, "MOST_COMMANDS", len(program.blocks[0].commands) * 2 // 3)
    cut = compile_graph(graph, chip).program
    assert len(cut.launches) > 1
    first, second = (api.run(p, inputs=given, gpu=None).outputs["y"] for p in (program, cut))
    np.testing.assert_allclose(second, first, atol=2e-3)


@pytest.mark.parametrize("rows", [4, 200])
def test_products_with_weights_of_few_bits_are_cut(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    codes, points = whole(32, 160).astype(np.int8), np.arange(160).astype(np.int8) % 5
    consts = {"w": codes, "s": np.full(160, 0.5, np.float32), "z": points, "b": whole(160)}
    x = whole(rows, 32)
    graph, chip = graph_of(model_of(nodes, {"x": x}, ["y"], consts), {"x": x}), load_chip("tiny")
    program = compile_graph(graph, chip).program
    assert "matmul_packed" in [b.kernel for b in program.blocks]
    monkeypatch.setattr(split, "SMALL_MACS", 0)
    monkeypatch.setattr(builder, "MOST_COMMANDS", max(len(b.commands) for b in program.blocks) * 2 // 3)
    cut = compile_graph(graph, chip).program
    assert len(cut.launches) > len(program.launches)
    right = x @ ((codes - points).astype(np.float32) / 2) + consts["b"]
    np.testing.assert_array_equal(api.run(cut, inputs={"x": x}, gpu=None).outputs["y"], right)


def test_what_cannot_be_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "SMALL_MACS", 0)
    monkeypatch.setattr(split, "SMALL_ELEMENTS", 0)
    monkeypatch.setattr(builder, "MOST_COMMANDS", 2)
    with pytest.raises(UserError, match="a block has at most 2"):
        compiled("product, rows")


def test_a_small_step_is_not_tried() -> None:
    program, _ = compiled("elements")
    assert program.launches

    def never(step: object) -> None:
        raise AssertionError("it was tried")

    text, given = MODELS["elements"]
    plan = schedule(graph_of(read(text), given), load_chip("tiny"))
    assert split.split(plan, id, never) is plan
    assert split.split(replace(plan, steps=[]), id, never).steps == []


def test_of_steps_that_make_the_same_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "SMALL_ELEMENTS", 0)
    layers = "".join(f"s{i + 1} = Add(s{i}, b) " for i in range(4))
    text = f"g (float[7,3000] s0, float[3000] b) => (float[7,3000] s4) {{ {layers}}}"
    plan = schedule(graph_of(read(text), {}), load_chip("tiny"))
    tried: list[tuple[int, ...]] = []

    def form(step: Step) -> tuple[object, ...]:
        return (step.kernel, step.params, *(v.shape for v in step.outputs))

    def make(step: Step) -> None:
        tried.append(step.outputs[0].shape)
        if step.outputs[0].type.size > 11_000:
            raise TooLarge("too many commands")

    cut = split.split(plan, form, make)
    assert len(plan.steps) == 4 and len(cut.steps) == 8
    assert tried.count(plan.steps[0].outputs[0].shape) == 1


@pytest.mark.deep
def test_a_product_of_16384_cubed_takes_several_launches() -> None:
    from mtia_emu.zoo.operators import Gemm

    chip = load_chip("mtia-2i")
    with api.operator_source(Gemm(16384, 16384, 16384, "fp16"), None) as source:
        report = api.run_source(source, chip, gpu=None).report
    assert report.macs == 16384**3 and len(report.layers) > 1
    least = report.macs / (roofs(chip, FP16).matrix_ops_per_s / 2)
    assert 0.75 < least / report.seconds < 1, "a large product is at 83 % of the peak"
