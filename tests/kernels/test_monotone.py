"""A better chip is not slower: kernel calls of random sizes, one parameter of the chip made better.

The choices are those of `--tune fast`: a few mappings are timed, so that a better one can be missed on one
chip and found on the other. Bags are slower on no chip that differs in a rate, a clock or a size of memory.
`pe.matrix.rows` and `cols` are left out: a taller array fills and drains more rows for each fold, whatever
the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from estimated import TAPES, Draws, RandomDraws
from harness import packed
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.bags.pooled import EmbeddingBagKernel
from mtia_emu.kernels.kernel import Kernel, KernelCall
from mtia_emu.kernels.matmul.kernel import MatmulKernel
from mtia_emu.kernels.rows.kernel import CopyKernel, TapeKernel

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.options import Options
from mtia_emu.study.tuning import cycles, tuning
from mtia_emu.types import FP16, FP32, INT8, INT32

SLOWER = 1.005  # than this counts as slower
BETTER: dict[str, Callable[[Any], Sequence[Any]]] = {
    "clock_hz": lambda v: (v * 1.1, v * 1.5),
    "grid.rows": lambda v: (v + 1, v * 2),
    "grid.cols": lambda v: (v + 1, v * 2),
    "pe.matrix.arrays": lambda v: (v + 1, v * 2),
    "pe.dma.bytes_per_cycle": lambda v: (v + 8, v * 2),
    "pe.simd.bytes_per_cycle": lambda v: (v * 2,),
    "pe.local.bytes": lambda v: (v * 9 // 8, v * 2),
    "noc.row_bytes_per_cycle": lambda v: (v + 8, v * 2),
    "noc.col_bytes_per_cycle": lambda v: (v + 8, v * 2),
    "sram.bytes_per_s": lambda v: (v * 1.1, v * 2),
    "dram.channels": lambda v: (v + 1, v * 2),
}


def product(d: Draws, c: Chip) -> tuple[Kernel, KernelCall]:
    """Return a product of random sizes and places."""
    big, kind = c.pes > 16, d.pick((FP16, INT8))
    m, k, n = d.size(1, 512 if big else 64), *(d.size(16, 1024 if big else 128) for _ in "kn")
    a_space, b_space, out_space = (d.pick(("sram", "dram")) for _ in range(3))
    out = packed(FP16 if kind.is_float else INT32, (m, n), out_space, written=True)
    params = {"batch": 1, "m": m, "k": k, "n": n, "epilogue": ""}
    inputs = (packed(kind, (m, k), a_space), replace(packed(kind, (k, n), b_space), strides=(1, k)))
    return MatmulKernel(), KernelCall(inputs, (out,), tuple(sorted(params.items())))


def bags(d: Draws, c: Chip) -> tuple[Kernel, KernelCall]:
    """Return the bags of one table, small dimensions and single look-ups among them."""
    dim, kind, space = d.pick((4, 8, 16, 64)), d.pick((FP16, FP32)), d.pick(("dram", "sram"))
    count, pooling = d.size(1, 2048 if c.pes > 16 else 128), d.pick((1, 1, 2, 20))
    looks, offsets = packed(INT32, (1, count * pooling)), packed(INT32, (1, count + 1))
    out = packed(kind, (count, dim), "sram", written=True)
    named = {"mode": "sum", "quantised": False, "lowest": False}
    inputs = (packed(kind, (100_000, dim), space), looks, offsets)
    return EmbeddingBagKernel(), KernelCall(inputs, (out,), tuple(sorted(named.items())))


def tapes(d: Draws, c: Chip) -> tuple[Kernel, KernelCall]:
    """Return a tape over rows, or a copy, of random sizes and places."""
    big, kind, text = c.pes > 16, d.pick((FP16, FP32)), d.pick((*TAPES, ""))
    shape = d.size(1, 4096 if big else 200), d.size(2, 2048 if big else 128)
    operand = packed(kind, shape, d.pick(("sram", "dram")))
    out = packed(kind, shape, d.pick(("sram", "dram")), written=True)
    kernel = TapeKernel("row", "", folds=True) if text else CopyKernel("copy", "")
    return kernel, KernelCall((operand,), (out,), (("tape", text),) if text else ())


def fast_s(kernel: Kernel, call: KernelCall, chip: Chip, tune: str = "fast") -> float:
    """Return the seconds of a call under the mapping that is chosen for it."""
    block = tuning(Options(tune=tune), cached=False).block(kernel, call, chip)
    return cycles(block, chip) / chip.clock_hz


def part_of(chip: Chip, key: str) -> Any:
    """Return a parameter of a chip."""
    value: Any = chip
    for part in key.split("."):
        value = getattr(value, part)
    return value


def slower(d: Draws, make: Callable[[Draws, Chip], tuple[Kernel, KernelCall]]) -> tuple[float, str, str]:
    """Return the time on a better chip over that on a chip, which parameter is better, and what ran."""
    name, key = d.pick(("tiny", "mtia-1", "mtia-2i")), d.pick(tuple(BETTER))
    chip = load_chip(name)
    better = d.pick(tuple(BETTER[key](part_of(chip, key))))
    kernel, call = make(d, chip)
    return (
        fast_s(kernel, call, load_chip(name, {key: better})) / fast_s(kernel, call, chip),
        key,
        f"{name} {call}",
    )


def shares(make: Callable[[Draws, Chip], tuple[Kernel, KernelCall]], count: int) -> np.ndarray[Any, Any]:
    """Return the times on better chips over those before, of so many random calls."""
    return np.array([slower(RandomDraws(seed), make)[0] for seed in range(count)])


@pytest.mark.parametrize(
    ("make", "share", "most"),
    [(product, 0.06, 1.15), (bags, 0.0, 1.005), (tapes, 0.02, 1.04)],
    ids=["product", "bags", "tapes"],
)
def test_a_better_chip_is_seldom_slower_and_never_by_much(
    make: Callable[[Draws, Chip], tuple[Kernel, KernelCall]], share: float, most: float
) -> None:
    times = shares(make, 60)
    assert (times > SLOWER).mean() <= share and times.max() <= most and np.median(times) <= 1


@pytest.mark.deep
@pytest.mark.parametrize(
    ("make", "share", "most"),
    [(product, 0.04, 1.2), (bags, 0.005, 1.04), (tapes, 0.02, 1.05)],
    ids=["product", "bags", "tapes"],
)
def test_so_it_is_over_many(
    make: Callable[[Draws, Chip], tuple[Kernel, KernelCall]], share: float, most: float
) -> None:
    times = shares(make, 500)
    assert (times > SLOWER).mean() <= share and np.quantile(times, 0.99) < 1.08 and times.max() < most


@given(st.integers(0, 1 << 20), st.sampled_from([key for key in BETTER if not key.startswith("grid.")]))
@settings(max_examples=40)
def test_bags_are_never_slower_with_a_better_rate_clock_or_memory(seed: int, key: str) -> None:
    d = RandomDraws(seed)
    name = d.pick(("tiny", "mtia-1", "mtia-2i"))
    chip = load_chip(name)
    kernel, call = bags(d, chip)
    better = d.pick(tuple(BETTER[key](part_of(chip, key))))
    assert fast_s(kernel, call, load_chip(name, {key: better})) <= SLOWER * fast_s(kernel, call, chip)


def test_bags_by_fast_are_within_3_percent_of_full() -> None:
    ratios = []
    for seed in range(25):
        d = RandomDraws(1000 + seed)
        chip = load_chip(d.pick(("tiny", "mtia-1", "mtia-2i")))
        kernel, call = bags(d, chip)
        ratios.append(fast_s(kernel, call, chip) / fast_s(kernel, call, chip, "full"))
    assert max(ratios) <= 1.03
