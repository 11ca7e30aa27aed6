"""The SIMD engine: the value of every function at points where it is known, its passes, and what it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.units.simd import FUNCTIONS, REDUCTIONS, compute, fold, rounded
from mtia_emu.types import FP16, FP32, FP64

E, INF, NAN = math.e, math.inf, math.nan
FLOAT, INT, BOOL = np.float32, np.int32, np.bool_
SIMD = load_chip("tiny").pe.simd
TRUTH = ([False, False, True, True], [False, True, False, True])
# A function, its operands, what it gives: values that are known, or follow from others by its definition.
POINTS: tuple[tuple[str, type, tuple[list[float], ...], list[float]], ...] = (
    ("copy", FLOAT, ([-1.5, 0, INF],), [-1.5, 0, INF]),
    ("neg", FLOAT, ([-1.5, 2],), [1.5, -2]),
    ("abs", FLOAT, ([-1.5, 2],), [1.5, 2]),
    ("sign", FLOAT, ([-1.5, 0, 2],), [-1, 0, 1]),
    ("floor", FLOAT, ([-1.5, 1.5],), [-2, 1]),
    ("ceil", FLOAT, ([-1.5, 1.5],), [-1, 2]),
    ("round", FLOAT, ([0.5, 1.5, 2.5, -0.5],), [0, 2, 2, 0]),  # ties to even
    ("relu", FLOAT, ([-1.5, 0, 2],), [0, 0, 2]),
    ("not", BOOL, ([False, True],), [True, False]),
    ("isnan", FLOAT, ([NAN, INF, 1],), [True, False, False]),
    ("isinf", FLOAT, ([NAN, -INF, 1],), [False, True, False]),
    ("exp", FLOAT, ([0, 1, -INF],), [1, E, 0]),
    ("log", FLOAT, ([1, E, 0],), [0, 1, -INF]),
    ("sin", FLOAT, ([0, math.pi / 6],), [0, 0.5]),
    ("cos", FLOAT, ([0, math.pi / 3],), [1, 0.5]),
    ("tanh", FLOAT, ([0, math.log(3)],), [0, 0.8]),  # (9 - 1) / (9 + 1)
    ("sigmoid", FLOAT, ([0, math.log(3), -math.log(3)],), [0.5, 0.75, 0.25]),
    ("erf", FLOAT, ([0, 1, -1],), [0, 0.84270079, -0.84270079]),  # Abramowitz and Stegun, table 7.1
    (
        "gelu",
        FLOAT,
        ([0, 1, -1],),
        [0, 0.84134475, -0.15865525],
    ),  # x times the normal distribution, table 26.1
    ("gelu_tanh", FLOAT, ([0, 1, -1],), [0, 0.84119199, -0.15880801]),
    ("silu", FLOAT, ([0, math.log(3)],), [0, 0.75 * math.log(3)]),
    ("softplus", FLOAT, ([0, math.log(3)],), [math.log(2), math.log(4)]),
    ("sqrt", FLOAT, ([0, 9],), [0, 3]),
    ("rsqrt", FLOAT, ([4, 0.25],), [0.5, 2]),
    ("reciprocal", FLOAT, ([4, -0.5],), [0.25, -2]),
    ("add", FLOAT, ([1, 2], [3, -5]), [4, -3]),
    ("sub", FLOAT, ([1, 2], [3, -5]), [-2, 7]),
    ("mul", FLOAT, ([1, 2], [3, -5]), [3, -10]),
    ("max", FLOAT, ([1, 2], [3, -5]), [3, 2]),
    ("min", FLOAT, ([1, 2], [3, -5]), [1, -5]),
    ("div", FLOAT, ([1, 2], [4, -5]), [0.25, -0.4]),
    ("div", INT, ([7, -7, 7, -7], [2, 2, -2, -2]), [3, -3, -3, 3]),  # towards zero
    ("mod", INT, ([7, -7, 7, -7], [3, 3, -3, -3]), [1, 2, -2, -1]),  # the sign of the divisor
    ("fmod", INT, ([7, -7, 7, -7], [3, 3, -3, -3]), [1, -1, 1, -1]),  # that of the dividend
    ("mod", FLOAT, ([5.5, -5.5], [2, 2]), [1.5, 0.5]),
    ("fmod", FLOAT, ([5.5, -5.5], [2, 2]), [1.5, -1.5]),
    ("pow", FLOAT, ([2, 9, 5], [10, 0.5, 0]), [1024, 3, 1]),
    ("prelu", FLOAT, ([-4, 4], [0.25, 0.25]), [-1, 4]),
    ("equal", INT, ([1, 2, 3], [2, 2, 2]), [False, True, False]),
    ("less", INT, ([1, 2, 3], [2, 2, 2]), [True, False, False]),
    ("less_equal", INT, ([1, 2, 3], [2, 2, 2]), [True, True, False]),
    ("greater", INT, ([1, 2, 3], [2, 2, 2]), [False, False, True]),
    ("greater_equal", INT, ([1, 2, 3], [2, 2, 2]), [False, True, True]),
    ("and", BOOL, TRUTH, [False, False, False, True]),
    ("or", BOOL, TRUTH, [False, True, True, True]),
    ("xor", BOOL, TRUTH, [False, True, True, False]),
    ("asin", FLOAT, ([0, 0.5],), [0, math.pi / 6]),
    ("acos", FLOAT, ([1, 0.5],), [0, math.pi / 3]),
    ("atan", FLOAT, ([0, 1],), [0, math.pi / 4]),
    ("sinh", FLOAT, ([0, math.log(2)],), [0, 0.75]),
    ("cosh", FLOAT, ([0, math.log(2)],), [1, 1.25]),
    ("asinh", FLOAT, ([0, 0.75],), [0, math.log(2)]),
    ("acosh", FLOAT, ([1, 1.25],), [0, math.log(2)]),
    ("atanh", FLOAT, ([0, 0.8],), [0, math.log(3)]),
    ("bit_not", INT, ([0, 5],), [-1, -6]),
    ("bit_and", INT, ([12], [10]), [8]),
    ("bit_or", INT, ([12], [10]), [14]),
    ("bit_xor", INT, ([12], [10]), [6]),
    ("bit_low4", INT, ([0x37, 0x3F],), [7, -1]),
    ("bit_high4", INT, ([0x37, 0xF3],), [3, -1]),
    ("shift_left", INT, ([3], [2]), [12]),
    ("shift_right", INT, ([13], [2]), [3]),
    ("philox", INT, ([0], [0], [0]), [0x6627E8D5]),  # Random123's known answers, philox4x32 10
    ("round_random", FLOAT, ([1 + 2**-8, 1 + 2**-8], [0.25, 0.75]), [1, 1 + 2**-7]),
)
TABLE = (
    "exp log sin cos tanh sigmoid erf gelu gelu_tanh silu softplus asin acos atan sinh cosh asinh acosh atanh"
)
ITERATED = "sqrt rsqrt reciprocal div mod fmod pow"


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p[0]}-{p[1].__name__}")
def test_a_function_has_its_value(point: tuple[str, type, tuple[list[float], ...], list[float]]) -> None:
    name, kind, operands, wanted = point
    out = {"same": kind, "bool": BOOL, "float": FLOAT}[FUNCTIONS[name].result]
    got = compute(name, [np.array(x, kind) for x in operands], np.dtype(out))
    np.testing.assert_allclose(got.astype(float), np.array(wanted, float), rtol=1e-5, atol=1e-6)
    assert FUNCTIONS[name].arity == len(operands)


def test_where_chooses() -> None:
    got = compute("where", [np.array([True, False]), np.float32([1, 2]), np.float32([3, 4])], np.dtype(FLOAT))
    assert got.tolist() == [1, 4]


def test_every_function_has_a_point() -> None:
    assert {name for name, *_ in POINTS} | {"where"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_the_passes_of_its_kind(name: str) -> None:
    """What is read from a table and interpolated takes 2, what is iterated from a seed 4, the rest 1; random
    bits and rounding by them take as many as they have integer operations."""
    drawn = {"philox": 24, "round_random": 3}.get(name, 0)
    assert FUNCTIONS[name].passes == 1 + drawn + (name in TABLE.split()) + 3 * (name in ITERATED.split())


@pytest.mark.parametrize(
    ("name", "results"),
    [("sum", [[6], [2]]), ("max", [[3], [4]]), ("min", [[1], [-3]]), ("prod", [[6], [-12]])],
)
def test_a_reduction_goes_along_rows(name: str, results: list[list[float]]) -> None:
    assert fold(name, np.float32([[1, 2, 3], [4, 1, -3]]), np.dtype(FLOAT)).tolist() == results


def test_every_reduction_is_held_to_its_values() -> None:
    assert set(REDUCTIONS) == {"sum", "max", "min", "prod"}  # the parameters of the test above


def test_narrow_floats_are_summed_wide() -> None:
    """2048 halves of 1: in fp16 the sum of halves sticks at 2048 where it should be 4096."""
    assert fold("sum", np.ones((1, 4096), np.float16), np.dtype(np.float16)).item() == 4096


def test_a_value_is_rounded_once() -> None:
    """1 + 2^-8 + 2^-30 is above a tie of bf16: through fp32 it would be one, and go to even, to 1."""
    import ml_dtypes

    above = np.array([1 + 2**-8 + 2**-30])
    assert rounded(above, np.dtype(ml_dtypes.bfloat16)).astype(float).item() == 1 + 2**-7


def test_what_a_command_takes() -> None:
    """16 B a cycle: 32 elements of 2 B, 4 passes. Then 4 cycles until the first result."""
    assert tuple(map(float, SIMD.cost(32, 2, 4))) == (16, 4)
    assert tuple(map(float, SIMD.product_cost(192, FP32))) == (48, 4)
    assert tuple(map(float, SIMD.product_cost(192, FP64))) == (96, 4)
    assert tuple(map(float, SIMD.row_cost(16))) == (6, 4)  # 2, and 16 x 4 B


def test_wide_types_are_slower_and_narrow_ones_no_faster() -> None:
    assert [SIMD.macs_per_cycle(kind) for kind in (FP16, FP32, FP64)] == [4, 4, 2]
