"""Embedding bags: rows by index, pooled on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import LOWEST, POOL_MODES, QUANTISED, Block, Opcode
from mtia_emu.types import FP32

from ..builder import LINE, Builder, NoRoom, ceil_div
from ..halves import Portion, cut_at, in_two, part
from ..kernel import Kernel, KernelCall, Memoise
from ..phases import Phases
from ..spelling import numbers, words_of
from .estimate import bag_cycles
from .operands import BagOperands, bags_each

Array = np.ndarray[Any, Any]
T = TypeVar("T")
RINGS = 2
ISSUE = Phases(pool=0, narrow=1, store=1)  # bags are rounded and stored while the next ones are pooled


class EmbeddingBagKernel(Kernel):
    """Bags of one table or several, whose inputs stand table after table: see `emit_embedding_bags`."""

    name = "embedding_bag"
    summary = "rows by index, pooled"
    writes_views = shares_launch = True

    def candidates(self, problem: KernelCall, chip: Chip, count: int, memoise: Memoise) -> Sequence[int]:
        """Return the most bags that a command takes: see `ranked_bags`."""
        return ranked_bags(chip, self._tables(problem), count)

    def spelled(self, mapping: int) -> str:
        """Return the most bags of a command, named."""
        return f"bags={mapping}"

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> int:
        """Return the most bags that a text gives to a command; local memory is asked when it is emitted."""
        (most,) = numbers(words_of(text, {"bags": 1}, "bags"), "bags", "")
        return most

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: int) -> Block:
        """Return the commands, each of so many bags at most."""
        p = call.params
        return emit_embedding_bags(
            chip,
            self._tables(call),
            p["mode"],
            quantised=p["quantised"],
            lowest=p["lowest"],
            most=mapping,
        )

    def _tables(self, call: KernelCall) -> list[BagOperands]:
        tables = by_table(call.inputs, len(call.outputs))
        return [BagOperands(*self.arranged(t, [out])) for t, out in zip(tables, call.outputs, strict=True)]

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Put each table's result behind what it must have: weights stand last."""
        tables = zip(by_table(inputs, len(outputs)), outputs, strict=True)
        return [x for t, out in tables for x in (*t[:3], out, *t[3:])]

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return all but the tables."""
        return [x for t in by_table(inputs, len(outputs)) for x in t[1:]]

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the tables, else the bags of one."""
        tables = by_table(call.inputs, len(call.outputs))
        if len(tables) > 1:
            return cut_at(
                len(tables) // 2,
                len(tables),
                lambda s, n: call.of([x for t in tables[s : s + n] for x in t], call.outputs[s : s + n]),
            )
        table, indices, offsets, *weights = call.inputs
        (out,), bags = call.outputs, call.outputs[0].shape[0]
        if bags < 2:
            return []
        return in_two(
            bags,
            lambda s, n: call.of(
                [table, indices, part(offsets, 1, s, n + 1), *weights], [part(out, 0, s, n)]
            ),
        )


def by_table(inputs: Sequence[T], tables: int) -> list[Sequence[T]]:
    """Return the inputs of each table: the table, indices, offsets and maybe weights."""
    size = len(inputs) // tables
    return [inputs[i * size : (i + 1) * size] for i in range(tables)]


def ranked_bags(chip: Chip, tables: Sequence[BagOperands], count: int) -> list[int]:
    """Return up to `count` limits to the bags that a command takes, the one thought best first.

    As many as local memory holds; then, for the table with most bags, fewer in commands of about equal size,
    since a result is stored while the next bags are pooled, the least `bag_cycles` first. Raises `NoRoom`
    where local memory does not hold one.

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
    first, *others = dict.fromkeys(sizes)
    if count > 1:
        others.sort(key=lambda most: bag_cycles(chip, tables, most))
    return [first, *others][:count]


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
    most = most or ranked_bags(chip, tables, 1)[0]
    operands = tuple(x for t in tables for x in t.operands)
    build = Builder(chip, "embedding_bag", operands, f"bags={most}")
    out = tables[0].out
    shares = [bags_each(t.out.rows, most, chip.pes) for t in tables]
    elements = max(shares) * out.cols
    pooled = build.slot(FP32, elements, RINGS)
    narrow = build.slot(out.dtype, elements, RINGS) if out.dtype != FP32 else None
    flags = QUANTISED * quantised | LOWEST * lowest
    pooling = _Pooling(build, pooled, narrow, POOL_MODES.index(mode), flags)
    first = before = 0
    for t, rows in zip(tables, shares, strict=True):
        step = build.steps(ceil_div(t.out.rows, rows))
        at = before + step
        fields = {
            "pe": chip.grid.near(at),
            "row": step * rows,
            "rows": np.minimum(rows, t.out.rows - step * rows),
        }
        pooling.emit(t, first, at // chip.pes, fields)
        first, before = first + len(t.operands), before + len(step)
    return build.block()


@dataclass(frozen=True)
class _Pooling:
    """How bags are pooled, and the first slots of the rings that results stand in: in fp32, then rounded."""

    build: Builder
    pooled: int
    narrow: int | None
    mode: int
    flags: int

    def emit(self, t: BagOperands, first: int, turn: Array, fields: dict[str, Array]) -> None:
        """Emit a table's commands: `first` is its first operand, turn[command] the number on its PE."""
        add, ring, cols = self.build.add, self.pooled + turn % RINGS, t.out.cols
        add(
            Opcode.POOL,
            ISSUE.at("pool", turn),
            operand=first,
            operand2=first + 1,
            col=0,
            cols=cols,
            k=-(-t.indices.cols * fields["rows"] // max(t.out.rows, 1)),
            fn=self.mode,
            dst=ring,
            row2=first + 4 if t.weights else -1,
            flags=self.flags,
            **fields,
        )
        if self.narrow is not None:
            wide, ring = ring, self.narrow + turn % RINGS
            tile = {"pe": fields["pe"], "rows": fields["rows"], "cols": cols}
            add(Opcode.SIMD, ISSUE.at("narrow", turn), fn=0, src0=wide, dst=ring, **tile)
        at = ISSUE.at("store", turn)
        add(Opcode.STORE, at, operand=first + 3, src0=ring, col=0, cols=cols, **fields)
