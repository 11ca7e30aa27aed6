"""The number format of a run."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, training_step
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.passes.set_precision import SetPrecision, own_dtype
from mtia_emu.compiler.reference import evaluate
from onnx import TensorProto, helper
from run_model import execute, graph_of, model_of


@pytest.mark.parametrize("case", cases("set-precision"))
def test_before_and_after(case: str) -> None:
    hold(case, {"set_precision_saturates": 1.0}.get(case, 5e-3))  # -3.4e38 becomes -65504


def test_indices_that_arrive_as_floats_stay_exact() -> None:
    graph = text.parse(
        """graph g {
  in %x : fp32[2]
  in %table : fp32[4000,1]
  %ids : int64[2] = cast(%x) {to="int64"}
  %y : fp32[2,1] = gather(%table, %ids) {axis=0}
  out %y
}"""
    )
    inputs = {
        "x": np.array([2049, 3999], np.float32),
        "table": np.arange(4000, dtype=np.float32)[:, None] / 4,
    }
    made = SetPrecision()(graph)
    inputs["table"] = inputs["table"].astype(np.float16)
    assert (evaluate(made, inputs)["y"] == inputs["table"][[2049, 3999]]).all()


def test_converting_the_same_graph_twice_gives_the_same() -> None:
    graph = text.parse(GRAPH)
    assert text.dump(SetPrecision()(graph)) == text.dump(SetPrecision()(graph))


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_sums_of_bytes_are_scaled_before_they_are_narrow(kind: str) -> None:
    """512 products of 255 by 64 are 8.4 million; 0.01 times 0.0001 is no normal number in fp16."""
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "t"], ["u"]),
        helper.make_node("Mul", ["f", "u"], ["y"]),
    ]
    given = {"x": np.full((2, 512), 255, np.uint8)}
    consts = {"w": np.full((512, 3), 64, np.int8), "s": np.float32(0.01), "t": np.float32(0.0001)}
    got = execute(model_of(nodes, given, ["y"], consts), given, kind)["y"]
    np.testing.assert_allclose(got.astype(np.float64), 512 * 255 * 64e-6, rtol=4e-3)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("seed", range(4))
def test_levels_of_a_quantised_convolution_are_those_in_fp32(kind: str, seed: int) -> None:
    """Scales and sums lead to a rounding: in the model's own type they decide the level."""
    rng, names = np.random.default_rng(seed), ["x", *"abwcdefg"]
    consts = {
        "a": np.float32(0.0213),
        "b": np.uint8(120),
        "w": rng.integers(-128, 128, (6, 8, 3, 3)).astype(np.int8),
        "c": rng.uniform(0.001, 0.03, 6).astype(np.float32),
        "d": np.zeros(6, np.int8),
        "e": np.float32(2.9),
        "f": np.uint8(130),
        "g": rng.integers(-9000, 9000, 6).astype(np.int32),
    }
    given = {"x": rng.integers(0, 256, (2, 8, 7, 5)).astype(np.uint8)}
    model = model_of([helper.make_node("QLinearConv", names, ["y"], pads=[1] * 4)], given, ["y"], consts)
    right = evaluate(graph_of(model, given), given)["y"]
    np.testing.assert_array_equal(execute(model, given, kind)["y"], right)


GRAPH = """graph g {
  in %p : fp32[4]
  in %x : fp32[4]
  %cos : fp32[4] = cos(%p)
  %y : fp32[4] = mul(%x, %cos)
  out %y
}"""


def test_integers_are_left_alone() -> None:
    graph = text.parse("graph g {\n  in %x : int64[2]\n  %y : int64[2] = add(%x, %x)\n  out %y\n}")
    assert text.dump(SetPrecision()(graph)) == text.dump(graph)


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ("%y : fp16[4,4] = matmul(%h, %h)\n  %s : fp32[2] = add(%f, %f)", "fp16"),
        ("%h2 : fp16[4,4] = add(%h, %h)\n  %y : fp32[64,64] = matmul(%big, %big)", "fp32"),
        ("%y : int32[8,8] = matmul(%b, %b)", "int8"),
        ("%y : int64[9] = add(%i, %i)", "int64"),
    ],
)
def test_own_dtype_is_that_of_most_arithmetic(nodes: str, kind: str) -> None:
    graph = text.parse(
        f"""graph g {{
  in %h : fp16[4,4]
  in %f : fp32[2]
  in %big : fp32[64,64]
  in %b : int8[8,8]
  in %i : int64[9]
  {nodes}
  out %y
}}"""
    )
    assert own_dtype(graph).name == kind


