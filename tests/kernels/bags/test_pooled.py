"""Embedding bags: every mode, empty bags, weights, quantised rows, indices that are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from harness import Array, chips, packed, run
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags
from mtia_emu.kernels.builder import NoRoom

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.types import FP16, FP32, INT32, INT64, UINT8, DType


@st.composite
def bags(draw: st.DrawFn) -> dict[str, Any]:
    """Return an embedding bag's operands; some bags are empty."""
    rows, dim = draw(st.integers(1, 12)), draw(st.integers(1, 24))
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=20))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    lookups = max(1, sum(sizes))
    kind = draw(st.sampled_from([np.float16, np.float32]))
    return {
        "table": rng.standard_normal((rows, dim)).astype(kind),
        "indices": rng.integers(0, rows, (1, lookups)),
        "offsets": np.concatenate([[0], np.cumsum(sizes)])[None].astype(np.int32),
        "weights": rng.standard_normal((1, lookups)).astype(np.float32) if draw(st.booleans()) else None,
    }


def pooled(table: Array, b: dict[str, Any], mode: str) -> Array:
    """Return the bags, added in fp32, one row after another."""
    offsets = b["offsets"][0]
    out = np.zeros((len(offsets) - 1, table.shape[1]), np.float32)
    for i, (low, high) in enumerate(pairwise(offsets)):
        rows = table[b["indices"][0, low:high]].astype(np.float32)
        if b["weights"] is not None:
            rows = rows * b["weights"][0, low:high, None]
        if high > low:
            out[i] = (
                rows.max(axis=0)
                if mode == "max"
                else rows.sum(axis=0) / (high - low if mode == "mean" else 1)
            )
    return out


def bag_run(
    chip: Chip, b: dict[str, Any], mode: str, table: Array, out: DType, dim: int, *, quantised: bool = False
) -> Any:
    kinds = {np.dtype(np.float16): FP16, np.dtype(np.float32): FP32, np.dtype(np.uint8): UINT8}
    weights = b["weights"]
    operands = BagOperands(
        packed(kinds[table.dtype], table.shape),
        packed(INT64, b["indices"].shape),
        packed(INT32, b["offsets"].shape),
        packed(out, (b["offsets"].size - 1, dim), "sram", written=True),
        None if weights is None else packed(FP32, weights.shape),
    )
    block = emit_embedding_bags(chip, [operands], mode, quantised=quantised)
    given = [table, b["indices"], b["offsets"], *([] if weights is None else [weights])]
    return run(block, chip, given)


@settings(max_examples=120)
@given(chips(), bags(), st.sampled_from(["sum", "mean", "max"]), st.sampled_from([FP16, FP32]))
def test_embedding_bag(chip: Chip, b: dict[str, Any], mode: str, out: DType) -> None:
    done = bag_run(chip, b, mode, b["table"], out, b["table"].shape[1])
    want = pooled(b["table"], b, mode)
    np.testing.assert_allclose(
        done.outputs[0].astype(np.float32), want, rtol=2e-3 if out is FP16 else 1e-5, atol=1e-3
    )
    found = done.execution.lookups[0]
    assert found.counts.sum() == len(found.rows) == b["offsets"][0, -1]
    np.testing.assert_array_equal(found.rows, b["indices"][0, : b["offsets"][0, -1]])


@settings(max_examples=60)
@given(chips(), st.lists(bags(), min_size=2, max_size=5), st.sampled_from(["sum", "mean", "max"]))
def test_tables_of_one_width_share_a_block(chip: Chip, several: list[dict[str, Any]], mode: str) -> None:
    rng, operands, given_ = np.random.default_rng(0), [], []
    for b in several:
        b["table"] = rng.standard_normal((len(b["table"]), 6)).astype(np.float16)
        weights = None if b["weights"] is None else packed(FP32, b["weights"].shape)
        out = packed(FP32, (b["offsets"].size - 1, 6), "sram", written=True)
        index = packed(INT64, b["indices"].shape), packed(INT32, b["offsets"].shape)
        operands.append(BagOperands(packed(FP16, b["table"].shape), *index, out, weights))
        given_ += [b["table"], b["indices"], b["offsets"], *([] if weights is None else [b["weights"]])]
    done = run(emit_embedding_bags(chip, operands, mode), chip, given_)
    for found, b in zip(done.outputs, several, strict=True):
        np.testing.assert_allclose(found, pooled(b["table"], b, mode), rtol=1e-5, atol=1e-3)
    looked_up = sum(int(b["offsets"][0, -1]) for b in several)
    assert done.execution.lookups[0].counts.sum() == looked_up


@settings(max_examples=60)
@given(chips(), bags(), st.sampled_from(["sum", "mean", "max"]))
def test_quantised_rows(chip: Chip, b: dict[str, Any], mode: str) -> None:
    rng = np.random.default_rng(0)
    rows, dim = b["table"].shape
    codes = rng.integers(0, 256, (rows, dim)).astype(np.uint8)
    tail = np.stack([rng.uniform(0.01, 0.1, rows), rng.standard_normal(rows)], axis=1).astype(np.float32)
    table = np.concatenate([codes, tail.view(np.uint8)], axis=1)
    done = bag_run(chip, b, mode, table, FP32, dim, quantised=True)
    want = pooled(codes.astype(np.float32) * tail[:, :1] + tail[:, 1:], b, mode)
    np.testing.assert_allclose(done.outputs[0], want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 9]])
def test_offsets_that_do_not_rise_are_refused(offsets: list[int]) -> None:
    b = {"indices": np.zeros((1, 4), np.int64), "offsets": np.array([offsets], np.int32), "weights": None}
    with pytest.raises(UserError, match="must rise from 0 to at most 4"):
        bag_run(load_chip("tiny"), b, "sum", np.ones((2, 3), np.float32), FP32, 3)


def test_a_row_that_does_not_fit_is_refused() -> None:
    b = {"indices": np.zeros((1, 4), np.int64), "offsets": np.array([[0, 4]], np.int32), "weights": None}
    with pytest.raises(NoRoom, match="a row of 4000 elements does not fit 16384 bytes"):
        bag_run(load_chip("tiny"), b, "sum", np.ones((2, 4000), np.float32), FP32, 4000)
