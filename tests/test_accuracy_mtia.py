"""Published results of MTIA, held to what the accuracy page says of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mtia_emu.compiler.ops import OPS

from mtia_emu.machine.chip import load_chip
from mtia_emu.results.report import Layer
from mtia_emu.results.spans import Track

sys.path[:0] = [str(Path(__file__).parents[1] / "docs" / "accuracy")]
import kinds  # noqa: E402
import mtia  # noqa: E402
import mtia_cases  # noqa: E402
from mtia_cases import Case, Gemm, timed  # noqa: E402

SPILLS = "4096 x 4096 x 4096"


def held_out(cases: list[Case]) -> np.ndarray:
    """Return the absolute errors of the cases that nothing was fitted to."""
    return np.array([abs(c.error) for c in cases if not c.fitted])


def test_fully_connected_layers_on_mtia_1() -> None:
    cases = [c for c in mtia_cases.fc(load_chip("mtia-1")) if c.name != SPILLS]
    assert len(cases) == 17
    assert max(abs(c.error) for c in cases) < 0.05
    assert np.median(held_out(cases)) < 0.02


def test_embedding_bags_on_mtia_1() -> None:
    cases = list(mtia_cases.tbe(load_chip("mtia-1")))
    assert np.median([abs(c.error) for c in cases]) < 0.15
    rate = {c.name: c.here for c in cases}
    small, large = (rate[f"pooling 50, {rows} rows of 256, batch 256"] for rows in (100, 1000000))
    assert small > large  # what the cache holds is faster
    assert (
        small > rate["pooling 20, 100 rows of 256, batch 256"] > rate["pooling 1, 100 rows of 256, batch 256"]
    )
    assert small > rate["pooling 50, 100 rows of 64, batch 256"]


def test_random_rows_of_dram_on_mtia_1() -> None:
    cases = [c for c in mtia_cases.tbe(load_chip("mtia-1")) if c.bound_by == "dram"]
    assert len(cases) == 6 and max(abs(c.error) for c in cases) < 0.2
    assert np.median(held_out(cases)) < 0.15


def test_operands_in_lpddr_are_no_faster_than_its_pins() -> None:
    chip = load_chip("mtia-1")
    for case in mtia_cases.fc_lpddr(chip):
        m, k, n = map(int, case.name.split(" x "))
        assert (m * k + k * n + 4 * m * n) / case.here < chip.dram.bytes_per_s / 1e6, case.name
    (turned,) = (
        x for x in mtia_cases.other_ops(chip, "mtia1_ops_lpddr.csv", "dram") if x.name == "Transpose"
    )
    assert 50 < turned.here < turned.published


def test_products_on_mtia_2i_to_which_nothing_was_fitted() -> None:
    chip = load_chip("mtia-2i")
    square = timed(Gemm(2048, 2048, 2048, "fp16"), chip, "sram")
    assert 0.90 < square.utilization < 0.97
    deep = timed(Gemm(512, 26592, 2048, "fp16"), chip, "weights-dram")
    assert 0.90 < mtia_cases.pins_share(deep, chip) < 0.99
    narrow = timed(Gemm(2048, 2048, 2048, "fp16"), chip, "sram", "int8")
    assert 1.4 < square.seconds / narrow.seconds < 1.8


def test_every_op_is_of_one_published_kind() -> None:
    listed = [op for ops in kinds.KINDS.values() for op in ops]
    assert len(listed) == len(set(listed)) and set(listed) <= set(OPS)
    assert {kinds.kind_of(op) for op in OPS} == {*kinds.KINDS, kinds.OTHERS}


def test_time_is_summed_by_published_operator() -> None:
    """Two bags in a launch with a product, which ran for half of it: each has its own time."""
    chip = Track("c", 1.0)
    bags = Layer("b", "embedding_bags", "embedding_bag", 0, 80, 0, 0, 0, 0.0, "dram", own=60.0, track=chip)
    product = Layer("p", "matmul_map", "matmul", 0, 40, 0, 0, 0, 0.0, "array", own=20.0, track=chip)
    found = kinds.cycles_by_kind([bags, product, replace(bags, op="embedding_bag", own=None)])
    assert found == {"EmbeddingBag": 140.0, "FC": 20.0}
    with pytest.raises(KeyError, match=r"embedding_bag \+ matmul"):
        kinds.kind_of("embedding_bag + matmul")
    rows = [{"op": "FC", "batch_64_percent": "1"}, {"op": "Concat", "batch_64_percent": "2"}]
    assert mtia.breakdown(rows, {64: {"FC": 12.5}}) == [["FC", "1", "12.5"], ["Concat", "2", "no layer"]]
