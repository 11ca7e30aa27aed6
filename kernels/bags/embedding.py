"""Indexed work: gathers of rows, and embedding bags pooled on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import LOWEST, POOL_MODES, QUANTISED, Block, Opcode, Operand
from mtia_emu.types import FP32

from ..builder import LINE, Builder, NoRoom, ceil_div

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
        Opcode.GATHER,
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
    build.add(Opcode.STORE, j * 4.0 + 6, pe=pe, operand=2, src0=ring, row=block * count + first, **tile)
    return build.block()


@dataclass(frozen=True)
class BagOperands:
    """The operands of one table's bags: out[b] = pool of table[indices[offsets[b] : offsets[b + 1]]].

    table is [rows, dim] ([rows, dim + 8] bytes where quantised: dim uint8 values, an fp32 scale and an fp32
    offset), indices and weights [1, look-ups], offsets [1, bags + 1], out [bags, dim].
    """

    table: Operand
    indices: Operand
    offsets: Operand
    out: Operand
    weights: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Return the operands in the order in which a block has them."""
        four = (self.table, self.indices, self.offsets, self.out)
        return (*four, self.weights) if self.weights else four


def ranked_bags(chip: Chip, tables: Sequence[BagOperands], count: int) -> list[int]:
    """Return up to `count` limits to the bags that a command takes, the one thought best first.

    As many as local memory holds; then, for the table with most bags, fewer and fewer in commands of about
    equal size, since a result is stored while the next bags are pooled. Raises `NoRoom` where local memory
    does not hold one.

    An example: 2,048 bags on 64 PEs are 32 a PE. If local memory holds 20, a PE needs 2 commands at least, so
    the limits are 16, 11, 8, 7, ...: the sizes of 2, 3, 4, 5 commands. A limit of 20 would give commands of
    20 and 12, and the store of the first would hide behind fewer bags.
    """
    table, out = tables[0].table, tables[0].out
    room = chip.pe.local.bytes * 3 // 4 - chip.pe.core.rows_per_accumulate * table.cols * table.dtype.bytes
    most = room // (RINGS * out.cols * (4 + out.dtype.bytes) + LINE)
    if most < 1:
        raise NoRoom(
            f"embedding_bag: a row of {out.cols} elements does not fit {chip.pe.local.bytes} bytes of local "
            "memory"
        )
    share = max(1, ceil_div(max(t.out.rows for t in tables), chip.pes))
    least = ceil_div(share, most)  # commands of a PE
    sizes = [ceil_div(share, commands) for commands in range(least, min(least + 4 * count, share) + 1)]
    return list(dict.fromkeys(sizes))[:count]


def emit_embedding_bags(
    chip: Chip,
    tables: Sequence[BagOperands],
    mode: str,
    *,
    quantised: bool = False,
    lowest: bool = False,
    most: int | None = None,
) -> Block:
    """Return the block of embedding bags of tables of one width and type, `mode` one of POOL_MODES.

    The bags of each table are spread over PEs, about equal numbers each, `most` in a command (as
    `ranked_bags` has it first, where not given); what the tables leave over goes to the PEs that come next.
    The look-ups of a command are known when it runs, `k` is the mean. An empty bag gives 0, or -inf where
    `lowest`. Raises `NoRoom` for a row that local memory does not hold.
    """
    operands = tuple(x for t in tables for x in t.operands)
    build = Builder(chip, "embedding_bag", operands, f"quantised={int(quantised)}")
    out, most = tables[0].out, most or ranked_bags(chip, tables, 1)[0]
    shares = [_rows_each(t.out.rows, most, chip.pes) for t in tables]
    elements = max(shares) * out.cols
    pooled = build.slot(FP32, elements, RINGS)
    narrow = build.slot(out.dtype, elements, RINGS) if out.dtype != FP32 else None
    flags = QUANTISED * quantised | LOWEST * lowest
    first = before = 0
    for t, rows in zip(tables, shares, strict=True):
        step = build.steps(ceil_div(t.out.rows, rows))
        at = before + step
        fields = {"pe": at % chip.pes, "row": step * rows, "rows": np.minimum(rows, t.out.rows - step * rows)}
        _pool(build, t, first, at // chip.pes, fields, (pooled, narrow), POOL_MODES.index(mode), flags)
        first, before = first + len(t.operands), before + len(step)
    return build.block()


def _rows_each(bags: int, most: int, pes: int) -> int:
    """Return the bags of a command: every PE's share, in as many commands of about equal size as must be."""
    share = ceil_div(bags, pes)
    return ceil_div(share, ceil_div(share, most))


def _pool(
    build: Builder,
    t: BagOperands,
    first: int,
    turn: Array,
    fields: dict[str, Array],
    slots: tuple[int, int | None],
    mode: int,
    flags: int,
) -> None:
    """Emit one table's commands: `first` is its first operand, `turn` each command's number on its PE."""
    pooled, narrow = slots
    ring, cols = pooled + turn % RINGS, t.out.cols
    looks = -(-t.indices.cols * fields["rows"] // max(t.out.rows, 1))
    weights = first + 4 if t.weights else -1
    build.add(
        Opcode.POOL,
        turn * 4.0,
        operand=first,
        operand2=first + 1,
        col=0,
        cols=cols,
        k=looks,
        fn=mode,
        dst=ring,
        row2=weights,
        flags=flags,
        **fields,
    )
    if narrow is not None:
        half = narrow + turn % RINGS
        tile = {"pe": fields["pe"], "rows": fields["rows"], "cols": cols}
        build.add(Opcode.SIMD, turn * 4.0 + 6, fn=0, src0=ring, dst=half, **tile)
        ring = half
    build.add(Opcode.STORE, turn * 4.0 + 7, operand=first + 3, src0=ring, col=0, cols=cols, **fields)
