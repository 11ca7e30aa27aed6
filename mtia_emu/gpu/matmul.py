"""A matmul on a GPU: output tiles in waves over SMs, as a library would choose them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ..sums import add_up
from .facts import Facts, Rate
from .kernel import Board, BytesMoved, GpuKernel, active_joules, priced, throttled
from .shapes import Array, Shapes

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
PARTIAL_BYTES = 8  # a split-k partial sum is written and read again as fp32
STEP_NORM = 4.0  # the latency of a k step hides behind its arithmetic, and the other way round


@dataclass(frozen=True)
class Plans:
    """The kernels that the library could choose: columns of shape [1, plans].

    `persistent` plans share the last wave out along k (stream-k); `gemv` is the matrix-vector kernel, which
    has the whole of k in flight at once and serves one row only.
    """

    tile_m: Array
    tile_n: Array
    splits: Array
    persistent: Array
    gemv: Array

    @cached_property
    def area(self) -> Array:
        """Return the outputs of one tile, [1, plans]."""
        return self.tile_m * self.tile_n

    def text(self, column: int) -> str:
        """Return the name of one plan."""
        m, n, splits, persistent, gemv = (
            int(x[0, column]) for x in (self.tile_m, self.tile_n, self.splits, self.persistent, self.gemv)
        )
        if gemv:
            return "gemv"
        name = f"gemm {m}x{n}"
        return f"{name} stream-k" if persistent else f"{name} split-{splits}" if splits > 1 else name


@dataclass(frozen=True)
class Times:
    """Seconds of each resource, and the bytes behind them, [rows, plans]."""

    tensor: Array
    l2: Array
    dram: Array
    latency: Array
    l2_bytes: Array
    dram_bytes: Array

    def free(self, norm: float) -> Array:
        """Return the seconds at full clock, [rows, plans]: latency, and the p-norm of what overlaps."""
        most = np.maximum(np.maximum(self.tensor, self.l2), self.dram)
        parts = add_up((part / most) ** norm for part in (self.tensor, self.l2, self.dram))
        return self.latency + most * parts ** (1 / norm)


@lru_cache(maxsize=64)
def plans(tiles: tuple[tuple[int, int], ...], split_k: bool, stream_k: bool, gemv: bool) -> Plans:
    """Return every tile, with every split, stream-k and a matrix-vector kernel where there are any."""
    rows = [(m, n, s, 0, 0) for m, n in tiles for s in (SPLITS if split_k else (1,))]
    rows += [(m, n, 1, 1, 0) for m, n in tiles if stream_k]
    rows += [(1, 16, 1, 0, 1)] if gemv else []
    return Plans(*(np.array(column, float)[None, :] for column in zip(*rows, strict=True)))


@dataclass(frozen=True)
class TileLoop:
    """How plans go through products, [rows, plans]: `ctas` tiles in `waves`, `steps` of `step` along k.

    `step` depends on the row alone: [rows, 1].
    """

    ctas: Array
    waves: Array
    steps: Array
    step: Array

    @property
    def depth(self) -> Array:
        """Return the elements along k that one tile goes through, [rows, plans]."""
        return self.steps * self.step


def _loop(facts: Facts, s: Shapes, p: Plans) -> TileLoop:
    step = facts.k_step_bytes / np.maximum(s.left, s.right)
    ctas = np.ceil(s.m / p.tile_m) * np.ceil(s.n / p.tile_n) * s.batch * p.splits
    share = ctas / facts.sms
    waves = np.where(p.persistent > 0, np.maximum(1.0, share), np.ceil(share))
    return TileLoop(ctas, waves, np.ceil(s.k / (step * p.splits)), step)


def times(facts: Facts, rate: Rate, s: Shapes, p: Plans) -> Times:
    """Return what each plan asks of tensor cores, L2 and DRAM for each row."""
    loop = _loop(facts, s, p)
    l2_bytes, l2 = _l2(facts, s, p, loop)
    bandwidth = facts.dram_bytes_per_s * facts.matmul_dram_efficiency
    dram_bytes = _reads(facts, s, p) + s.write * (1 - s.warm)
    return Times(
        tensor=_tensor(facts, rate, s, p, loop),
        l2=l2,
        dram=dram_bytes / bandwidth,
        latency=_latency(facts, s, p),
        l2_bytes=l2_bytes,
        dram_bytes=dram_bytes,
    )


def _latency(facts: Facts, s: Shapes, p: Plans) -> Array:
    """Return the seconds that nothing hides, [rows, plans]: launch, first tile, reduction of split-k."""
    first = facts.matmul_latency_s + facts.tile_s * (p.tile_m + p.tile_n) / 256
    start = np.where(p.gemv > 0, facts.gemv_latency_s or 0.0, first)
    reduction = facts.split_s + PARTIAL_BYTES * p.splits * s.outputs / facts.reduce_bytes_per_s
    return facts.launch_graph_s + start + np.where(p.splits > 1, reduction, 0.0)


def _tensor(facts: Facts, rate: Rate, s: Shapes, p: Plans, loop: TileLoop) -> Array:
    """Return the seconds of one SM, [rows, plans]: of steps, arithmetic or latency; of waves, the change."""
    speed = rate.flops_per_s * rate.efficiency * facts.max_clock_hz / facts.clock_hz / facts.sms
    arithmetic = p.area * loop.step * 2 / speed
    least = rate.k_step_s or facts.k_step_s
    stepped = loop.waves * loop.steps * (arithmetic**STEP_NORM + least**STEP_NORM) ** (1 / STEP_NORM)
    tiled = stepped + facts.wave_s * (loop.waves - 1)
    return np.where(p.gemv > 0, 4 * s.macs / facts.vector_flops_per_s, tiled)


def _l2(facts: Facts, s: Shapes, p: Plans, loop: TileLoop) -> tuple[Array, Array]:
    """Return the bytes that tiles take from L2 and the seconds of all SMs or of one, each [rows, plans]."""
    loads = loop.depth * (
        np.minimum(p.tile_m, s.m) * s.left + np.minimum(p.tile_n, s.n) * s.right / facts.cluster
    )
    fixups = p.persistent * facts.sms * p.area
    moved = loop.ctas * loads + PARTIAL_BYTES * fixups + s.write
    one_sm = facts.sm_l2_bytes_per_clock * facts.max_clock_hz
    return moved, np.maximum(moved / facts.l2_reach, loop.waves * loads / one_sm)


def _reads(facts: Facts, s: Shapes, p: Plans) -> Array:
    """Return the bytes read from DRAM, [rows, plans].

    Weights come from DRAM, activations only as far as L2 has not kept them. Where neither operand fits half
    of L2, each wave of tiles, a square of sms * tile outputs, reads its rows and columns anew.
    """
    once = s.right_bytes * (1 - s.warm) + np.maximum(0.0, s.left_bytes - facts.l2_resident * facts.l2_bytes)
    again = s.macs * (s.left + s.right) / np.sqrt(facts.sms * p.area)
    spills = np.minimum(s.left_bytes, s.right_bytes) > facts.l2_bytes / 2
    return np.where(spills, np.maximum(once, again), once)


def roofline_seconds(facts: Facts, rate: Rate, s: Shapes) -> Array:
    """Return the datasheet's bound, [rows]: peak operations, peak DRAM bandwidth, every cold byte once."""
    return np.maximum(2 * s.macs / rate.flops_per_s, s.cold_bytes / facts.dram_bytes_per_s)[:, 0]


