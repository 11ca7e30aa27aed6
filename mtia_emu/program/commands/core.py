"""A processor core: whole ops that no other unit runs, by their reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import UserError
from ..columns import CommandColumns
from ..events import Events
from ..fields import Fields
from ..isa import Block, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue
from .dma import pass_memory

CORE = Queue("core", "core", "operations that run on a PE's core", "core")
RUN_BYTES = 64  # of memory that a core reads at once


class RunOnCore(CommandKind):
    """The op that the block names, on all operands of the block."""

    opcode, queue = Opcode.SCALAR, CORE
    unit, text = "core", "runs the op named by the block on all its operands"
    reads, writes, operands = (), (), ()
    least, opaque = 0, True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.refuse_all(not columns.block.scalar[0], at, "the block names no op for the core")
        most = sum(math.prod(x.shape) for x in columns.block.operands)
        columns.refuse(c["rows"] < 0, at, f"a negative number of elements; right: up to {most}")

    def count(self, batch: Batch, ev: Events) -> None:
        at = batch.at
        for operand in batch.block.operands:
            data = np.full(len(at), float(operand.distinct_bytes))
            bursts = batch.chip.dram.burst(data, np.ones(len(at)))
            pass_memory(ev, at, operand.space, data, bursts, out=operand.written)
            ev.noc_bytes[at] += data
            ev.noc_byte_hops[at] += data
        ev.run_bytes[at], ev.runs[at] = RUN_BYTES, 1
        ev.scalar_elements[at] += batch.c["rows"]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        chip = batch.chip
        latency = chip.cycles(chip.dram.latency_s)
        return CommandCost(*chip.pe.core.cost(ev.scalar_elements[batch.at], latency))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        name, attrs = run.block.scalar
        if name not in run.library:
            raise UserError(f"op {name} has no reference to run on a core")
        operands = list(enumerate(run.block.operands))
        reads = [run.whole(i) for i, x in operands if not x.written]
        writes = [i for i, x in operands if x.written]
        try:
            results = run.library[name](reads, dict(attrs))
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise UserError(f"op {name} refuses its operands: {error}") from error
        if len(results) != len(writes):
            raise UserError(f"op {name} gives {len(results)} results for {len(writes)} operands")
        for i, value in zip(writes, results, strict=True):
            _put_whole(run, i, value, name)

    def show(self, c: Any, block: Block) -> str:
        return f"{block.scalar[0]} on {c['rows']} elements"


def _put_whole(run: MemoryDoors, operand: int, value: Array, name: str) -> None:
    x = run.block.operands[operand]
    if value.size != math.prod(x.shape):
        raise UserError(f"op {name} gives {value.size} elements for an operand of shape {list(x.shape)}")
    if value.size:
        run.put(operand, 0, 0, value.reshape(x.rows, x.cols).astype(x.dtype.numpy))
