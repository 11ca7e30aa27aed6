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


@pytest.mark.parametrize(
    ("scratch", "cache"), [(0, 8192), (1, 6144), (2048, 6144), (2049, 4096), (8192, 0), (9000, 0)]
)
def test_scratch_takes_whole_granules_from_the_cache(scratch: int, cache: int) -> None:
    """Of 9000 B four granules of 2048 B can be cache; what is scratch in part is scratch."""
    sram = load_chip("tiny", {"sram.bytes": 9000, "sram.granule_bytes": 2048}).sram
    assert sram.cache_bytes(scratch) == cache


def test_a_granule_larger_than_the_memory_leaves_no_cache() -> None:
    assert load_chip("tiny").sram.cache_bytes(0) == 0


def test_dram_moves_whole_bursts() -> None:
    """3 runs of 65 B take two bursts of 64 B each, 2 runs of 64 B one each."""
    assert load_chip("tiny").dram.burst(np.array([65.0, 64.0]), np.array([3, 2])).tolist() == [384, 128]


def test_the_cache_is_what_scratch_and_residents_leave_of_sram() -> None:
    """Ten granules of 100 B: scratch of 150 B takes two, whose last 50 B hold residents first."""
    sram = load_chip("tiny", {"sram.bytes": 1050, "sram.granule_bytes": 100}).sram
    assert [sram.cache_bytes(n) for n in (0, 1, 100, 150, 999, 5000)] == [1000, 900, 900, 800, 0, 0]
    assert [sram.cache_bytes(150, n) for n in (0, 50, 51, 850, 9999)] == [800, 800, 799, 0, 0]
    none = load_chip("tiny", {"sram.bytes": 1050, "sram.granule_bytes": 1051}).sram
    assert none.cache_bytes(0) == 0 and none.cache_bytes(10, 10) == 0
