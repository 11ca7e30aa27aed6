"""Measured products of TPUs, held to what the accuracy page says of them; nothing was fitted to them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mtia_emu.machine.chip import load_chip
from mtia_emu.zoo.operators import Gemm

DOCS = Path(__file__).parents[1] / "docs"
sys.path[:0] = [str(DOCS), str(DOCS / "accuracy")]
import tpu  # noqa: E402
from mtia_cases import timed  # noqa: E402


def test_large_products_of_tpu_v6e_lie_between_all_in_vmem_and_all_in_hbm() -> None:
    large = [p for p in tpu.products() if min(p.m, p.n, p.k) > 256]
    assert len(large) == 45
    assert np.mean([p.held for p in large]) > 0.8
    vmem, hbm = (np.median([getattr(p, at) / p.measured for p in large]) for at in ("vmem", "hbm"))
    assert 0.75 < vmem < 0.95 < hbm < 1.2


def test_each_kind_of_product_is_counted_once() -> None:
    assert all(sum(of(p.m, p.n, p.k) for of in tpu.KINDS.values()) == 1 for p in tpu.products())
    table = tpu.tpu_v6e().splitlines()
    assert len(table) == 2 + len(tpu.KINDS) + 1 and table[-1].startswith("| all | 68 |")


def test_square_products_of_tpu_v5e() -> None:
    chip = load_chip("tpu-v5e")
    for side, us in tpu.V5E_US.items():
        ratio = timed(Gemm(side, side, side, "bf16"), chip, "dram").seconds * 1e6 / us
        assert 0.85 < ratio < 1.0


def test_no_product_of_the_table_is_slowed_by_the_limit_of_power() -> None:
    chip, free = load_chip("tpu-v6e"), load_chip("tpu-v6e", {"tdp_w": 5000.0})
    largest = Gemm(4913, 5573, 4631, "bf16")
    assert timed(largest, chip, "dram").seconds == timed(largest, free, "dram").seconds
