"""Kernel calls of random sizes on random chips: what each is estimated to take, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from harness import packed
from hypothesis import strategies as st
from mtia_emu.kernels.attention.fused import emit_attention
from mtia_emu.kernels.attention.operands import AttentionOperands, ScoreTape
from mtia_emu.kernels.attention.plan import AttentionPlan, AttentionProblem
from mtia_emu.kernels.attention.search import Tilings, first_cycles
from mtia_emu.kernels.bags.estimate import bag_cycles
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags, ranked_bags
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.packed import PackedMatrix, emit_matmul_packed
from mtia_emu.kernels.matmul.packed_search import ranked_packed
from mtia_emu.kernels.matmul.packing import Weights
from mtia_emu.kernels.matmul.plan import MatmulPlan, MatmulProblem
from mtia_emu.kernels.matmul.search import ranked_matmul
from mtia_emu.kernels.pace import pace
from mtia_emu.kernels.rows.estimate import row_cycles
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.types import FP16, FP32, INT8, INT32, UINT8

T = TypeVar("T")
CHIPS = ("tiny", "mtia-1", "mtia-2i", "mtia-300", "tpu-v4i")
NUMBERS: dict[str, tuple[Any, ...]] = {  # of a chip: as its file has it, or one of these
    "noc.hop_cycles": (0, 1, 6, 12),
    "noc.broadcast": (True, False),
    "pe.dma.bytes_per_cycle": (16, 32, 64, 128),
    "pe.simd.bytes_per_cycle": (32, 64, 128),
    "dram.latency_s": (60e-9, 150e-9, 400e-9),
    "pe.local.bytes": (131072, 393216, 1 << 20),
}
TAPES = (
    "1 -> t0 | t0 = gelu(x0)",
    "1 -> t2 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1)",
    "1 -> t4 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1); t3 = fold_sum(t2); t4 = div(t2, t3)",
)


class Draws(Protocol):
    """Where choices come from: hypothesis, or a generator of random numbers."""

    def pick(self, options: Sequence[T]) -> T:
        """Return one of some options."""

    def size(self, least: int, most: int) -> int:
        """Return a size in a range, small ones as often as large ones."""


class RandomDraws:
    """Choices by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def size(self, least: int, most: int) -> int:
        return int(np.exp(self.rng.uniform(np.log(least), np.log(most + 1))))


