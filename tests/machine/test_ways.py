"""The ways of bytes on the chip `tiny`, worked out by hand.

tiny: port 16 B a cycle and 4 cycles of set-up, link 32, layout unit 16; a hop 1, SRAM 10, DRAM 50.
"""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.machine import ways
from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.ways import Pooled, Transfer, Way

CHIP = load_chip("tiny", {"pe.layout.bytes_per_cycle": 4, "noc.col_bytes_per_cycle": 8})


def told(way: Way) -> tuple[float, float, float]:
    """Return a way's numbers: busy, latency, on its link."""
    return float(way.busy), float(way.latency), float(way.on_link)


@pytest.mark.parametrize(
    ("transfer", "busy", "latency", "on_link"),
    [
        (Transfer(64, 1, 2), 4, 16, 2),  # out of SRAM: 10 + 2 + 4
        (Transfer(64, 6, 2), 6, 16, 2),  # a run a cycle
        (Transfer(64, 1, 2, by_col=True), 4, 16, 8),
        (Transfer(64, 1, 2, missed=1.0), 4, 56, 2),  # out of DRAM
        (Transfer(64, 1, 2, missed=0.25), 4, 26, 2),  # a quarter of the rows: 10 + 40 / 4 + 2 + 4
        (Transfer(64, 1, 2, turned=64), 16, 16, 2),  # 64 / 4, slower than the port
    ],
)
def test_a_load(transfer: Transfer, busy: float, latency: float, on_link: float) -> None:
    assert told(ways.load(transfer, CHIP)) == (busy, latency, on_link)


def test_a_store_waits_for_no_answer_and_leaves_by_its_row() -> None:
    assert told(ways.store(Transfer(64, 1, 2, by_col=True, missed=1.0), CHIP)) == (4, 6, 2)
    assert told(ways.store(Transfer(64, 1, 2, turned=64), CHIP)) == (16, 6, 2)


def test_a_stage_takes_no_port_and_no_link() -> None:
    assert told(ways.stage(Transfer(64, 9, 1, missed=1.0), CHIP)) == (0, 55, 0)


def test_a_gather_asks_for_each_row() -> None:
    """8 requests may be on their way: of 16 rows each waits 56 cycles, an eighth of that on the mean: 112."""
    assert told(ways.gather(Transfer(64, 16, 2, missed=1.0, rows=16), CHIP)) == (112, 56, 2)
    slow = load_chip("tiny", {"pe.core.row_issue_cycles": 10})
    assert told(ways.gather(Transfer(64, 16, 2, missed=1.0, rows=16), slow)) == (160, 56, 2)


def test_sums_go_one_hop() -> None:
    assert told(ways.pass_on(256, CHIP)) == (8, 1, 0)


def test_bags_wait_for_indices_then_rows_then_sums() -> None:
    """2 bags of 20 rows of 32 B. A row comes in 2, and is added in 2 + 8 x 4 / 16 = 4.

    8 rows come: 16; 8 are added while 8 come: 32; 8 more, then the last 4: 32 + 16. That is 96, after 2 x 56.
    Two bags two at once: 208, which is longer than 4 for each of 40 rows, 160. Offsets come first: 56. With
    16 requests on their way, not 8, asking for rows takes 140; with 8 it takes 280 and is the slowest.
    """
    bags = Pooled(np.array(2.0), np.array(20.0), np.array(32.0), np.array(8.0))
    transfer = Transfer(64, 1, 2, missed=1.0, rows=40)
    more = {"pe.dma.outstanding_rows": 16}
    assert told(ways.pool(transfer, bags, load_chip("tiny", more))) == (56 + 208, 60, 2)
    assert told(ways.pool(transfer, bags, load_chip("tiny", more | {"kernels.bags_in_flight": 64}))) == (
        56 + 160,
        60,
        2,
    )
    assert told(ways.pool(transfer, bags, CHIP)) == (280, 60, 2)
