"""The matrix unit: products of tiles, summed in an accumulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...numerics import multiply_tiles
from ...types import DType
from ..columns import MOST, CommandColumns
from ..events import DTYPE_NAMES, Events
from ..fields import COLS, DST, FLAGS, PE, ROWS, SRC0, SRC1, Fields, K
from ..isa import FIRST, VECTOR, Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue
from .simd import SIMD

MATRIX = Queue("matrix", "array", "the matrix unit of a PE", "matrix")
MOST_CODES, CODES_EACH = 1 << 22, 64  # of a table that is looked up in place of sorting: all, for one number


class MultiplyTiles(CommandKind):
    """The product of two slots, added to an accumulator or, flagged FIRST, put there."""

    opcode, queue, flagged = Opcode.MATMUL, MATRIX, (VECTOR, SIMD)
    unit, text = "matrix (simd where flagged VECTOR)", "dst (+)= src0[rows, k] x src1[k, cols]"
    reads, writes, operands = ("src0", "src1"), ("dst",), ()
    multiplies, adds, overwrites = True, True, FIRST

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        m, n, k = c["rows"], c["cols"], c["k"]
        large = (k < 1) | (m.astype(float) * n * k > MOST)
        columns.refuse(large, at, "a product has from 1 to 2^40 multiply-adds")
        columns.refuse(c["flags"] & ~(FIRST | VECTOR) > 0, at, "unknown flags")
        columns.held(at, c["src0"], m * k)
        columns.held(at, c["src1"], k * n)
        columns.held(at, c["dst"], m * n, bank=True)
        vector = c["flags"] & VECTOR > 0
        for name in ("src0", "src1", "dst"):
            kind = columns.slot_kind[c[name]]
            columns.refuse(kind != kind[0], at, f"all products of a block have the same type of {name}")
        columns.refuse(vector != vector[0], at, "all products of a block run on one unit")
        left, right, out = (columns.kinds[int(columns.slot_kind[c[x][0]])] for x in ("src0", "src1", "dst"))
        known = _multiplies(left) and _multiplies(right) and left.is_float == right.is_float
        fits = out.name == ("fp32" if left.is_float else "int32")
        columns.refuse_all(not known or not fits, at, f"{left} x {right} cannot be summed in {out}")
        can, chip = bool(vector[0]) or columns.chip.pe.matrix.supports(left.name), columns.chip.name
        columns.refuse_all(not can, at, f"the matrix unit of {chip} does not multiply {left}")

    def count(self, batch: Batch, ev: Events) -> None:
        at, c = batch.at, batch.c
        m, k, n, which = products(c)
        kind = _multiplied(batch)
        ev.macs[at] = (m * n * k)[which]
        if _on_simd(c):
            # each row of b passes the lanes once for four rows of a held in registers
            words_a, words_b, counted = m * k, k * n * -(-m // 4), "fp32"
        else:
            words_a, words_b = batch.chip.pe.matrix.operand_reads(m, k, n, kind.name)
            counted = kind.name
        ev.mac_dtype[at] = DTYPE_NAMES.index(counted)
        sizes = batch.slot_bytes
        ev.local_read_bytes[at] += words_a[which] * sizes[c["src0"]] + words_b[which] * sizes[c["src1"]]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        pe, kind = batch.chip.pe, _multiplied(batch)
        if _on_simd(batch.c):
            return CommandCost(*pe.simd.product_cost(ev.macs[batch.at], kind))
        m, k, n, which = products(batch.c)
        busy, latency = pe.matrix.cost(m, k, n, kind.name)
        return CommandCost(busy[which], latency[which])

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        pe, m, n, k = c[PE], c[ROWS], c[COLS], c[K]
        a, b = run.take(pe, c[SRC0], m, k), run.take(pe, c[SRC1], k, n)
        if c[FLAGS] & FIRST:
            acc = run.give(pe, c[DST], m, n)
            acc[...] = 0
        else:
            acc = run.take(pe, c[DST], m, n)
        vector = c[FLAGS] & VECTOR
        name = "fp32" if vector else run.block.slots[c[SRC0]].dtype.name
        if zeros := multiply_tiles(a, b, acc, int(k) if vector else run.chunk(name, int(k))):
            run.note_zeros(pe, name, zeros)

    def show(self, c: Any, block: Block) -> str:
        equals = "=" if c["flags"] & FIRST else "+="
        unit = " on simd" if c["flags"] & VECTOR else ""
        size = f"({c['rows']}x{c['k']}x{c['cols']})"
        return f"s{c['dst']} {equals} s{c['src0']} x s{c['src1']} {size}{unit}"


def _multiplies(kind: DType) -> bool:
    return kind.bits <= 32 and kind.name not in ("uint32", "bool")


def _multiplied(batch: Batch) -> DType:
    """Return the type that a batch multiplies: all products of a block have the same."""
    return batch.block.slots[int(batch.c["src0"][0])].dtype


def _on_simd(c: Array) -> bool:
    """Return whether products c[n] run on the SIMD engine: all of a block do, or none."""
    return bool((c["flags"] & VECTOR).any())


def products(c: Array) -> tuple[Array, Array, Array, Array]:
    """Return the distinct sizes m, k, n of MATMULs c[n], and the number of each one's among them, [n]."""
    m, k, n = (c[name].astype(np.int64) for name in ("rows", "k", "cols"))
    wide, deep = int(n.max()) + 1, int(k.max()) + 1
    code, most = (m * deep + k) * wide + n, (int(m.max()) + 1) * deep * wide
    if most > min(MOST_CODES, CODES_EACH * len(code)):
        codes, which = np.unique(code, return_inverse=True)
    else:
        here, number = np.zeros(most, bool), np.empty(most, np.int32)
        here[code] = True
        codes = np.flatnonzero(here)
        number[codes] = np.arange(len(codes))
        which = number[code]
    rows, cols = np.divmod(codes, wide)
    return *np.divmod(rows, deep), cols, which
