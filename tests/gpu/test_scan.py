"""Loops as a library runs them, worked out by hand."""

from __future__ import annotations

import pytest

from mtia_emu.gpu import load_gpu
from mtia_emu.types import FP16, ModelWork, ScanWork

GPU = load_gpu("h100-sxm")
START = GPU.launch_graph_s + GPU.dram_latency_s


def loop(rows: int, k: int, n: int, read: int = 4096, write: int = 1024) -> ScanWork:
    """Return a loop of 100 steps with ten operations an element."""
    flops = 100 * rows * (n or 1) * 10
    return ScanWork(
        "",
        "",
        FP16,
        steps=100,
        rows=rows,
        k=k,
        n=n,
        depth=10,
        flops=flops,
        read_bytes=read,
        write_bytes=write,
    )


def rate() -> float:
    """Return the multiply-adds and additions a second that products reach."""
    kind = GPU.rate("fp16")[1]
    return kind.flops_per_s * kind.efficiency * GPU.max_clock_hz / GPU.clock_hz


def test_a_weight_that_fits_the_registers_is_read_once_and_steps_wait_for_a_barrier() -> None:
    weight = 512 * 2048 * 2
    kernel = GPU.kernel(loop(1, 512, 2048, read=weight))
    barriers = 100 * 2 * GPU.dram_latency_s
    states = 100 * GPU.sms * 512 * 2 / GPU.l2_bytes_per_s
    product = 100 * 2 * 8 * 512 * 2048 / rate()  # eight rows, the fewest of a tensor core
    stream = (weight + 1024) / GPU.stream_bytes_per_s
    assert kernel.text == "persistent rnn"
    assert kernel.seconds == pytest.approx(START + barriers + max(states, product, stream), rel=1e-9)
    assert kernel.dram_read_bytes == weight


def test_many_rows_take_the_tensor_cores() -> None:
    few, many = (GPU.kernel(loop(rows, 1024, 4096)).seconds for rows in (8, 8192))
    assert many - few > 0.9 * 100 * 2 * (8192 - 8) * 1024 * 4096 / rate() - 100e-6


@pytest.mark.parametrize(("k", "memory"), [(1536, "l2"), (4096, "dram")])
def test_a_larger_weight_is_read_anew_by_each_step_which_is_launched(k: int, memory: str) -> None:
    weight = k * 4 * k * 2
    assert weight > GPU.sms * 128 * 1024 and (weight > GPU.l2_usable * GPU.l2_bytes) == (memory == "dram")
    kernel = GPU.kernel(loop(1, k, 4 * k, read=weight))
    launches = 100 * 2 * START
    again = {"l2": 100 / GPU.l2_bytes_per_s, "dram": 100 / GPU.stream_bytes_per_s}[memory]
    stream = 1024 / GPU.stream_bytes_per_s
    assert kernel.text == "rnn step by step"
    assert kernel.seconds == pytest.approx(
        START + launches + weight * again + stream * (memory == "dram"), rel=1e-6
    )
    assert kernel.dram_read_bytes == weight * (100 if memory == "dram" else 1)


def test_elements_that_go_their_own_ways_wait_for_their_own_operations_alone() -> None:
    kernel = GPU.kernel(loop(64, 0, 0))
    assert kernel.text == "selective scan" and kernel.bound_by == "occupancy"
    assert kernel.seconds == pytest.approx(START + 100 * 10 * 4 / GPU.max_clock_hz, rel=1e-9)
    wide = GPU.kernel(loop(1 << 20, 0, 0))
    assert wide.seconds == pytest.approx(START + 100 * (1 << 20) * 10 * 2 / GPU.vector_flops_per_s, rel=1e-9)


def test_a_report_says_how_little_is_known_of_loops() -> None:
    report = GPU.report(ModelWork((loop(1, 512, 2048),)))
    band = report.seconds_band
    assert band is not None and (band.low, band.high) == (0.7, 4.0)
