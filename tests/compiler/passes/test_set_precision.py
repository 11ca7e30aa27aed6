"""The number format of a run."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold
from mtia_emu.compiler import text
from mtia_emu.compiler.passes.set_precision import SetPrecision, own_dtype
from mtia_emu.compiler.reference import evaluate


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
