"""Kernels that memory binds, worked out by hand; and that every class of work has its kernel."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from mtia_emu.gpu import load_gpu
from mtia_emu.types import FP16, FP32, BagWork, ProductWork, RotaryWork, RowUpdateWork

GPU = load_gpu("h100-sxm")


def test_a_class_of_work_without_a_kernel_is_refused_at_import() -> None:
    code = "from mtia_emu import types\ntypes.WORKS += (int,)\nimport mtia_emu.gpu"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "GPU kernels and classes of work differ: int" in done.stderr


@pytest.mark.parametrize("row", [0, 5_000])
def test_rotary_waits_for_the_steps_of_a_row(row: int) -> None:
    work = RotaryWork("", "", FP16, row=row, elements=64, flops=192, read_bytes=128, write_bytes=128)
    bytes_s = 256 / (GPU.stream_bytes_per_s * GPU.narrow_efficiency)
    steps_s = math.ceil(row / 1024) * GPU.narrow_step_s
    start = GPU.launch_graph_s + GPU.dram_latency_s
    assert GPU.kernel(work).seconds == pytest.approx(start + max(bytes_s, steps_s), rel=1e-12)


def test_a_product_of_nothing_only_moves_its_bytes() -> None:
    work = ProductWork("", "", FP16, batch=1, m=0, k=64, n=64, flops=0, read_bytes=8192, write_bytes=0)
    start = GPU.launch_graph_s + GPU.dram_latency_s
    assert GPU.kernel(work).seconds == pytest.approx(start + 8192 / GPU.l2_bytes_per_s, rel=1e-12)


@pytest.mark.parametrize(("rows", "dim"), [(0, 64), (100, 0)])
def test_look_ups_in_an_empty_table_end(rows: int, dim: int) -> None:
    work = BagWork(
        "", "", FP16, lookups=10, bags=2, dim=dim, rows=rows, flops=0, read_bytes=80, write_bytes=0
    )
    kernel = GPU.kernel(work)
    assert 0 < kernel.seconds < 1e-4 and kernel.dram_read_bytes >= 0


def test_a_bag_costs_clocks_beside_its_rows_and_their_elements() -> None:
    """10,000 bags of 4 rows of 128 elements, spread over all SMs."""
    sizes = {"bags": 10_000, "lookups": 40_000, "dim": 128, "rows": 100}
    work = BagWork("", "", FP16, flops=0, read_bytes=25_600, write_bytes=2_560_000, **sizes)
    row = GPU.lookup_clocks + 128 * GPU.element_clocks
    clocks = (10_000 * GPU.bag_clocks + 40_000 * row) / GPU.sms
    start = GPU.launch_graph_s + GPU.dram_latency_s
    assert GPU.kernel(work).seconds == pytest.approx(start + clocks / GPU.max_clock_hz, rel=1e-9)


def test_an_update_sorts_reads_and_writes_rows() -> None:
    """2^20 look-ups in 2^24 rows of 128 fp32 and a sum each, by gradients of 2^16 bags: bound by DRAM."""
    lookups, changed, bags = 1 << 20, 1_015_000, 1 << 16
    sizes = {"lookups": lookups, "dim": 128, "rows": 1 << 24, "changed": changed}
    old = changed * (512 + 4)
    fresh = 16 * lookups + 512 * bags
    work = RowUpdateWork(
        "", "", FP32, pieces=2 * changed, narrow=changed, old_bytes=old, flops=0, read_bytes=old + fresh,
        write_bytes=old, **sizes,
    )  # fmt: skip
    sorting = 16.0 * lookups * (2 * 3 + 1)  # 3 passes of 8 bits
    rows = 2 * changed * (512 + GPU.dram_sector_bytes + 2 * GPU.dram_activate_bytes)
    missed = 512 * lookups * (1 - GPU.l2_usable * GPU.l2_bytes / fresh)
    sorted_bytes = sorting - GPU.resident_bytes(sorting)
    start = (6 + 3) * GPU.launch_graph_s + GPU.dram_latency_s
    expected = start + (rows + missed + sorted_bytes) / GPU.stream_bytes_per_s
    assert GPU.kernel(work).seconds == pytest.approx(expected, rel=1e-9)


def test_an_update_of_few_rows_waits_for_its_requests() -> None:
    """Two warps of gradients, and four of rows that are read and written, for each two on their way."""
    rows = {"lookups": 1000, "changed": 1000, "pieces": 2000, "rows": 1 << 20, "narrow": 0}
    bytes_ = {"old_bytes": 1000, "read_bytes": 1000, "write_bytes": 1000, "flops": 0}
    kernel = GPU.kernel(RowUpdateWork("", "", FP32, dim=128, **rows, **bytes_))
    start, rounds = (6 + 3) * GPU.launch_graph_s, math.ceil((1000 + 2 * 2000) / (2 * 1000))
    assert kernel.seconds == pytest.approx(start + (1 + rounds) * GPU.dram_latency_s, rel=1e-9)


def test_an_update_of_hot_rows_keeps_as_many_warps_busy() -> None:
    sizes = {"lookups": 1 << 16, "dim": 128, "flops": 0, "narrow": 0, "read_bytes": 1 << 20, "write_bytes": 1}
    hot, cold = (
        RowUpdateWork("", "", FP32, rows=n, changed=n, pieces=n, old_bytes=n, **sizes) for n in (2, 2048)
    )
    assert GPU.kernel(hot).seconds == pytest.approx(GPU.kernel(cold).seconds, rel=0.2)
    assert GPU.kernel(hot).seconds < 1e-4