@dataclass(frozen=True)
class Chosen:
    """The plan that ends first: its `seconds` and its `column` among the plans, [rows].

    Of all plans, [rows, plans]: `free`, seconds at full clock, and joules by then, `active` and `compute`.
    """

    seconds: Array
    column: Array
    plans: Plans
    times: Times
    free: Array
    active: Array
    compute: Array


def choose(board: Board, rate: Rate, s: Shapes) -> Chosen:
    """Return the kernel that the library would run for each row.

    Its time is latency and the p-norm of tensor, L2 and DRAM time, under the power limit (operations take
    `Board.heat` times their energy), and never below `roofline_seconds`. Each plan's time is monotone in
    every size, so the least of them is as well.
    """
    facts = board.facts
    gemv = facts.gemv_latency_s is not None
    cuts_k = rate.cuts_k is not False
    p = plans(facts.tiles, cuts_k, facts.stream_k and cuts_k, gemv)
    t = times(facts, rate, s, p)
    free = t.free(facts.overlap)
    active = active_joules(facts, free)
    cool, dram = 2 * rate.j_per_flop * s.macs, facts.dram_j_per_byte * t.dram_bytes
    compute = cool * board.heat(free, active + cool + dram)
    seconds = np.where(
        (p.gemv > 0) & (s.batch * s.m > 1), np.inf, throttled(facts, free, active + compute + dram)
    )
    column = np.argmin(seconds, axis=1)
    least = np.take_along_axis(seconds, column[:, None], 1)[:, 0]
    return Chosen(np.maximum(least, roofline_seconds(facts, rate, s)), column, p, t, free, active, compute)


def seconds(board: Board, rate: Rate, s: Shapes) -> Array:
    """Return the time of each matmul, [rows], in seconds."""
    return choose(board, rate, s).seconds


def matmul(board: Board, rate: Rate, s: Shapes) -> GpuKernel:
    """Return the kernel of the one matmul in `s`."""
    chosen, facts = choose(board, rate, s), board.facts
    column, t = int(chosen.column[0]), chosen.times
    dram, l2 = float(t.dram_bytes[0, column]), float(t.l2_bytes[0, column])
    joules = (
        float(chosen.active[0, column]),
        float(chosen.compute[0, column]),
        facts.dram_j_per_byte * dram,
    )
    return priced(
        facts,
        chosen.plans.text(column),
        float(chosen.seconds[0]),
        _moved(s, dram, l2),
        joules,
        _bound(facts, rate, s, chosen),
    )


def _moved(s: Shapes, dram: float, l2: float) -> BytesMoved:
    """Return the bytes by direction, of those of DRAM and L2 in all."""
    write = float(s.write[0, 0])
    kept = min(write * float(1 - s.warm[0, 0]), dram)
    return BytesMoved(dram - kept, kept, l2 - write, write)


def _bound(facts: Facts, rate: Rate, s: Shapes, chosen: Chosen) -> str:
    """Return what held the kernel longest; `power` where the clock fell by more than 1 %.

    Tensor time that is mostly padding of tiles, idle SMs and latency of k steps counts as `occupancy`.
    """
    t, column = chosen.times, int(chosen.column[0])
    parts = {
        name: float(np.broadcast_to(part, chosen.free.shape)[0, column])
        for name, part in (
            ("launch", t.latency), ("tensor", t.tensor), ("l2", t.l2), ("dram", t.dram),
        )
    }  # fmt: skip
    longest = max(parts, key=lambda name: parts[name])
    if longest != "launch" and chosen.seconds[0] > 1.01 * chosen.free[0, column]:
        return "power"
    speed = rate.flops_per_s * rate.efficiency * facts.max_clock_hz / facts.clock_hz
    useful = float(2 * s.macs[0, 0]) / speed
    return "occupancy" if longest == "tensor" and useful < 0.5 * parts["tensor"] else longest
