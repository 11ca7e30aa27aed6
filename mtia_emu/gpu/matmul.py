"""A matmul on a GPU: output tiles in waves over SMs, as a library would choose them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ..types import DType
from .facts import Facts, Rate
from .kernel import Kernel, priced, throttled

SPLITS = (1, 2, 3, 4, 6, 8, 16, 32)
STEP_BYTES = 128  # one step of the k loop reads this much of each row: a cache line, a swizzle width
PARTIAL_BYTES = 8  # a split-k partial sum is written and read again as fp32


@dataclass(frozen=True)
class Shape:
    """A batched matmul: its sizes, and the compulsory bytes it reads and writes in total."""

    batch: int
    m: int
    k: int
    n: int
    kind: DType
    read_bytes: int
    write_bytes: int

    @property
    def flops(self) -> float:
        """Return the operations, a multiply-add as two."""
        return 2.0 * self.batch * self.m * self.k * self.n

    @property
    def activation_bytes(self) -> float:
        """Return the bytes of the left operand, which an earlier kernel has just written."""
        return float(min(self.batch * self.m * self.k * self.kind.bytes, self.read_bytes))


def shape(m: int, k: int, n: int, kind: DType, batch: int = 1) -> Shape:
    """Return the shape with each operand byte read once; the result is at least 16 bits wide."""
    read = batch * (m * k + k * n) * kind.bytes
    return Shape(batch, m, k, n, kind, read, batch * m * n * max(2, kind.bytes))


@dataclass(frozen=True)
class Plans:
    """The kernels that the library could choose: a row each, as columns."""

    tile_m: np.ndarray
    tile_n: np.ndarray
    splits: np.ndarray
    persistent: np.ndarray

    @cached_property
    def area(self) -> np.ndarray:
        """Return the outputs of one tile."""
        return (self.tile_m * self.tile_n).astype(float)

    @cached_property
    def side(self) -> np.ndarray:
        """Return the square root of `area`."""
        return np.sqrt(self.area)

    @cached_property
    def partials(self) -> np.ndarray:
        """Return how many partial sums of the whole result are written and read again."""
        return np.where(self.splits > 1, self.splits, 0).astype(float)

    @cached_property
    def reductions(self) -> np.ndarray:
        """Return 1 where a reduction follows the tiles, else 0."""
        return (self.splits > 1).astype(float)

    @cached_property
    def fixups(self) -> np.ndarray:
        """Return the outputs of a tile where each SM may leave one in two parts, else 0."""
        return np.where(self.persistent, self.area, 0.0)

    def text(self, row: int) -> str:
        """Return the name of one plan."""
        name = f"gemm {self.tile_m[row]}x{self.tile_n[row]}"
        if self.persistent[row]:
            return f"{name} stream-k"
        return f"{name} split-{self.splits[row]}" if self.splits[row] > 1 else name


@dataclass(frozen=True)
class Times:
    """Seconds of each resource and the L2 and DRAM bytes behind them, one element a plan."""

    tensor: np.ndarray
    l2: np.ndarray
    dram: np.ndarray
    latency: np.ndarray
    l2_bytes: np.ndarray
    dram_bytes: np.ndarray
    busy_sms: np.ndarray


@lru_cache(maxsize=64)
def plans(tiles: tuple[tuple[int, int], ...], stream_k: bool) -> Plans:
    """Return every tile with every split, and every tile with stream-k where the library has it."""
    rows = [(m, n, s, False) for m, n in tiles for s in SPLITS]
    rows += [(m, n, 1, True) for m, n in tiles if stream_k]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Plans(*columns)


def _times(facts: Facts, rate: Rate, s: Shape, p: Plans) -> Times:
    """Return what each plan asks of tensor cores, L2 and DRAM."""
    step = max(1, STEP_BYTES // s.kind.bytes)
    depth = -(-s.k // (step * p.splits)) * step
    ctas = -(-s.m // p.tile_m) * (-(-s.n // p.tile_n) * float(s.batch)) * p.splits
    # Stream-k shares the last wave out evenly; without it the last wave takes as long as a full one.
    share = ctas / facts.sms
    waves = np.where(p.persistent, np.maximum(1.0, share), np.ceil(share))
    sm_rate = rate.flops_per_s * rate.efficiency * facts.max_clock_hz / facts.clock_hz / facts.sms
    edges = np.minimum(p.tile_m, s.m) + np.minimum(p.tile_n, s.n) / facts.cluster
    loads = edges * (depth * float(s.kind.bytes))
    outputs = float(s.batch * s.m * s.n)
    l2_bytes = ctas * loads + PARTIAL_BYTES * (p.partials * outputs + facts.sms * p.fixups) + s.write_bytes
    one_sm = facts.sm_l2_bytes_per_clock * facts.max_clock_hz
    dram_bytes = _dram_bytes(facts, s, p)
    return Times(
        tensor=waves * p.area * depth * (2.0 / sm_rate),
        l2=np.maximum(l2_bytes / facts.l2_bytes_per_s, waves * loads / one_sm),
        dram=dram_bytes / (facts.dram_bytes_per_s * facts.matmul_dram_efficiency),
        latency=facts.launch_graph_s + facts.matmul_latency_s + facts.wave_s * (waves - 1.0 + p.reductions),
        l2_bytes=l2_bytes,
        dram_bytes=dram_bytes,
        busy_sms=np.minimum(1.0, share),
    )


def _dram_bytes(facts: Facts, s: Shape, p: Plans) -> np.ndarray:
    """Return the DRAM bytes of each plan.

    Weights come from DRAM, activations partly from L2. Where neither operand fits half of L2, each wave of
    tiles, a square of sms * tile_m * tile_n outputs, reads its rows and columns anew.
    """
    left, right = s.m * s.k * s.kind.bytes, s.k * s.n * s.kind.bytes
    reads = np.full(p.tile_m.shape, float(s.read_bytes))
    if min(left, right) > facts.l2_bytes / 2:
        reads = np.maximum(reads, s.flops * s.kind.bytes / facts.sms**0.5 / p.side)
    return reads + s.write_bytes - facts.resident_bytes(s.activation_bytes + s.write_bytes)


def roofline_seconds(facts: Facts, s: Shape) -> float:
    """Return the datasheet's bound: peak operations and peak DRAM bandwidth, every operand byte once."""
    return max(
        s.flops / facts.rate(s.kind)[1].flops_per_s, (s.read_bytes + s.write_bytes) / facts.dram_bytes_per_s
    )


