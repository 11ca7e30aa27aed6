"""TPUs written from their data sheets beside measured products; nothing was fitted to these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from markdown_table import table
from mtia_cases import rows_of, timed

from mtia_emu.machine.chip import load_chip
from mtia_emu.zoo.operators import Gemm

KINDS: dict[str, Callable[[int, int, int], bool]] = {
    "all of m, n and k above 256": lambda m, n, k: min(m, n, k) > 256,
    "k of 256 or less": lambda m, n, k: k <= 256 and min(m, n) > 256,
    "m or n of 256 or less": lambda m, n, k: min(m, n) <= 256,
}
"""What bounds a product: the arrays, writing its result, reading its weight."""
V5E_US = {
    4096: 827.29,
    8192: 6047.15,
}  # XLA, jax-ml/jax 1082251, docs/pallas/tpu/matmul.ipynb: by a host's clock


@dataclass(frozen=True)
class Product:
    """A measured product of TPU v6e, and ours with all in VMEM, and with all in HBM; times in us."""

    m: int
    n: int
    k: int
    measured: float
    vmem: float
    hbm: float

    @property
    def held(self) -> bool:
        """Return whether the measured time lies between ours, or within a tenth of one."""
        return 0.9 * self.vmem <= self.measured <= 1.1 * self.hbm


@cache
def products() -> tuple[Product, ...]:
    """Return the products, run once."""
    return tuple(_products())


def _products() -> Iterator[Product]:
    chip = load_chip("tpu-v6e")
    for row in rows_of("tpu_v6e_gemm.csv"):
        m, n, k = (int(row[x]) for x in "mnk")
        vmem, hbm = (timed(Gemm(m, k, n, "bf16"), chip, place).seconds * 1e6 for place in ("sram", "dram"))
        yield Product(m, n, k, float(row["us"]), vmem, hbm)


def tpu_v6e() -> str:
    """Return how far products on TPU v6e are from measured ones, by what bounds them."""
    kinds = {name: [p for p in products() if of(p.m, p.n, p.k)] for name, of in KINDS.items()}
    groups = {**kinds, "all": list(products())}
    head = [
        "products",
        "number",
        "all in VMEM: here / measured",
        "all in HBM: here / measured",
        "between both",
    ]
    return table(head, [[name, len(ps), *_ratios(ps)] for name, ps in groups.items()])


def _ratios(found: Iterable[Product]) -> Iterator[str]:
    """Yield median and 10th to 90th percentile of both ratios, and the share that lies between them."""
    found = list(found)
    for ours in ("vmem", "hbm"):
        ratio = np.array([getattr(p, ours) / p.measured for p in found])
        low, high = np.percentile(ratio, [10, 90])
        yield f"{np.median(ratio):.2f} ({low:.2f} to {high:.2f})"
    yield f"{np.mean([p.held for p in found]):.0%}"


def tpu_v5e() -> str:
    """Return square products on TPU v5e beside what the host's clock says of XLA's."""
    chip, rows = load_chip("tpu-v5e"), []
    for side, us in V5E_US.items():
        here = timed(Gemm(side, side, side, "bf16"), chip, "dram").seconds * 1e6
        rows.append([f"{side}^3", f"{us:.0f}", f"{here:.0f}", f"{here / us:.2f}"])
    return table(["bf16 product", "measured, us", "here, us", "here / measured"], rows)


SECTIONS: dict[str, Callable[[], str]] = {"tpu-v6e": tpu_v6e, "tpu-v5e": tpu_v5e}
