"""Kernels that memory binds, worked out by hand; and that every class of work has its kernel."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from mtia_emu.gpu import load_gpu
from mtia_emu.types import FP16, BagWork, ProductWork, RotaryWork

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
