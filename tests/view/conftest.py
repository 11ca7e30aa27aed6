"""Synthetic reports: plausible, small, and the same every time."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtia_emu.results.basis import Around, Published
from mtia_emu.results.check import Check, Distance
from mtia_emu.results.report import Band, HitBytes, Joules, Layer, Report, Stretch, Traffic
from mtia_emu.results.spans import Track

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

CHIP, GPU = Track("mtia-2i", 1.35e9), Track("a100-sxm-80gb", 1.41e9)
STATIONARY = "matmul_weight_stationary"
_KINDS = [  # op, kernel, cycles, macs, dram bytes, sram bytes, joules, bounds, slack
    ("rmsnorm", "rmsnorm_row", 9_000, 0, 0, 4_194_304, 2.1e-5, "simd", "sram", 0.4),
    ("matmul", STATIONARY, 310_000, 3_221_225_472, 50_331_648, 9_437_184, 6.4e-3, "dram", "array", 0.25),
    ("rotary", "eltwise_tape", 6_500, 0, 0, 2_097_152, 1.2e-5, "noc", "simd", 0.5),
    ("matmul", "matmul_batched", 41_000, 536_870_912, 0, 12_582_912, 5.2e-4, "array", "local", 0.125),
    ("softmax", "softmax_row", 23_000, 0, 0, 8_388_608, 4.4e-5, "simd", "sram", 0.4),
    ("matmul", STATIONARY, 880_000, 9_663_676_416, 150_994_944, 28_311_552, 1.9e-2, "dram", "array", 0.25),
]


def build_report(blocks: int = 4) -> Report:
    """Return a decoder-like report with six layers a block."""
    layers: list[Layer] = []
    cycle = 12_000
    for block in range(blocks):
        for op, kernel, cycles, macs, dram, sram, joules, bound, then, slack in _KINDS:
            name = f"/model/layers.{block}/{op}_{len(layers) % 6}"
            ops = 2 * macs if macs else sram // 2 if bound == "simd" else 0
            end = cycle + cycles
            layers.append(
                Layer(
                    *(name, op, kernel, cycle, end, macs, dram, sram, joules, bound, ops),
                    *(-1, None, then, slack),
                    track=CHIP,
                )
            )
            cycle += cycles
    dram = sum(x.dram_bytes for x in layers)
    sram = sum(x.sram_bytes for x in layers)
    return Report(
        model="decoder-4",
        machine="mtia-2i",
        dtype="fp16",
        dims={"batch": 1, "sequence": 128},
        tracks=(CHIP,),
        stretches=(Stretch(tuple(layers), CHIP.exact_seconds(cycle + 3_000)),),
        joules_by=Joules(0.021, 0.009, 0.0081, 0.0473, 0.0032, 0.0004, 0.0255),
        traffic=Traffic(9_812_345_678, 3_123_456_789, sram, sram // 3, dram, 1_048_576, 2_345_678_901),
        macs=sum(x.macs for x in layers),
        peak_macs=sum(x.macs for x in layers) / 0.1432,
        notes=("the KV cache is read from DRAM at every step", "weights are absent: no values"),
        served=HitBytes(400_000_000, 96_000_000),
        around=Around("chip", 0.05, 0.0, 24, 2500.0),
        published=Published(0.8, 0.99, 1.21, "nine models, ISCA 2025"),
    )


def build_gpu(blocks: int = 4) -> Report:
    """Return a GPU's report of the same model."""
    layers: list[Layer] = []
    cycle = 0
    for layer in build_report(blocks).layers:
        cycles = 4_000 + layer.dram_bytes // 1400 + layer.macs // 400_000
        bound = "dram" if layer.dram_bytes else "launch"
        layers.append(
            replace(
                layer,
                kernel="gpu",
                start_cycle=cycle,
                end_cycle=cycle + cycles,
                bound_by=bound,
                next_bound="",
                slack=0.0,
                track=GPU,
            )
        )
        cycle += cycles
    return Report(
        model="decoder-4",
        machine="a100-sxm-80gb",
        dtype="fp16",
        dims={"batch": 1, "sequence": 128},
        tracks=(GPU,),
        stretches=(Stretch(tuple(layers), GPU.exact_seconds(cycle)),),
        joules_by=Joules(compute=0.031, dram=0.052, static=0.061),
        traffic=Traffic(dram_read_bytes=sum(x.dram_bytes for x in layers), dram_write_bytes=1_048_576),
        macs=sum(x.macs for x in layers),
        peak_macs=sum(x.macs for x in layers) / 0.2911,
        seconds_band=Band(0.9, 1.15),
        joules_band=Band(0.8, 1.05),
        notes=("GPU time is of kernels launched by graph",),
        around=Around("board", 0.05, 0.0, 8, 1300.0),
    )


def build_check() -> Check:
    """Return a check of two outputs, both within tolerance."""
    outputs = {
        "logits": Distance(0.0041, 0.00072),
        "present.0.key": Distance(0.0, 0.0),
    }
    return Check(0.0041, 0.00072, 0.01, outputs)


@pytest.fixture
def report() -> Report:
    return build_report()


@pytest.fixture
def gpu() -> Report:
    return build_gpu()


@pytest.fixture
def check() -> Check:
    return build_check()
