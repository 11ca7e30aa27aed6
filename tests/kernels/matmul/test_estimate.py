"""Estimates of products on the chip `tiny`, worked out by hand for a mapping of one tile a PE.

tiny: 2 x 2 PEs. A product of fp16 tiles 8 x 16 x 8 takes 4 folds of 8 rows: 32 cycles. A panel of 8 x 16 has
256 B: 16 cycles at the port, 8 on a link, 4 of SRAM. Issues take 2, the set-up of a transfer 4, SRAM's answer
10, DRAM's 50, a hop 1, a SIMD start 4.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mtia_emu.kernels.matmul.demand import DramUse
from mtia_emu.kernels.matmul.estimate import _paced
from mtia_emu.kernels.matmul.plan import MatmulProblem
from mtia_emu.kernels.matmul.search import ranked_matmul

from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP16, FP32


def estimated(k: int, n: int, mapping: str, b_space: str = "sram", **settings: float) -> float:
    """Return the cycles that a mapping of a product 16 x k x n is estimated to take."""
    problem = MatmulProblem(1, 16, k, n, FP16, FP16, FP32, "sram", b_space)
    ranked = ranked_matmul(problem, load_chip("tiny", settings), 1000)
    (cycles,) = (
        cycles for x, cycles in ranked if str(x).startswith(f"{mapping} ") and not (x.hold or x.stage)
    )
    return cycles


ROWS_M_COLS_N = "rows=m cols=n tile=8x8x16 outer=m"
ROWS_M_COLS_K = "rows=m cols=k tile=8x8x16 outer=m"


def test_a_product_out_of_sram() -> None:
    """Each PE multiplies 2 panels: its row shares a's, its column shares b's.

    Work: port 4 x 16 = 64, links of rows and of columns 2 x 8 each; SRAM (4 + 4) panels of 4, and 1024 B of
    results: 48; issues 4 x 2 and 2: 10; array 64; its reads 2 x 512 / 64 = 16; stores 256 / 16 = 16; SIMD 16
    and a start: 20. Together 270, the slowest 64.

    Way of the first panels: 10 + 2 hops + 4 = 16. Pace: 64. 2 % of the work that does not bound: 206 x 0.02.
    Both operands' first panels pass the port before the array starts: 32. Behind the last product 8 for the
    array's pipeline and first load; then the last tile: SIMD and store.
    16 commands at 0.04: 4 x 2 products, 2 x 2 loads of either operand.
    """
    assert estimated(32, 16, ROWS_M_COLS_N) == pytest.approx(16 + 64 + 206 * 0.02 + 32 + 8 + 32 + 16 * 0.04)


def test_a_product_whose_weights_come_from_dram() -> None:
    """b comes in runs of 32 B, half a burst: 1024 B are 2048 at the pins, 128 cycles, and bind.

    SRAM is left 4 panels of 4 and the results: 32; all that does not bind: 254. The way: 50 + 2 + 4. Panels
    of the whole k read whole bursts, 64 cycles: half of what is beyond a tenth more than these counts too.
    """
    found = estimated(32, 16, ROWS_M_COLS_N, "dram")
    again = (128 - 1.1 * 64) / 2
    assert found == pytest.approx(56 + 128 + 254 * 0.02 + 32 + 8 + 32 + 16 * 0.04 + again)


def test_a_product_split_along_k() -> None:
    """A PE multiplies one panel: a's are its own, b's come down its column; sums go one PE on.

    Work: port 32, the row's link 2 x 8, the column's 8; SRAM (4 + 2) x 4 and 512 B of results: 32; issues 6;
    array 32, its reads 8, stores 16, SIMD 20; sums 256 / 32 = 8. Together 178. Commands: 4, 4 and 2.
    """
    found = estimated(32, 8, ROWS_M_COLS_K)
    assert found == pytest.approx(16 + 32 + 146 * 0.02 + 32 + (8 + 8 + 16 + 16) + 10 * 0.04)


# A number of the chip, another value for it, and what a product out of SRAM then takes more.
RATES = (
    ("noc.hop_cycles", 11, 20),  # 2 hops of the first panels
    ("pe.dma.startup_cycles", 9, 5),
    ("sram.latency_s", 30e-9, 20),
    ("pe.dma.bytes_per_cycle", 8, 64 + 16 + 0.02 * 16),  # 128 binds; all stores and the last one 32, not 16
    ("noc.row_bytes_per_cycle", 16, 0.02 * 16),  # does not bind
    ("noc.col_bytes_per_cycle", 16, 0.02 * 16),
    ("pe.simd.bytes_per_cycle", 8, 16 + 0.02 * 16),  # 32 for the last tile, not 16
    ("pe.core.issue_cycles", 4, 0.02 * 10),
)


@pytest.mark.parametrize(("key", "value", "more"), RATES, ids=[key for key, _, _ in RATES])
def test_each_number_of_the_chip_tells_in_the_estimate(key: str, value: float, more: float) -> None:
    before, after = estimated(32, 16, ROWS_M_COLS_N), estimated(32, 16, ROWS_M_COLS_N, **{key: value})
    assert after - before == pytest.approx(more, abs=2e-3)


@pytest.mark.parametrize(
    ("slab", "dram", "cycles"),
    [
        (100, 160, 720),  # the slab comes while the first of two outer tiles works
        (400, 460, 790),  # 400, half of the 60 beside it, then half of 720
    ],
)
def test_outer_tiles_but_the_first_wait_for_the_first_slab(slab: float, dram: float, cycles: float) -> None:
    assert paced(12, 0, slab, dram) == cycles


@pytest.mark.parametrize(
    ("depth", "refill", "cycles"),
    [
        (12, 0, 720),  # a ring of all inner panels: the port loads ahead, one opening shows
        (6, 10, 780),  # half of the panels are loaded ahead: between 720 and 840
        (6, 60, 800),  # the second set of held panels comes 60 + 180 - 220 late
    ],
)
def test_the_worked_example_of_the_pace(depth: int, refill: int, cycles: float) -> None:
    assert paced(depth, refill) == cycles


def paced(depth: int, refill: int, slab: float = 0.0, dram: float = 0.0) -> float:
    """Return the pace of the example, whose DRAM also has `dram` cycles to do, `slab` of them for a slab."""

    def one(x: float) -> Any:
        return np.array([float(x)])

    space = SimpleNamespace(
        tiles=one(6), depth=one(depth), local={"k": one(4)}, inner_count=one(3), hold=one(4), rings=one(1)
    )
    space.staged = np.zeros(1, bool)
    most = SimpleNamespace(opening=one(220), rest=one(500), tile=one(100), held=one(180))
    demand: Any = SimpleNamespace(s=space, most=most, outers=one(2), refill=one(refill))
    (cycles,) = _paced(demand, DramUse(*[np.zeros(1)] * 5, one(slab)), one(dram)).tolist()
    return float(cycles)
