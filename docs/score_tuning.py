"""Score the search for mappings: `--tune fast` and `full` beside every mapping, each timed by the emulator.

    python docs/score_tuning.py [--part]

A case is one kernel call on one chip. "Every mapping": of a product all splits of the grid, tiles from the
smallest to the accumulators' size, panels of k, both orders, whatever is held, rings of two to twelve slots,
staged or not; on larger chips those that the search ranks. Of attention all lanes, and tiles, blocks and
stacks from small (on larger chips 4 queries, 16 keys) to large; of an embedding bag any number of bags to a
command. Prints the table and writes it into docs/accuracy-mappings.md (some twenty minutes on two cores);
with --part prints only the cases that take seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from markdown_table import table
from mtia_emu.kernels.attention.fused import emit_attention
from mtia_emu.kernels.attention.operands import AttentionOperands, ScoreTape
from mtia_emu.kernels.attention.plan import AttentionPlan, AttentionProblem, AttentionTiling
from mtia_emu.kernels.attention.search import Tilings
from mtia_emu.kernels.bags.pooled import BagOperands as Table
from mtia_emu.kernels.bags.pooled import emit_embedding_bags, ranked_bags
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulPlan, MatmulProblem
from mtia_emu.kernels.matmul.search import ranked_matmul
from mtia_emu.kernels.matmul.space import MappingSpace, panel_lengths, splits
from mtia_emu.kernels.rows.tape import parse
from mtia_emu.kernels.search import MappingSearch

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Operand
from mtia_emu.study.tuning import cycles
from mtia_emu.types import FP16, INT8, INT32, DType

WITHIN = 1.05
PAGE = Path(__file__).with_name("accuracy-mappings.md")
BEGIN, END = "<!-- measured: mappings -->", "<!-- end -->"
SCALED = ScoreTape(parse("1 -> t0 | t0 = mul(x0, 0.25)"))
CHUNK = 200


def packed(kind: DType, shape: Sequence[int], space: str, *, written: bool = False) -> Operand:
    """Return a row-major operand."""
    strides = [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]
    return Operand(kind, tuple(shape), tuple(strides), space, written)


@dataclass(frozen=True)
class Product:
    """A matrix product; weights lie as the compiler stores them, k innermost, in DRAM tile after tile."""

    chip: str
    m: int
    k: int
    n: int
    kind: DType = FP16
    batch: int = 1
    weights: str = "dram"

    def __str__(self) -> str:
        batch = f"{self.batch} x " if self.batch > 1 else ""
        return f"product {batch}{self.m} x {self.k} x {self.n} {self.kind}, b in {self.weights.upper()}"

    @property
    def problem(self) -> MatmulProblem:
        """Return the kernel's problem."""
        out, alone = FP16 if self.kind.is_float else INT32, self.batch == 1
        return MatmulProblem(
            self.batch, self.m, self.k, self.n, self.kind, self.kind, out, "sram", self.weights,
            b_batched=not alone, b_tiled=alone and self.weights == "dram",
        )  # fmt: skip

    def ranked(self, chip: Chip, count: int) -> list[MatmulMapping]:
        """Return what the search would try, best first."""
        return [mapping for mapping, _ in ranked_matmul(self.problem, chip, count)]

    def block(self, mapping: MatmulMapping, chip: Chip) -> Block:
        """Return the block of a mapping."""
        p = self.problem
        a = packed(p.a, (p.batch, p.m, p.k), p.a_space)
        shape = (p.batch, p.k, p.n) if p.b_batched else (p.k, p.n)
        b = packed(p.b, shape, p.b_space)
        b = replace(b, strides=(*b.strides[:-2], 1, p.k), tiled=p.b_tiled)
        out = packed(p.out, (p.batch, p.m, p.n), p.out_space, written=True)
        return emit_matmul(MatmulPlan(p, mapping, chip), a, b, out)

    def every(self, chip: Chip) -> list[MatmulMapping]:
        """Return every mapping."""
        if chip.pes > 16:
            return list(dict.fromkeys(self._space(chip)))
        return list(dict.fromkeys(self._all(chip)))

    def _space(self, chip: Chip) -> Iterator[MatmulMapping]:
        for panels in panel_lengths(chip):
            space = MappingSpace(self.problem, chip, panels)
            for index in np.flatnonzero(np.broadcast_to(space.fits, space.shape)).tolist():
                yield space.mapping(index)

    def _all(self, chip: Chip) -> Iterator[MatmulMapping]:
        p, reduce = self.problem, chip.pe.reduce
        lanes = chip.pe.matrix.lanes(p.a.name)
        tms, tns = _sizes(p.m, 2 * reduce.bank_rows), _sizes(p.n, 2 * reduce.bank_cols)
        kps = sorted({-(-min(x, p.k) // lanes) * lanes for x in (8, 16, 32, 64, 128, 256)})
        stages = (False, True) if p.b_space == "dram" else (False,)
        for split, tm, tn, kp, outer in product(splits(p, chip), tms, tns, kps, "mn"):
            base = MatmulMapping(split.rows, split.cols, tm, tn, kp, outer)
            panels = MatmulPlan(p, base, chip).local["k"]
            holds = [(0, 1), *((h, r) for h in {1, -(-panels // 2), panels} for r in (1, 2))]
            for (hold, rings), depth, stage in product(holds, (2, 4, 8, 12), stages):
                if not stage or outer == "n":
                    yield replace(base, hold=hold, rings=rings, depth=depth, stage=stage)


@dataclass(frozen=True)
class Heads:
    """An attention, its keys and values in SRAM."""

    chip: str
    groups: int
    heads: int
    queries: int
    keys: int
    dim: int
    hidden: bool = False

    def __str__(self) -> str:
        causal = ", causal" if self.hidden else ""
        return (
            f"attention {self.groups} x {self.heads} heads, {self.queries} x {self.keys} x {self.dim}{causal}"
        )

    @property
    def problem(self) -> AttentionProblem:
        """Return the kernel's problem."""
        diagonal = {"diagonal": self.keys - self.queries} if self.hidden else {}
        return AttentionProblem(
            self.groups, self.heads, self.queries, self.keys, self.dim, self.dim, FP16, "sram",
            extra_bytes=4, **diagonal,
        )  # fmt: skip

    def ranked(self, chip: Chip, count: int) -> list[AttentionTiling]:
        """Return what the search would try, best first."""
        found = Tilings(self.problem, chip)
        return [tiles for tiles, _ in found.ranked(self.problem.space, chip, count)]

    def block(self, tiles: AttentionTiling, chip: Chip) -> Block:
        """Return the block of a tiling."""
        p = self.problem
        q = packed(FP16, (p.groups, p.heads, p.queries, p.dim), "sram")
        k = packed(FP16, (p.groups, p.dim, p.keys), "sram")
        v = packed(FP16, (p.groups, p.keys, p.dim), "sram")
        out = packed(FP16, (p.groups, p.heads, p.queries, p.dim), "sram", written=True)
        k = replace(k, strides=(p.dim * p.keys, 1, p.dim))
        plan = AttentionPlan(p, tiles, chip)
        if plan.score_rings < 1:
            raise NoRoom("scores do not fit the accumulators")
        return emit_attention(plan, AttentionOperands(q, k, v, out), SCALED)

    def every(self, chip: Chip) -> list[AttentionTiling]:
        """Return every tiling."""
        reduce, whole = chip.pe.reduce, self.heads * self.queries
        least = 1 if chip.pes <= 16 else min(4, whole)  # smaller tiles are as many commands as they are slow
        rows = [r for r in (1, 2, 4, 8, 16, 32) if least <= r <= min(whole, reduce.bank_rows * 2)]
        widths = [w for w in (4, 8, 16, 32, 64) if 4 * least <= w <= min(self.keys, reduce.bank_cols * 2)]
        lanes = sorted({1, chip.grid.cols})
        stacks = [s for s in (1, 2, 3, 4, 6, 8, 12) if (s - 1) * min(rows) < whole]
        found = product(lanes, rows, widths, (2, 3, 4, 6, 8, 12, 16), stacks)
        return [AttentionTiling(*x) for x in found if x[2] * x[3] < 2 * self.keys or x[3] == 2]


@dataclass(frozen=True)
class Bags:
    """An embedding bag of 100,000 rows in DRAM."""

    chip: str
    dim: int
    bags: int
    pooling: int

    def __str__(self) -> str:
        return f"embedding bag {self.bags} x {self.pooling} rows of {self.dim} {FP16}"

    @property
    def table(self) -> Table:
        """Return table, indices, offsets and result."""
        return Table(
            packed(FP16, (100_000, self.dim), "dram"),
            packed(INT32, (1, self.bags * self.pooling), "dram"),
            packed(INT32, (1, self.bags + 1), "dram"),
            packed(FP16, (self.bags, self.dim), "sram", written=True),
        )

    def ranked(self, chip: Chip, count: int) -> list[int]:
        """Return what the search would try, best first."""
        return ranked_bags(chip, [self.table], count)

    def block(self, bags: int, chip: Chip) -> Block:
        """Return the block with so many bags to a command."""
        return emit_embedding_bags(chip, [self.table], "sum", most=bags)

    def every(self, chip: Chip) -> list[int]:
        """Return every number of bags to a command."""
        return list(range(1, self.ranked(chip, 1)[0] + 1))


Case = Product | Heads | Bags


def _sizes(size: int, block: int) -> list[int]:
    """Return tile sizes from 4 to the block, doubled each time, none larger than the size."""
    return sorted({min(size, block >> i) for i in range(5) if block >> i >= min(4, size)})


PART: tuple[Case, ...] = (
    Product("tiny", 5, 40, 24),
    Heads("tiny", 2, 2, 24, 48, 16),
    Bags("tiny", 32, 200, 10),
    Bags("mtia-2i", 128, 2048, 20),
)
CASES: tuple[Case, ...] = (
    *PART,
    Product("tiny", 32, 64, 32),
    Product("tiny", 1, 256, 64),
    Product("tiny", 16, 16, 24, batch=4, weights="sram"),
    Product("tiny", 64, 64, 64, INT8),
    Product("tiny", 24, 100, 80, INT8, weights="sram"),
    Product("tiny", 96, 32, 120),
    Product("mtia-2i", 1, 1024, 1024),
    Product("mtia-2i", 64, 512, 256),
    Product("mtia-2i", 256, 384, 200, INT8),
    Product("mtia-1", 64, 1024, 256),
    Heads("tiny", 4, 1, 1, 200, 16),
    Heads("tiny", 1, 4, 40, 40, 8, hidden=True),
    Heads("mtia-2i", 8, 4, 256, 512, 128),
    Heads("mtia-2i", 8, 4, 1, 2048, 128),
    Heads("mtia-2i", 32, 1, 128, 128, 64, hidden=True),
    Heads("mtia-1", 12, 1, 128, 128, 64),
    Bags("tiny", 128, 1000, 3),
    Bags("mtia-1", 64, 4096, 40),
    Bags("mtia-2i", 256, 8192, 1),
)


@dataclass(frozen=True)
class Scored:
    """Cycles of a case: of the fast choice, of the full one, and of the best of so many mappings."""

    case: Case
    mappings: int
    fast: float
    full: float
    best: float

    @property
    def shares(self) -> tuple[float, float]:
        """Return fast and full over the best."""
        return self.fast / self.best, self.full / self.best


def timed(case: Case, mapping: Any) -> float:
    """Return the cycles of a mapping, infinite for one that has no room or too many commands."""
    chip = load_chip(case.chip)
    try:
        return cycles(case.block(mapping, chip), chip)
    except UserError:
        return float("inf")


def _chunk(case: Case, mappings: list[Any]) -> list[float]:
    return [timed(case, x) for x in mappings]


def score(case: Case, run: Callable[..., Any] = map) -> Scored:
    """Return how the search does on a case; `run` maps a function over lists."""
    chip, search = load_chip(case.chip), MappingSearch(time=cycles)
    ranked: list[Any] = case.ranked(chip, search.count)
    full = ranked[search.choose(ranked, lambda x: case.block(x, chip), chip)]
    every: list[Any] = list(dict.fromkeys([*ranked, *case.every(chip)]))
    chunks = [every[i : i + CHUNK] for i in range(0, len(every), CHUNK)]
    found = np.array([x for part in run(_chunk, [case] * len(chunks), chunks) for x in part])
    fits = np.isfinite(found)
    return Scored(case, int(fits.sum()), timed(case, ranked[0]), timed(case, full), float(found[fits].min()))


def rows(scored: Sequence[Scored]) -> list[list[str]]:
    """Return the table's rows."""
    return [
        [s.case.chip, str(s.case), f"{s.mappings:,}", f"{s.best:,.0f}", *(f"{x:.3f}" for x in s.shares)]
        for s in scored
    ]


def summary(scored: Sequence[Scored]) -> list[str]:
    """Return a sentence for each way to choose."""
    lines = []
    for name, place in (("fast", 0), ("full", 1)):
        shares = [s.shares[place] for s in scored]
        inside = sum(x <= WITHIN for x in shares)
        lines.append(
            f"`--tune {name}`: {inside} of {len(shares)} within 5 % of the best, on average "
            f"{np.mean(shares) - 1:.1%} above it, at most {max(shares) - 1:.1%}."
        )
    return lines


def main() -> None:
    """Print the table, and write it into the page where all cases were scored."""
    found, part = [], "--part" in sys.argv
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for case in PART if part else CASES:
            found.append(score(case, pool.map))
            print(f"{case.chip}: {case}: {found[-1].shares}", file=sys.stderr)
    columns = ["chip", "call", "mappings", "best, cycles", "fast / best", "full / best"]
    text = "\n\n".join([table(columns, rows(found)), *summary(found)])
    print(text)
    if not part:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        tail = rest[rest.index(END) :]
        PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