def test_a_sum_of_squares_keeps_its_range_up_to_the_root() -> None:
    graph = text.parse(
        """graph g {
  in %x : fp32[2,64]
  const %tiny : fp32[1] = [1e-12]
  %square : fp32[2,64] = mul(%x, %x)
  %mean : fp32[2,1] = reduce_mean(%square) {axes=[1], keepdims=true}
  %shifted : fp32[2,1] = add(%mean, %tiny)
  %y : fp32[2,1] = sqrt(%shifted)
  out %y
}"""
    )
    x = np.full((2, 64), 3000.0, np.float16)
    made = SetPrecision()(graph)
    assert made.type_of("square").dtype.name == "fp32"
    np.testing.assert_allclose(evaluate(made, {"x": x})["y"], 3000.0, rtol=1e-3)


def test_a_square_that_is_not_summed_is_converted() -> None:
    graph = text.parse(
        "graph g {\n  in %x : fp32[4]\n  %s : fp32[4] = mul(%x, %x)\n  %y : fp32[4] = sqrt(%s)\n  out %y\n}"
    )
    assert SetPrecision()(graph).type_of("s").dtype.name == "fp16"


INPUTS = """graph g {
  in %x : fp32[4]
  in %z : fp32[4]
  const %s : fp32[] = [0.08]
  %q : fp32[4] = div(%x, %s)
  %r : fp32[4] = round(%q)
  %i : int8[4] = cast(%r) {to="int8"}
  %n : fp32[4] = mul(%x, %z)
  out %i
  out %n
}"""


def test_inputs_keep_their_type_up_to_a_step() -> None:
    made = SetPrecision()(text.parse(INPUTS))
    kinds = {v: made.type_of(v).dtype.name for v in ("x", "z", "q", "r", "n")}
    assert kinds == {"x": "fp32", "z": "fp16", "q": "fp32", "r": "fp32", "n": "fp16"}


def test_a_cast_that_rounds_keeps_its_type() -> None:
    body = """graph g {
  in %x : fp32[2]
  %y : fp16[2] = cast(%x) {rounds=true, to="fp16"}
  %z : fp16[2] = neg(%y)
  out %z
}"""
    made = SetPrecision("fp16", "fp32")(text.parse(body))
    assert [(n.op, n.type.dtype.name) for n in made.nodes] == [
        ("cast", "fp16"),
        ("cast", "fp32"),
        ("neg", "fp32"),
    ]
    x = np.array([2049, -1], np.float32)
    assert (evaluate(made, {"x": x})["z"] == [-2048, 1]).all()


MLP = text.parse("""graph mlp {
  in %x : fp32[8,5]
  in %a : fp32[5,6]
  in %b : fp32[6]
  in %c : fp32[6,3]
  %h : fp32[8,6] = matmul(%x, %a, %b)
  %r : fp32[8,6] = relu(%h)
  %y : fp32[8,3] = matmul(%r, %c)
  out %y
}
""")


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("spelling", ["adamw", "adagrad", "sgd{momentum=0.9}"])
def test_an_optimiser_of_a_narrow_step_keeps_its_digits(spelling: str, kind: str) -> None:
    """In bf16 0.999 is 1, so that moments of Adam would divide by 0, and a weight hardly moves."""
    rng = np.random.default_rng(2)
    stored = {n: Const.of(rng.standard_normal(MLP.inputs[n].shape).astype(np.float32)) for n in "abc"}
    graph = training_step(MLP, stored, Recipe("mse", optimiser(spelling))).graph
    given = {n: np.asarray(rng.random(t.shape), np.float32) / 8 for n, t in graph.inputs.items()}
    given |= {n: c.array(n) for n, c in stored.items()}
    given |= {"step": np.float32(1000), "learning_rate": np.float32(1e-4)}
    made = SetPrecision("fp32", kind)(graph)
    assert all(made.type_of(v).dtype.name == "fp32" for pair in graph.states.items() for v in pair)
    assert {made.type_of(n.inputs[0]).dtype.name for n in made.nodes if n.op == "matmul"} == {kind}
    expected = evaluate(graph, given)
    found = evaluate(made, {n: given[n].astype(t.dtype.numpy) for n, t in made.inputs.items()})
    for new, old in graph.states.items():
        change, right = found[new] - given[old], expected[new] - given[old]
        assert np.abs(change - right).max() < 0.03 * np.abs(right).max(), new


def test_a_cache_that_grows_is_no_such_state() -> None:
    graph = text.parse(
        """graph g {
  in %k : fp32[4,8]
  in %x : fp32[1,8]
  in %i : int64[1]
  %near : fp32[1,8] = mul(%x, %x)
  %next : fp32[4,8] = scatter_rows(%k, %i, %near) {reduction="none"}
  out %next at %k
}"""
    )
    made = SetPrecision()(graph)
    assert {made.type_of(v).dtype.name for v in ("k", "near", "next")} == {"fp16"}