class HypothesisDraws:
    """Choices that hypothesis makes, and makes simpler where a test fails."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw

    def pick(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(list(options)))

    def size(self, least: int, most: int) -> int:
        return int(self.draw(st.integers(least, most)))


@dataclass(frozen=True)
class Estimated:
    """A kernel call on a chip: the cycles that it was estimated to take, and those that its block takes."""

    what: str
    estimated: float
    timed: float

    @property
    def share(self) -> float:
        """Return the estimate over the time."""
        return self.estimated / self.timed


def chip(d: Draws) -> Chip:
    """Return a chip, some of its numbers changed."""
    changed = {key: d.pick((None, *values)) for key, values in NUMBERS.items()}
    return load_chip(d.pick(CHIPS), {key: value for key, value in changed.items() if value is not None})


def _held(what: object, cycles: float, block: Block, machine: Chip) -> Estimated:
    return Estimated(f"{machine.name} {what}: {block.mapping}", cycles, timeline(block, machine).cycles)


def product(d: Draws) -> Estimated:
    """Return a matrix product, its mapping the one chosen."""
    c = chip(d)
    big, kind = c.pes > 16, d.pick([x for x in (FP16, INT8) if c.pe.matrix.supports(x.name)])
    batch = d.pick((1, 1, 3))
    m, k, n = d.size(1, 1024 if big else 96), *(d.size(16, 2048 if big else 256) for _ in "kn")
    tiled = batch == 1 and d.pick((True, False))
    a_space, b_space, out_space = (d.pick(("sram", "dram")) for _ in range(3))
    p = MatmulProblem(
        batch, m, k, n, kind, kind, FP16 if kind.is_float else INT32, a_space,
        "dram" if tiled else b_space, b_batched=batch > 1, b_tiled=tiled, out_space=out_space,
    )  # fmt: skip
    ((mapping, cycles),) = ranked_matmul(p, c, 1)
    a, out = packed(p.a, (batch, m, k), a_space), packed(p.out, (batch, m, n), out_space, written=True)
    b = packed(p.b, (batch, k, n) if batch > 1 else (k, n), p.b_space)
    b = replace(b, strides=(*b.strides[:-2], 1, k), tiled=tiled)
    return _held(p, cycles, emit_matmul(MatmulPlan(p, mapping, c), a, b, out), c)


def packed_product(d: Draws) -> Estimated:
    """Return a product with weights of 4 bits."""
    c = chip(d)
    big, block = c.pes > 16, d.pick((16, 32, 64))
    k, n, m = 2 * block * d.size(1, 24 if big else 6), d.size(16, 2048 if big else 200), d.size(1, 128)
    p = MatmulProblem(
        1, m, k // 2, n, FP16, UINT8, FP16, d.pick(("sram", "dram")), "dram",
        b_batched=False, b_tiled=d.pick((True, False)),
    )  # fmt: skip
    weights = Weights(k, block, 2, d.pick((True, False)), FP16)
    ((mapping, cycles),) = ranked_packed(p, weights, c, 1)
    codes = replace(packed(UINT8, (k // 2, n)), tiled=p.b_tiled)
    zeros = packed(UINT8, (k // 2 // block, n)) if weights.zeros else None
    matrix = PackedMatrix(weights, codes, packed(FP16, (k // block, n)), zeros)
    a, out = packed(FP16, (m, k), p.a_space), packed(FP16, (m, n), "sram", written=True)
    return _held(p, cycles, emit_matmul_packed(MatmulPlan(p, mapping, c), a, matrix, out), c)


def attention(d: Draws) -> Estimated:
    """Return an attention, whole or causal."""
    c = chip(d)
    big = c.pes > 16
    g, h, q = d.size(1, 32 if big else 4), d.pick((1, 2, 4)), d.size(1, 256 if big else 32)
    keys, dim = d.size(16, 1024 if big else 128), d.pick((16, 32, 64, 128) if big else (8, 16))
    hidden = {"diagonal": keys - q} if d.pick((True, False)) and keys >= q else {}
    space = d.pick(("sram", "dram"))
    p = AttentionProblem(g, h, q, keys, dim, dim, FP16, space, extra_bytes=4, **hidden)
    ((tiles, cycles),) = Tilings(p, c).ranked(p.space, c, 1)
    queries, out = packed(FP16, (g, h, q, dim), "sram"), packed(FP16, (g, h, q, dim), "sram", written=True)
    k = replace(packed(FP16, (g, dim, keys), space), strides=(dim * keys, 1, dim))
    operands = AttentionOperands(queries, k, packed(FP16, (g, keys, dim), space), out)
    block = emit_attention(
        AttentionPlan(p, tiles, c), operands, ScoreTape(parse("1 -> t0 | t0 = mul(x0, 0.25)"))
    )
    return _held(p, cycles + first_cycles(p, c), block, c)


def bags(d: Draws) -> Estimated:
    """Return embedding bags of one table or more."""
    c = chip(d)
    dim, kind, space = d.pick((8, 32, 128)), d.pick((FP16, FP32)), d.pick(("dram", "sram"))
    tables = []
    for _ in range(d.pick((1, 2, 4))):
        count, pooling = d.size(1, 1024 if c.pes > 16 else 64), d.size(1, 64)
        looks, offsets = packed(INT32, (1, count * pooling)), packed(INT32, (1, count + 1))
        out = packed(kind, (count, dim), "sram", written=True)
        tables.append(BagOperands(packed(kind, (100_000, dim), space), looks, offsets, out))
    most = ranked_bags(c, tables, 1)[0]
    what = [(t.out.rows, t.indices.cols, dim, str(kind), space) for t in tables]
    return _held(what, bag_cycles(c, tables, most), emit_embedding_bags(c, tables, "sum", most=most), c)


def rows(d: Draws) -> Estimated:
    """Return a tape over rows."""
    c = chip(d)
    count, cols = d.size(1, 4096 if c.pes > 16 else 200), d.size(2, 2048 if c.pes > 16 else 128)
    kind, tape = d.pick((FP16, FP32)), parse(d.pick(TAPES))
    x, out = packed(kind, (count, cols), "sram"), packed(kind, (count, cols), "sram", written=True)
    cycles = row_cycles(c, tape, count, cols, (kind, kind))
    return _held((count, cols, str(kind)), cycles, emit_rowwise(c, "row", tape, [x], [out]), c)


def paced(d: Draws) -> Estimated:
    """Return a tape over rows out of DRAM, by its block's pace."""
    c = chip(d)
    count, cols = d.size(1, 4096 if c.pes > 16 else 200), d.size(2, 2048 if c.pes > 16 else 128)
    kind, tape = d.pick((FP16, FP32)), parse(d.pick(TAPES))
    x, out = packed(kind, (count, cols)), packed(kind, (count, cols), d.pick(("sram", "dram")), written=True)
    block = emit_rowwise(c, "row", tape, [x], [out])
    found = pace(block, c)
    assert found is not None
    return _held((count, cols, str(kind)), max(found.dram, found.other) + found.edge, block, c)


CALLS: dict[str, Callable[[Draws], Estimated]] = {
    "product": product,
    "packed product": packed_product,
    "attention": attention,
    "bags": bags,
    "rows": rows,
    "pace": paced,
}


@st.composite
def calls(draw: Any, name: str) -> Estimated:
    """Return calls of a kernel, as hypothesis draws them."""
    return CALLS[name](HypothesisDraws(draw))


def spread(name: str, count: int) -> np.ndarray[Any, Any]:
    """Return the shares of so many random calls of a kernel, the least first."""
    return np.sort([CALLS[name](RandomDraws(seed)).share for seed in range(count)])
