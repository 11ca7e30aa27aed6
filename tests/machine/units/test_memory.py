"""Memories and the way to them: what an access costs."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.machine.chip import Chip, chip_names, load_chip


@pytest.fixture(params=chip_names())
def chip(request: pytest.FixtureRequest) -> Chip:
    """Return each shipped chip."""
    return load_chip(request.param)


def test_a_transfer_is_bound_by_bytes_or_by_addresses(chip: Chip) -> None:
    dma = chip.pe.dma
    sizes = np.array([64.0, 4096.0])
    np.testing.assert_allclose(dma.cost(sizes, np.zeros(2))[0], sizes / dma.bytes_per_cycle)
    many = 10 * sizes / dma.bytes_per_cycle * dma.runs_per_cycle
    np.testing.assert_allclose(dma.cost(sizes, many)[0], many / dma.runs_per_cycle)


def test_accumulators_are_of_four_bytes(chip: Chip) -> None:
    reduce = chip.pe.reduce
    assert reduce.bytes == 4 * reduce.banks * reduce.bank_rows * reduce.bank_cols


def test_short_runs_never_get_more_of_dram_than_long_ones(chip: Chip) -> None:
    dram = chip.dram
    assert dram.bytes_per_s == dram.channels * dram.channel_bytes_per_s
    shares = chip.dram_efficiency(np.array([1.0, 16, 32, 64, 100, 128, 256, 512, 4096, 1 << 20]))
    assert (np.diff(shares) >= 0).all() and shares[0] > 0 and shares[-1] <= 1
