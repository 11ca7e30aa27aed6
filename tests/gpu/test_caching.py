"""What L2 keeps, worked out by hand, and held to a cache that is stepped."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu import streams
from mtia_emu.gpu import load_gpu
from mtia_emu.gpu.caching import Keeping, keeping, misses
from mtia_emu.machine.units.cache import Cache, whole_sets
from mtia_emu.options import WARM
from mtia_emu.types import FP16, BagWork, ModelWork, ProductWork, TableUse

GPU = load_gpu("h100-sxm")


class Hot:
    """Half of the look-ups go to a hundredth of the rows."""

    def shares(self, lookups: np.ndarray, rows: int) -> np.ndarray:
        return np.where(lookups <= 0.5, lookups / 50, 0.01 + (lookups - 0.5) * 1.98)


def bag(rows: int, lookups: int, dim: int = 128, **more: object) -> BagWork:
    size = 2 * dim
    return BagWork(
        "", "", FP16, lookups=lookups, bags=100, dim=dim, rows=rows, flops=lookups * dim,
        read_bytes=min(lookups, rows) * size, write_bytes=100 * size, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def layer(size: int) -> ProductWork:
    sizes = {"batch": 1, "m": 1, "k": size, "n": size, "flops": 0}
    return ProductWork("", "", FP16, read_bytes=2 * size * (size + 1), write_bytes=2 * size, **sizes)


def test_a_first_run_misses_each_row_once() -> None:
    table = TableUse(1000, 5000)
    assert misses(table, Keeping(math.inf)) == pytest.approx(1000 * -math.expm1(-5))
    assert misses(table, Keeping(1e-12)) == pytest.approx(5000)


def test_rows_that_were_counted_take_the_place_of_the_laws() -> None:
    assert misses(TableUse(10**9, 5000, distinct=70), Keeping(1.0)) == pytest.approx(70, rel=1e-3)


def test_a_row_stays_from_run_to_run_as_long_as_it_is_kept() -> None:
    table = TableUse(1000, 500)
    assert misses(table, Keeping(2.0, warm=True)) == pytest.approx(500 * math.exp(-1))
    assert misses(table, Keeping(1e9, warm=True)) == 0


@given(st.integers(1, 10**7), st.integers(0, 10**6), st.floats(1e-6, 1e6), st.booleans())
def test_misses_are_some_of_the_look_ups(rows: int, lookups: int, runs: float, warm: bool) -> None:
    for law in (None, Hot()):
        table = TableUse(rows, lookups, law)
        missed = misses(table, Keeping(runs, warm))
        assert 0 <= missed <= lookups * (1 + 1e-9)
        assert misses(table, Keeping(2 * runs, warm)) <= missed * (1 + 1e-9)


def test_l2_keeps_what_it_has_room_for() -> None:
    """Even rows of twice the room: half of them are there once they have all been asked for."""
    room = GPU.l2_usable * GPU.l2_bytes
    rows = round(2 * room / 256)
    kept = keeping(GPU, [bag(rows, rows)], warm=True)
    assert rows * 256 * -math.expm1(-kept.runs) + 100 * 256 == pytest.approx(room, rel=1e-3)
    assert misses(TableUse(rows, rows), kept) == pytest.approx(rows / 2, rel=0.01)


def test_weights_stay_where_a_run_leaves_them_room() -> None:
    assert keeping(GPU, [layer(1024)], warm=True).weights == 1
    assert keeping(GPU, [layer(1024)], warm=False).weights == 0
    assert keeping(GPU, [layer(8192)], warm=True).weights == 0
    assert keeping(GPU, [layer(1024), bag(10**8, 10**7)], warm=True).weights == 0


def test_a_warm_run_reads_less() -> None:
    works = (layer(1024), bag(10**5, 10**4))
    cold, warm = (GPU.report(ModelWork(works, state=s)).traffic.dram_read_bytes for s in ("cold", WARM))
    assert 0 <= warm < 0.1 * cold


def test_skew_is_seen() -> None:
    even, hot = (
        GPU.report(ModelWork((bag(10**7, 10**6, tables=(TableUse(10**7, 10**6, law),)),), state=WARM))
        for law in (None, Hot())
    )
    assert hot.traffic.dram_read_bytes < 0.9 * even.traffic.dram_read_bytes and hot.seconds <= even.seconds


def test_a_cache_that_is_stepped_agrees() -> None:
    """Ten runs of zipf look-ups through a cache of many ways, the last one counted."""
    rows, lookups, lines = 20_000, 8_000, 4096

    class Law:
        def shares(self, u: np.ndarray, count: int) -> np.ndarray:
            return streams.Zipf(1.0).ranks(u, count) / count

    gpu = load_gpu("h100-sxm", {"l2_bytes": f"{lines * 256 / 0.7617:.1f}"})
    work = bag(rows, lookups, tables=(TableUse(rows, lookups, Law()),))
    cache = Cache(whole_sets(lines * 256, 256, 64))
    drawn = streams.draw(streams.Zipf(1.0), np.random.default_rng(0), rows, (10, lookups))
    hits = [cache.access(run) for run in drawn]
    modelled = misses(work.tables[0], keeping(gpu, [work], warm=True))
    assert modelled == pytest.approx((~hits[-1]).sum(), rel=0.05)
