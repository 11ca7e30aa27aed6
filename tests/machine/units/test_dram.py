"""A DRAM channel: its laws, and the shares of peak that another bank-level model finds for its timings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.drams import dram_names, load_dram
from mtia_emu.machine.units.dram import DramTiming, measure

RUNS = np.array([1.0, 20, 32, 33, 64, 100, 128, 256, 300, 512, 4096, 65536, 1e9])


def script() -> ModuleType:
    """Return docs/score_dram.py as a module."""
    path = Path(__file__).parents[3] / "docs" / "score_dram.py"
    spec = importlib.util.spec_from_file_location("score_dram", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(seed: int) -> DramTiming:
    """Return a channel with random timings."""
    return script()._random(np.random.default_rng(seed))


def test_another_model_finds_the_same_within_five_points() -> None:
    rows = script().rows()
    assert len(rows) == 17 and {r.layout for r in rows} == {"stream", "stripe", "interleaved"}
    for row in rows:
        assert row.simulated == pytest.approx(row.published, abs=0.05), row
        assert row.fast == pytest.approx(row.published, abs=0.05), row


def test_the_fast_form_follows_the_simulator() -> None:
    errors = script().fast_errors((1, 2, 8), sets=6)
    assert len(errors) == 36 and np.quantile(np.abs(errors), 0.9) < 0.05


def test_a_stream_of_an_lpddr5_reaches_95_percent_only_if_banks_are_refreshed_one_by_one() -> None:
    """ISCA 2025, 4.2: a product of 512 x 26592 x 2048 moved above 95 % of 204.8 GB/s."""
    each, whole = load_dram("lpddr5-6400"), load_dram("lpddr5-6400", refresh="all-bank")
    assert 16 * each.bytes_per_s == pytest.approx(204.8e9)
    assert each.efficiency(np.array(1 << 20)) > 0.95 > whole.efficiency(np.array(1 << 20))
    assert whole.efficiency(np.array(1 << 20)) < 1 - whole.rfc_all_bank_s / whole.refi_s


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_no_run_beats_the_peak_and_longer_runs_are_never_slower(seed: int, share: float) -> None:
    timing = drawn(seed)
    found = timing.efficiency(RUNS, share)
    assert (np.diff(found) >= -1e-12).all() and found[0] > 0 and found[-1] <= 1
    each = timing.activates_per_byte(RUNS)
    assert (np.diff(each) <= 1e-12).all() and (each > 0).all()
    assert each[0] <= 1.3 / timing.burst_bytes  # one a burst, and what refresh closes


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), writes=st.floats(0, 1))
def test_data_take_turns_on_the_pins(seed: int, writes: float) -> None:
    timing, rng = drawn(seed), np.random.default_rng(seed)
    address = rng.integers(0, timing.bytes // timing.burst_bytes, 200) * timing.burst_bytes
    write = rng.random(200) < writes
    done = timing.simulate(address, write)
    ends = np.sort(done.finish_s) / timing.tck_s
    assert (np.diff(ends) >= timing.burst_cycles - 1e-6).all()
    assert done.hits + done.misses + done.conflicts == 200 and done.ecc_bursts == 0
    later = timing.simulate(address, write, np.full(200, 1e-5))
    assert later.finish_s.min() > 1e-5


def test_every_address_has_a_place_of_its_own() -> None:
    timing = load_dram("ddr5-4800", rows=4)
    address = np.arange(0, timing.bytes, timing.burst_bytes)
    bank, row = timing.place(address)
    places, bursts = np.unique(np.stack([bank, row]), axis=1, return_counts=True)
    assert places.shape == (2, timing.banks * timing.rows)
    assert (bursts == timing.row_bytes // timing.burst_bytes).all()
    assert timing.place(np.array([timing.bytes])) == timing.place(np.array([0]))


def test_consecutive_stripes_lie_in_other_bank_groups() -> None:
    timing = load_dram("lpddr5-6400")
    bank, row = timing.place(np.arange(5) * timing.group_interleave_bytes)
    assert list(bank) == [0, 4, 8, 12, 0] and set(row) == {0}


def test_a_run_over_channels_is_cut_at_the_interleave() -> None:
    timing = load_dram("lpddr5-6400", channel_interleave_bytes=64)
    runs = np.array([32.0, 64, 256, 1 << 20])
    np.testing.assert_array_equal(timing.local_run(runs, 16), [32, 64, 64, 1 << 16])
    np.testing.assert_array_equal(timing.local_run(runs), runs)
    assert timing.efficiency(np.array(256.0), 0.0, 16) == timing.efficiency(np.array(64.0))


def test_writes_among_reads_cost_turnarounds() -> None:
    timing = load_dram("lpddr5-6400")
    read, mixed, written = timing.efficiency(np.array(256.0), np.array([0.0, 0.5, 1.0]))
    assert mixed < written <= read + 0.02
    assert timing.efficiency(np.array(256.0), 0.375) == pytest.approx(
        timing.efficiency(np.array(256.0), np.array([0.25, 0.5])).mean()
    )


def test_error_correcting_words_take_bursts_of_their_own() -> None:
    plain, coded = load_dram("lpddr5-6400"), load_dram("lpddr5-6400", ecc_data_bytes=256)
    stream = np.array(1e9)
    assert coded.efficiency(stream) == pytest.approx(plain.efficiency(stream) * 8 / 9, abs=0.01)
    one_of_two = coded.efficiency(np.array(32.0))
    assert plain.efficiency(np.array(32.0)) / 2 < one_of_two < 0.5
    done = coded.simulate(np.arange(16) * 32, np.zeros(16, bool))
    assert done.ecc_bursts == 2 and len(done.finish_s) == 16


@pytest.mark.parametrize("run_bytes", [32, 64, 256, 512, 1000, 4096])
def test_code_bytes_are_those_that_the_controller_sends(run_bytes: int) -> None:
    """LPDDR5 has bursts of 32 B; each run lies alone, in one channel, and begins a stretch of 256 B."""
    coded = load_dram("lpddr5-6400", ecc_data_bytes=256, channel_interleave_bytes=1 << 20)
    bursts = -(-run_bytes // 32)
    address = (np.arange(10)[:, None] * (1 << 16) + np.arange(bursts) * 32).ravel()
    sent = coded.simulate(address, np.zeros(len(address), bool)).ecc_bursts * 32
    assert 10 * bursts * 32 * coded.code_per_byte(np.array(bursts * 32.0)) == pytest.approx(sent)
    assert load_dram("lpddr5-6400").code_per_byte(np.array([64.0])) == 0


def test_results_repeat() -> None:
    timing = load_dram("hbm3-6400")
    assert measure(timing, 4, 0.3) == measure(timing, 4, 0.3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"row_bytes": 2000}, "row_bytes is 2000: not a multiple of a burst of 32 B"),
        ({"group_interleave_bytes": 96}, "must divide row_bytes, 2048"),
        ({"banks_per_refresh": 3}, "must divide 16 banks"),
        ({"rfc_per_bank_s": 2e-6}, "at most half"),
        ({"rfc_per_bank_s": 0}, "refresh is 'per-bank', but rfc_per_bank_s is 0"),
        ({"refi_s": 1e-9}, "refreshes come faster than bursts"),
        ({"cl_cycle": 3}, "unknown key 'cl_cycle'; did you mean 'cl_cycles'?"),
        ({"refresh": "sometimes"}, "'refresh' is 'sometimes'"),
        ({"queue_requests": True}, "'queue_requests' is True"),
        ({"tck_s": float("nan")}, "'tck_s' is nan"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        load_dram("lpddr5-6400", **changed)
    assert words in str(error.value)


@pytest.mark.parametrize("name", dram_names())
def test_every_shipped_channel_streams_at_nine_tenths_of_its_peak(name: str) -> None:
    timing = load_dram(name)
    assert timing.rc_cycles >= timing.ras_cycles + timing.rp_cycles - 1
    assert timing.burst_cycles == pytest.approx(
        timing.burst_bytes / timing.bytes_per_s / timing.tck_s, rel=0.02
    )
    assert timing.efficiency(np.array(1e9)) > 0.89


def test_at_half_the_rate_what_the_array_sets_takes_half_the_cycles() -> None:
    """The clock is half as fast, the array is not: 27 cycles become 14. Bursts are of the pins: as before."""
    fast = load_dram("lpddr5-6400").model_copy(update={"rcd_cycles": 27, "wr_cycles": 28, "ccd_l_cycles": 8})
    slow = fast.at_rate(fast.bytes_per_s / 2)
    assert (slow.rcd_cycles, slow.wr_cycles, slow.ccd_l_cycles) == (14, 14, 8)
    assert slow.tck_s == fast.tck_s * 2 and slow.transfers_per_s == fast.transfers_per_s / 2
    assert slow.rfc_all_bank_s == fast.rfc_all_bank_s
