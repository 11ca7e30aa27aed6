"""Ops on the processor core: the library's values, and its failures as the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from harness import Array, packed, run
from mtia_emu.kernels.rows.scalar import emit_scalar

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Block
from mtia_emu.types import FP32, INT64


def cumulate(inputs: Sequence[Array], attrs: Mapping[str, Any]) -> list[Array]:
    return [np.cumsum(inputs[0], axis=attrs["axis"])]


def block() -> Block:
    chip = load_chip("tiny")
    return emit_scalar(
        chip, "cumsum", {"axis": 1}, [packed(FP32, (3, 4))], [packed(FP32, (3, 4), "sram", written=True)]
    )


def test_an_op_runs_by_its_reference() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (found,) = run(block(), load_chip("tiny"), [x], {"cumsum": cumulate}).outputs
    np.testing.assert_array_equal(found, np.cumsum(x, axis=1))


def test_its_elements_are_counted() -> None:
    assert block().commands["rows"].tolist() == [24]


def test_an_op_without_a_reference_is_refused() -> None:
    with pytest.raises(UserError, match="op cumsum has no reference to run on a core"):
        run(block(), load_chip("tiny"), [np.zeros((3, 4), np.float32)], {})


def test_an_op_that_fails_names_itself() -> None:
    def broken(inputs: Sequence[Array], attrs: Mapping[str, Any]) -> list[Array]:
        raise ValueError("axis 7 is out of bounds")

    with pytest.raises(UserError, match="op cumsum refuses its operands: axis 7"):
        run(block(), load_chip("tiny"), [np.zeros((3, 4), np.float32)], {"cumsum": broken})


def test_a_result_of_another_size_is_refused() -> None:
    def short(inputs: Sequence[Array], attrs: Mapping[str, Any]) -> list[Array]:
        return [np.zeros(5, np.int64)]

    out = packed(INT64, (6,), written=True)
    with pytest.raises(UserError, match="gives 5 elements"):
        run(emit_scalar(load_chip("tiny"), "range", {}, [], [out]), load_chip("tiny"), [], {"range": short})
