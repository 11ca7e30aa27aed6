"""The closed form against SCALE-Sim, and the stepped array against the closed form and the summation rule."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.units import systolic
from mtia_emu.machine.units.systolic import step, systolic_cycles
from mtia_emu.numerics import tile_matmul

FLOWS = ("ws", "os", "is")
RUNS = Path(__file__).parents[2] / "data" / "scalesim_cycles.csv"


@pytest.fixture(scope="module")
def runs() -> list[dict[str, str]]:
    """Return the runs of SCALE-Sim."""
    with RUNS.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def arguments(run: dict[str, str]) -> dict[str, Any]:
    sizes = {key.lower(): int(run[key]) for key in "MKN"}
    rows, cols = int(run["array_rows"]), int(run["array_cols"])
    return {**sizes, "rows": rows, "cols": cols, "dataflow": run["dataflow"]}


def test_cycles_are_those_of_scalesim(runs: list[dict[str, str]]) -> None:
    wrong = [run for run in runs if systolic_cycles(**arguments(run)) != int(run["compute_cycles"]) + 1]
    assert len(runs) == 216
    assert not wrong


def test_words_are_those_of_scalesim(runs: list[dict[str, str]]) -> None:
    for run in runs:
        here = arguments(run)
        a, b, out = systolic.sram_words(**here)
        if run["dataflow"] == "os":  # SCALE-Sim counts rows + cols empty writes in each fold
            out += systolic.folds(**here) * (here["rows"] + here["cols"])
        counted = tuple(int(run[f"sram_{name}"]) for name in ("ifmap_reads", "filter_reads", "ofmap_writes"))
        assert (a, b, out) == counted, run


def operands(kind: str, m: int, k: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "int8":
        return rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    if kind == "int32":  # wraps around
        low, high = -(2**31), 2**31
        return rng.integers(low, high, (m, k), np.int32), rng.integers(low, high, (k, n), np.int32)
    dtype = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float32}[kind]
    spread = np.exp2(rng.integers(-6, 6, (m, k)))  # unequal sizes, so that the order of the sum shows
    return (rng.standard_normal((m, k)) * spread).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


SIZE = st.integers(1, 40)
SIDE = st.integers(1, 12)


@settings(max_examples=150)
@given(
    m=SIZE,
    k=SIZE,
    n=SIZE,
    rows=SIDE,
    cols=SIDE,
    flow=st.sampled_from(FLOWS),
    kind=st.sampled_from(["int8", "int32", "fp16", "bf16", "fp32"]),
    seed=st.integers(0, 99),
)
def test_stepped_array_proves_the_closed_form(
    m: int, k: int, n: int, rows: int, cols: int, flow: str, kind: str, seed: int
) -> None:
    a, b = operands(kind, m, k, n, seed)
    product, cycles, folds = step(a, b, rows=rows, cols=cols, dataflow=flow)
    assert cycles == systolic_cycles(m, k, n, rows=rows, cols=cols, dataflow=flow)
    assert folds == systolic.folds(m, k, n, rows=rows, cols=cols, dataflow=flow)
    expected = np.zeros((m, n), np.int32 if kind.startswith("int") else np.float32)
    tile_matmul(a, b, expected, k if flow == "os" else rows)
    assert product.dtype == expected.dtype
    np.testing.assert_array_equal(product.view(np.int32), expected.view(np.int32))  # bits, not values


@pytest.mark.parametrize("flow", FLOWS)
def test_overflow_and_signed_zero_have_the_same_bits(flow: str) -> None:
    a = np.array([[3e38, -0.0, 1.0], [-0.0, -0.0, -0.0], [1e-30, -1e-30, 0.0]], np.float32)
    b = np.array([[3.0, 0.0], [1.0, 2.0], [-1.0, 1e-30]], np.float32)
    product, _, _ = step(a, b, rows=2, cols=2, dataflow=flow)
    expected = np.zeros((3, 2), np.float32)
    tile_matmul(a, b, expected, 3 if flow == "os" else 2)
    np.testing.assert_array_equal(product.view(np.int32), expected.view(np.int32))
    assert np.isposinf(product[0, 0])


@pytest.mark.parametrize("short, long", [(v, k) for k, v in systolic.DATAFLOWS.items()])
def test_long_names_mean_the_same(short: str, long: str) -> None:
    a, b = operands("int8", 5, 7, 3, 0)
    brief, full = (step(a, b, rows=2, cols=4, dataflow=name) for name in (short, long))
    assert brief[1:] == full[1:] and (brief[0] == full[0]).all()
    assert systolic_cycles(5, 7, 3, rows=2, cols=4, dataflow=short) == full[1]


def test_one_multiply_add_takes_its_cycles_exactly() -> None:
    one = np.ones((1, 1), np.int8)
    for flow, cycles in (("ws", 2), ("is", 2), ("os", 1)):  # load, multiply; os: multiply
        assert step(one, one, rows=1, cols=1, dataflow=flow)[1] == cycles


def test_errors_say_what_would_be_right() -> None:
    one = np.ones((2, 2), np.float32)
    with pytest.raises(UserError, match="unknown dataflow 'weight'; did you mean 'weight_stationary'"):
        systolic_cycles(1, 1, 1, rows=1, cols=1, dataflow="weight")
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        systolic_cycles(1, 0, 1, rows=1, cols=1, dataflow="ws")
    with pytest.raises(UserError, match="rows must be at least 1, got -3"):
        step(one, one, rows=-3, cols=1, dataflow="ws")
    with pytest.raises(UserError, match=r"operands are \(2, 2\) and \(1, 2\); right: \[m,k\] and \[k,n\]"):
        step(one, one[:1], rows=1, cols=1, dataflow="ws")
    with pytest.raises(UserError, match="float32 times int32: both must be floats or both integers"):
        step(one, one.astype(np.int8), rows=1, cols=1, dataflow="ws")