def matmul(facts: Facts, s: Shape) -> Kernel:
    """Return the kernel that the library would run: the plan that ends first.

    Its time is launch and latency, and the p-norm of tensor, L2 and DRAM time, under the power limit, and
    never below `roofline_seconds`. Each plan's time is monotone in every size, so the least of them is as
    well.
    """
    rate = facts.rate(s.kind)[1]
    p = plans(facts.tiles, facts.stream_k)
    t = _times(facts, rate, s, p)
    norm = facts.overlap
    most = np.maximum(np.maximum(t.tensor, t.l2), t.dram)
    body = most * ((t.tensor / most) ** norm + (t.l2 / most) ** norm + (t.dram / most) ** norm) ** (1 / norm)
    free = t.latency + body
    active = (facts.active_w - facts.idle_w) * (free - facts.launch_graph_s) * t.busy_sms
    compute = rate.j_per_flop * s.flops
    seconds = throttled(facts, free, active + compute + facts.dram_j_per_byte * t.dram_bytes)
    row = int(np.argmin(seconds))
    return priced(
        facts,
        p.text(row),
        max(float(seconds[row]), roofline_seconds(facts, s)),
        _traffic(s, float(t.dram_bytes[row]), float(t.l2_bytes[row])),
        (float(active[row]), compute, facts.dram_j_per_byte * float(t.dram_bytes[row])),
        _bound(facts, s, rate, t, row, float(seconds[row] / free[row])),
    )


def _traffic(s: Shape, dram: float, l2: float) -> tuple[float, float, float, float]:
    """Return DRAM read, DRAM write, L2 read, L2 write; what L2 keeps is taken from writes first."""
    write = min(float(s.write_bytes), max(0.0, dram - (s.read_bytes - s.activation_bytes)))
    return dram - write, write, l2 - s.write_bytes, float(s.write_bytes)


def _bound(facts: Facts, s: Shape, rate: Rate, t: Times, row: int, slowdown: float) -> str:
    """Return what held the kernel longest; `power` where the clock fell by more than 1 %.

    Tensor time that is mostly padding of tiles and idle SMs counts as `occupancy`.
    """
    parts = {"launch": t.latency[row], "tensor": t.tensor[row], "l2": t.l2[row], "dram": t.dram[row]}
    longest = max(parts, key=lambda name: float(parts[name]))
    if longest != "launch" and slowdown > 1.01:
        return "power"
    useful = s.flops / (rate.flops_per_s * rate.efficiency * facts.max_clock_hz / facts.clock_hz)
    return "occupancy" if longest == "tensor" and useful < 0.5 * t.tensor[row] else longest
