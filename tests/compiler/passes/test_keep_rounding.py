"""Rounding: what decides between integers, or between true and false, is rounded as the model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes import KeepRounding
from run_model import execute, read

HALF = np.float16


def rounded(body: str) -> str:
    return text.dump(KeepRounding()(check(text.parse(body))))


def test_it_rounds_what_is_computed_and_then_made_whole() -> None:
    made = rounded(
        'graph g {\n in %x : fp16[4]\n %s : fp16[4] = sigmoid(%x)\n %i : int8[4] = cast(%s) {to="int8"}\n'
        " out %i\n}"
    )
    assert '%cast.1 : fp16[4] = cast(%s) {rounds=true, to="fp16"}' in made and "cast(%cast.1)" in made


def test_it_looks_behind_casts_that_lose_nothing() -> None:
    made = rounded(
        'graph g {\n in %x : fp16[4]\n %s : fp16[4] = exp(%x)\n %w : fp32[4] = cast(%s) {to="fp32"}\n'
        " %f : fp32[4] = floor(%w)\n out %f\n}"
    )
    assert "cast(%s) {rounds=true" in made


@pytest.mark.parametrize(
    "step",
    [
        '%i : int8[4] = cast(%x) {to="int8"}',  # nothing is computed
        "%i : fp16[4] = neg(%x)",  # no step
    ],
)
def test_it_leaves_the_rest(step: str) -> None:
    assert "rounds" not in rounded(f"graph g {{\n in %x : fp16[4]\n {step}\n out %i\n}}")


def test_wide_floats_are_left() -> None:
    made = rounded(
        "graph g {\n in %x : fp32[4]\n %s : fp32[4] = exp(%x)\n %f : fp32[4] = floor(%s)\n out %f\n}"
    )
    assert "rounds" not in made


# sigmoid(11.625) is 0.99999 in fp32 and 1 in fp16, 2047.75 is 2048 there, 60000 + 60000 infinite
STEPS = [
    ("int8", "s = Sigmoid(x) y = Cast<to=3>(s)", 11.625, 1),
    ("int64", "s = Sigmoid(x) y = Cast<to=7>(s)", 11.625, 1),
    ("bool", "s = Sigmoid(x) y = Equal(s, one)", 11.625, True),
    ("bool", "s = Sigmoid(x) y = Less(s, one)", 11.625, False),
    ("float16", "a = Mul(x, x) b = Add(a, x) y = Floor(b)", 45.0625, 2076.0),
    ("bool", "a = Add(x, x) y = IsInf(a)", 60000.0, True),
    ("bool", "a = Exp(x) y = Cast<to=9>(a)", -20.0, False),
]


@pytest.mark.parametrize("dtype", [None, "fp16", "fp32"])
@pytest.mark.parametrize(("kind", "body", "x", "right"), STEPS)
def test_a_narrow_model_decides_as_it_says(
    kind: str, body: str, x: float, right: Any, dtype: str | None
) -> None:
    model = read(f"g (float16[1] x) => ({kind}[1] y) <float16[1] one = {{15360}}> {{ {body} }}")  # 1.0
    got = execute(model, {"x": np.array([x], HALF)}, dtype)["y"]
    assert got.tolist() == [right]


@pytest.mark.parametrize("dtype", [None, "fp16", "fp32", "bf16"])
def test_equal_sigmoids_of_which_one_is_made_whole(dtype: str | None) -> None:
    """The fp16 model of a fault that other compilers had: merged, and the cast moved."""
    model = read(
        "g (float16 a, float16 b) => (float16 y, int64 k, bool o, int32 q) <int64 lo = {-1}, int64 hi = {1}> "
        "{ s = Add(a, b) y = Sigmoid(s) t = Sigmoid(s) i = Cast<to=7>(t) j = Max(i, lo) k = Min(j, hi) "
        "c = Cast<to=6>(a) d = Cast<to=6>(a) o = Cast<to=9>(d) q = Mul(c, d) }"
    )
    got = execute(model, {"a": HALF(4.742), "b": HALF(6.883)}, dtype)
    assert (got["k"], got["o"], got["q"]) == (1, True, 16)
    assert abs(float(got["y"]) - 1.0) < 1e-5


@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("scale", [0.08, 0.1, 0.3, 7.0, 1 / 255])
def test_quotients_by_a_number_before_a_rounding_are_quotients(scale: float, dtype: str | None) -> None:
    s = np.float32(scale)
    model = read(
        "g (float[121] x) => (int8[121] y, float[121] r, float[121] f, bool[121] e, float[121] v) "
        f"<float s = {{{float(s)!r}}}, int8 z = {{0}}, float three = {{3.0}}, float[121] k = {{"
        + ", ".join(repr(float(k)) for k in range(-60, 61))
        + "}> { y = QuantizeLinear(x, s, z) q = Div(x, s) r = Round(q) p = Div(x, s) t = Mul(p, three) "
        "f = Floor(t) d = Div(x, s) e = Equal(d, k) m = Reciprocal(s) n = Div(x, s) v = Ceil(n) }"
    )
    ties = (np.arange(-60, 61).astype(np.float32) + np.float32(0.5)) * s
    whole = np.arange(-60, 61).astype(np.float32) * s
    for x in (ties, whole):
        got, exact = execute(model, {"x": x}, dtype), x / s
        np.testing.assert_array_equal(got["y"], np.rint(exact).astype(np.int8))
        np.testing.assert_array_equal(got["r"], np.rint(exact))
        np.testing.assert_array_equal(got["f"], np.floor(exact * np.float32(3)))
        np.testing.assert_array_equal(got["e"], exact == np.arange(-60, 61))
        np.testing.assert_array_equal(got["v"], np.ceil(exact))


def test_a_mean_before_a_rounding_is_a_quotient() -> None:
    """49 halves are 24.5; times the nearest number to 1/49 that is less than a half."""
    x = np.repeat(np.arange(-20, 20).astype(np.float32) + np.float32(0.5), 49).reshape(40, 49)
    model = read(
        "g (float[40,49] x) => (float[40] y) <int64[1] axis = {1}> "
        "{ m = ReduceMean<keepdims=0>(x, axis) y = Round(m) }"
    )
    got = execute(model, {"x": x}, "fp32")["y"]
    np.testing.assert_array_equal(got, np.rint(x.sum(1) / np.float32(49)))


def test_a_root_before_a_rounding_is_a_quotient() -> None:
    d = np.array([2, 3, 5, 7, 11, 98, 50, 18], np.float32)
    x = np.sqrt(d) * np.float32(2.5)
    model = read("g (float[8] x, float[8] d) => (float[8] y) { r = Sqrt(d) q = Div(x, r) y = Round(q) }")
    got = execute(model, {"x": x, "d": d}, "fp32")["y"]
    np.testing.assert_array_equal(got, np.rint(x / np.sqrt(d)))


@pytest.mark.parametrize(("divisor", "becomes"), [(8.0, "mul"), (0.08, "div"), (-0.25, "mul")])
def test_only_powers_of_two_have_an_exact_reciprocal(divisor: float, becomes: str) -> None:
    from mtia_emu.compiler.passes import Legalise

    graph = text.parse(
        f"graph g {{\n in %x : fp32[4]\n const %c : fp32[] = [{divisor}]\n %q : fp32[4] = div(%x, %c)\n"
        " %y : fp32[4] = round(%q)\n out %y\n}"
    )
    assert [n.op for n in Legalise()(check(graph)).nodes] == [becomes, "round"]
