"""The matrix unit: bounds, monotony, the published rates, and SCALE-Sim's array as a special case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtia_emu.errors import UserError
from mtia_emu.machine.units import systolic
from mtia_emu.machine.units.matrix import Matrix

Sizes = tuple[int, int, int]
FLOWS = ("ws", "os", "is")
RATES = {"int8": 1.0, "fp16": 0.5, "bf16": 0.5}
DPE: dict[str, Any] = {
    "rows": 32,
    "cols": 32,
    "arrays": 1,
    "dataflow": "ws",
    "stationary_buffers": 2,
    "skewed": False,
    "fill_cycles": 8,
    "rates": RATES,
}
BARE = {**DPE, "stationary_buffers": 1, "skewed": True, "fill_cycles": 0}

SIDE = st.integers(1, 40)
UNITS = st.builds(
    Matrix,
    rows=SIDE,
    cols=SIDE,
    arrays=st.integers(1, 3),
    dataflow=st.sampled_from(FLOWS),
    stationary_buffers=st.sampled_from([1, 2]),
    skewed=st.booleans(),
    fill_cycles=st.integers(0, 20),
    rates=st.fixed_dictionaries({"int8": st.just(1.0), "fp16": st.sampled_from([0.125, 0.29, 0.5, 1.0])}),
)
SIZES = st.tuples(*[st.integers(1, 300)] * 3)
DTYPE = st.sampled_from(["int8", "fp16"])


@given(unit=UNITS, sizes=SIZES, dtype=DTYPE)
def test_no_faster_than_the_peak(unit: Matrix, sizes: Sizes, dtype: str) -> None:
    least = np.prod(sizes) / unit.macs_per_cycle(dtype)
    assert unit.busy(*sizes, dtype) >= least * (1 - 1e-9)
    assert unit.latency(*sizes, dtype) >= unit.busy(*sizes, dtype)


@given(unit=UNITS, sizes=SIZES, more=st.tuples(*[st.integers(0, 50)] * 3), dtype=DTYPE)
def test_more_work_takes_no_less(unit: Matrix, sizes: Sizes, more: Sizes, dtype: str) -> None:
    larger = (sizes[0] + more[0], sizes[1] + more[1], sizes[2] + more[2])
    assert unit.busy(*sizes, dtype) <= unit.busy(*larger, dtype)
    assert unit.latency(*sizes, dtype) <= unit.latency(*larger, dtype)
    assert np.all(np.less_equal(unit.operand_reads(*sizes, dtype), unit.operand_reads(*larger, dtype)))


@given(unit=UNITS, dtype=DTYPE, sizes=st.lists(SIZES, min_size=1, max_size=5))
def test_arrays_of_commands_are_timed_one_by_one(unit: Matrix, dtype: str, sizes: list[Sizes]) -> None:
    m, k, n = np.array(sizes, np.int32).T
    for method in (unit.busy, unit.latency, unit.operand_reads):
        together = np.asarray(method(m, k, n, dtype))
        apart = np.stack([method(*each, dtype) for each in sizes], axis=-1)
        np.testing.assert_array_equal(together, apart)
        assert together.dtype == np.int64


@given(rows=SIDE, cols=SIDE, flow=st.sampled_from(FLOWS), sizes=SIZES)
def test_a_bare_array_is_that_of_scalesim(rows: int, cols: int, flow: str, sizes: Sizes) -> None:
    unit = Matrix(**{**BARE, "rows": rows, "cols": cols, "dataflow": flow})
    cycles = systolic.systolic_cycles(*sizes, rows=rows, cols=cols, dataflow=flow)
    assert unit.busy(*sizes, "int8") == unit.latency(*sizes, "int8") == cycles
    words = systolic.sram_words(*sizes, rows=rows, cols=cols, dataflow=flow)
    assert tuple(unit.operand_reads(*sizes, "int8")) == words[:2]


@given(unit=UNITS, sizes=SIZES, dtype=DTYPE)
def test_a_second_buffer_hides_folds_but_not_the_first(unit: Matrix, sizes: Sizes, dtype: str) -> None:
    one, two = (unit.model_copy(update={"stationary_buffers": buffers}) for buffers in (1, 2))
    if unit.dataflow != "os":
        assert two.busy(*sizes, dtype) <= one.busy(*sizes, dtype)
        assert two.latency(*sizes, dtype) <= one.latency(*sizes, dtype)
        if unit.folds(*sizes, dtype) == 1:
            assert two.latency(*sizes, dtype) == one.latency(*sizes, dtype)


def test_mtia_1_multiplies_32x32x32_int8_in_32_cycles() -> None:
    unit = Matrix(**DPE)
    assert unit.macs_per_cycle("int8") == 1024
    assert unit.macs_per_cycle("fp16") == 512
    assert unit.lanes("fp16") == 16
    assert unit.busy(32, 32, 32, "int8") == 32
    assert unit.busy(32, 16, 32, "fp16") == 32
    assert unit.busy(32, 32, 32, "fp16") == 64
    assert unit.latency(32, 32, 32, "int8") == 32 + 32 + 8  # the first load, the stream, the pipeline


def test_mtia_2i_has_two_arrays_side_by_side() -> None:
    unit = Matrix(**{**DPE, "arrays": 2})
    assert unit.macs_per_cycle("int8") == 2048
    assert unit.busy(64, 32, 64, "int8") == 64
    assert unit.busy(64, 32, 65, "int8") == 128
    a_words, b_words = unit.operand_reads(64, 32, 64, "int8")
    assert (a_words, b_words) == (2 * 64 * 32, 32 * 64)


def test_a_slow_dtype_takes_an_output_stationary_array_several_cycles() -> None:
    unit = Matrix(**{**BARE, "dataflow": "os"})
    assert unit.busy(32, 10, 32, "fp16") == 20 + 32 + 32 - 2
    assert unit.macs_per_cycle("fp16") == 512


def test_an_unlisted_dtype_is_refused() -> None:
    unit = Matrix(**DPE)
    assert unit.supports("bf16") and not unit.supports("fp32")
    for method in (unit.busy, unit.latency, unit.operand_reads):
        with pytest.raises(UserError, match=r"does not multiply fp32 \(right: int8, fp16, bf16\)"):
            method(1, 1, 1, "fp32")


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"rates": {"int_8": 1.0}}, "unknown dtype 'int_8'; did you mean 'int8'"),
        ({"rates": {"int8": 0.0}}, "the rate of int8 must be above 0, got 0.0"),
        ({"rates": {"int8": float("inf")}}, "finite"),
        ({"rates": {}}, "at least 1"),
        ({"dataflow": "rs"}, "'ws', 'os' or 'is'"),
        ({"stationary_buffers": 3}, "1 or 2"),
        ({"rows": 0}, "greater than 0"),
        ({"lanes": 4}, "Extra inputs"),
    ],
)
def test_a_wrong_parameter_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Matrix(**{**DPE, **wrong})


def test_every_parameter_names_its_unit() -> None:
    for field in Matrix.model_fields.values():
        assert (
            field.description
            and isinstance(field.json_schema_extra, dict)
            and field.json_schema_extra["unit"]
        )
