"""Indexed work: gathers of rows, and embedding bags pooled on the way in."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.chip import Chip
from mtia_emu.isa import LOWEST, POOL_MODES, QUANTISED, Block, Op, Operand
from mtia_emu.types import FP32

from .builder import LINE, Builder, NoRoom, ceil_div

Array = np.ndarray[Any, Any]
RINGS = 2


def emit_gather(chip: Chip, x: Operand, indices: Operand, out: Operand) -> Block:
    """Return the block of a gather: out[o, i] = x[o, indices[i]], rows of contiguous elements.

    x is [outer, axis, inner], indices [1, count], out [outer * count, inner]. Negative indices count from the
    end.
    """
    outer, axis, inner = x.shape
    count = indices.cols
    build = Builder(chip, "gather", (x, indices, out))
    room = chip.pe.local.bytes // 2 // RINGS // x.dtype.bytes
    cols = min(inner, room)
    share = ceil_div(outer * count, max(1, chip.pes // ceil_div(inner, cols)))
    rows = min(max(1, room // cols), share, count)
    slot = build.slot(x.dtype, rows * cols, RINGS)
    per_outer, across = ceil_div(count, rows), ceil_div(inner, cols)
    t = build.steps(outer * per_outer * across)
    block, first = t // (per_outer * across), t // across % per_outer * rows
    col, pe, j = t % across * cols, t % chip.pes, t // chip.pes
    tile = {"rows": np.minimum(rows, count - first), "col": col, "cols": np.minimum(cols, inner - col)}
    ring = slot + j % RINGS
    build.add(
        Op.GATHER,
        j * 4.0,
        pe=pe,
        operand=0,
        operand2=1,
        row=block * axis,
        row2=first,
        k=axis,
        dst=ring,
        **tile,
    )
    build.add(Op.STORE, j * 4.0 + 6, pe=pe, operand=2, src0=ring, row=block * count + first, **tile)
    return build.block()


def ranked_bags(chip: Chip, table: Operand, out: Operand, count: int) -> list[int]:
    """Return up to `count` numbers of bags that a command may take, the one thought best first.

    As many as local memory holds, in commands of about equal size; then fewer and fewer, since a result is
    stored while the next bags are pooled. Raises `NoRoom` where local memory does not hold one.
    """
    spare = chip.pe.local.bytes * 3 // 4 - chip.pe.core.rows_per_accumulate * table.cols * table.dtype.bytes
    share = ceil_div(out.rows, chip.pes)
    most = min(spare // (RINGS * out.cols * (4 + out.dtype.bytes) + LINE), share)
    if most < 1:
        raise NoRoom(
            f"embedding_bag: a row of {out.cols} elements does not fit {chip.pe.local.bytes} bytes of "
            "local memory"
        )
    least = ceil_div(share, most)  # commands of a PE
    sizes = [ceil_div(share, commands) for commands in range(least, min(least + 4 * count, share) + 1)]
    return list(dict.fromkeys(sizes))[:count]


def emit_embedding_bag(
    chip: Chip,
    table: Operand,
    indices: Operand,
    offsets: Operand,
    out: Operand,
    mode: str,
    weights: Operand | None = None,
    *,
    quantised: bool = False,
    lowest: bool = False,
    bags_each: int | None = None,
) -> Block:
    """Return the block of an embedding bag: out[b] = pool of table[indices[offsets[b] : offsets[b + 1]]].

    table is [rows, dim] ([rows, dim + 8] bytes where quantised: dim uint8 values, an fp32 scale and an fp32
    offset), indices and weights [1, look-ups], offsets [1, bags + 1], out [bags, dim]. Bags are spread over
    PEs, about equal numbers each; the look-ups of a command are known when it runs, `k` is the mean. An empty
    bag gives 0, or -inf where `lowest`.
    """
    bags, dim = out.rows, out.cols
    lookups = indices.cols
    operands = (table, indices, offsets, out) + ((weights,) if weights else ())
    build = Builder(chip, "embedding_bag", operands, f"quantised={int(quantised)}")
    rows = bags_each or ranked_bags(chip, table, out, 1)[0]
    pooled = build.slot(FP32, rows * dim, RINGS)
    t = build.steps(ceil_div(bags, rows))
    pe, j, row = t % chip.pes, t // chip.pes, t * rows
    n = np.minimum(rows, bags - row)
    looks = -(-lookups * n // max(bags, 1))
    ring = pooled + j % RINGS
    build.add(
        Op.POOL,
        j * 4.0,
        pe=pe,
        operand=0,
        operand2=1,
        row=row,
        rows=n,
        col=0,
        cols=dim,
        k=looks,
        fn=POOL_MODES.index(mode),
        dst=ring,
        row2=4 if weights else -1,
        flags=QUANTISED * quantised | LOWEST * lowest,
    )
    if out.dtype != FP32:
        narrow = build.slot(out.dtype, rows * dim, RINGS) + j % RINGS
        build.add(Op.SIMD, j * 4.0 + 6, pe=pe, fn=0, src0=ring, dst=narrow, rows=n, cols=dim)
        ring = narrow
    build.add(Op.STORE, j * 4.0 + 7, pe=pe, operand=3, src0=ring, row=row, rows=n, col=0, cols=dim)
    return build.block()
