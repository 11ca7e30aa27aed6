"""The reduction network: accumulators summed from PE to PE."""

from __future__ import annotations

from typing import Any

from ...machine.ways import pass_on
from ..columns import CommandColumns
from ..events import Events
from ..fields import COLS, DST, PE, ROWS, SRC_PE, Fields
from ..isa import Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue

REDUCTION = Queue("reduce", "reduce", "the reduction engine of a PE", "reduce")
ACCUMULATOR_BYTES = 4  # of one element


class AddAccumulator(CommandKind):
    """An accumulator of another PE, added to the same one of its own."""

    opcode, queue = Opcode.REDUCE, REDUCTION
    unit, text = "reduction network", "accumulator dst += the same accumulator of src_pe"
    reads, writes, operands = (), ("dst",), ()
    adds = from_peer = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        pes, cols = columns.chip.pes, columns.chip.grid.cols
        outside = (c["src_pe"] < 0) | (c["src_pe"] >= pes)
        columns.refuse(outside, at, f"no such PE; right: 0 to {pes - 1}")
        columns.held(at, c["dst"], c["rows"] * c["cols"], bank=True)
        band = columns.block.band_rows(columns.chip.grid.rows)[:, 0]
        own, other = (band[c[name] // cols] for name in ("pe", "src_pe"))
        columns.refuse(own != other, at, "the other PE is in another band")

    def count(self, batch: Batch, ev: Events) -> None:
        data = batch.elements * ACCUMULATOR_BYTES
        ev.noc_bytes[batch.at] += data
        ev.noc_byte_hops[batch.at] += data
        ev.simd_passes[batch.at] += batch.elements

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return CommandCost(*pass_on(ev.noc_bytes[batch.at], batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        acc = run.take(c[PE], c[DST], c[ROWS], c[COLS])
        acc += run.take(c[SRC_PE], c[DST], c[ROWS], c[COLS])

    def show(self, c: Any, block: Block) -> str:
        return f"s{c['dst']} += pe{c['src_pe']}.s{c['dst']} ({c['rows']}x{c['cols']})"
