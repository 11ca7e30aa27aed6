"""The DMA engines: tiles between operands and slots, and from operand to operand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...machine.memories import Memory
from ...machine.ways import Transfer, Way, load, stage, store
from ..columns import CommandColumns
from ..events import Events
from ..fields import CAST, COL, COL2, COLS, DST, OPERAND, OPERAND2, PE, ROW, ROW2, ROWS, SRC0, Fields
from ..geometry import distinct, links_in, links_out, reached, runs_of
from ..isa import Block, Cast, Opcode
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue, tile_text

PORT = "the DMA port of a PE"
LOADS = Queue("load", "dma", PORT, "dma", moves=True, flies=True)
STORES = Queue("store", "dma", PORT, "dma", moves=True, drains=True)
CHIP_DMA = Queue("chip dma", "", "", "dma", moves=True, chip_wide=True)


class LoadTile(CommandKind):
    """A tile of an operand into a slot of one PE, or of those of a row, a column or a band."""

    opcode, queue = Opcode.LOAD, LOADS
    unit, text = "dma", "tile of an operand -> slot dst of pe, or of every PE that `cast` names"
    reads, writes, operands = (), ("dst",), ("operand",)
    loads_tile = casts = waits_for_stage = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        columns.held(at, c["dst"], c["rows"] * c["cols"])
        columns.same(at, c["dst"], c["operand"])

    def count(self, batch: Batch, ev: Events) -> None:
        payload, c = _transfer(batch, ev, out=False), batch.c
        receivers = reached(c, batch.bands, batch.chip)
        ev.local_write_bytes[batch.at] += batch.elements * batch.operand_bytes[c["operand"]] * receivers
        ev.noc_bytes[batch.at] += payload
        far = batch.chip.grid.hops(batch.pe, c["cast"], batch.bands)
        ev.noc_byte_hops[batch.at] += payload * np.where(c["cast"] == Cast.ALL, receivers, far)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return into_grid(batch, load(transfers(batch, ev), batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        data = run.tile(c[OPERAND], c[ROW], c[ROWS], c[COL], c[COLS])
        for pe in run.receivers(c[PE], c[CAST]):
            run.give(pe, c[DST], c[ROWS], c[COLS])[...] = data

    def show(self, c: Any, block: Block) -> str:
        wait = f" after stage {c['stage']}" if c["stage"] >= 0 else ""
        cast = "" if c["cast"] == Cast.NONE else " cast " + Cast(int(c["cast"])).name.lower()
        return f"s{c['dst']} = %{c['operand']}{tile_text(c)}{cast}{wait}"


class StoreTile(CommandKind):
    """A slot into a tile of an operand."""

    opcode, queue = Opcode.STORE, STORES
    unit, text = "dma", "slot src0 -> tile of an operand"
    reads, writes, operands = ("src0",), (), ("operand",)
    stores = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        columns.held(at, c["src0"], c["rows"] * c["cols"])
        columns.same(at, c["src0"], c["operand"])
        columns.writable(at, c["operand"])

    def count(self, batch: Batch, ev: Events) -> None:
        payload = _transfer(batch, ev, out=True)
        ev.local_read_bytes[batch.at] += payload
        cross_network(batch, ev, payload)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        way = store(transfers(batch, ev), batch.chip)
        return CommandCost(*way, links_out(batch.pe, batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        run.put(c[OPERAND], c[ROW], c[COL], run.take(c[PE], c[SRC0], c[ROWS], c[COLS]))

    def show(self, c: Any, block: Block) -> str:
        return f"%{c['operand']}{tile_text(c)} = s{c['src0']}"


class StageTile(CommandKind):
    """A tile of an operand into SRAM, for loads of this block or of a later launch."""

    opcode, queue = Opcode.STAGE, CHIP_DMA
    unit = "chip dma"
    text = (
        "tile of an operand -> tile of scratch operand2, announced in stage slot `stage`;"
        " without one: -> tile of SRAM operand2 for a later launch,"
        " when DRAM and SRAM have nothing else to do"
    )
    reads, writes, operands = (), (), ("operand", "operand2")
    fills_stage = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        columns.tile(at, c["operand2"], c["row2"], c["rows"], c["col2"], c["cols"])
        operands = columns.block.operands
        scratch = np.array([x.space.of_block for x in operands])
        off_chip = np.array([x.space.off_chip for x in operands])[c["operand2"]]
        wrong = off_chip | (scratch[c["operand2"]] != (c["stage"] >= 0)) | scratch[c["operand"]]
        columns.refuse(wrong, at, "staging copies into scratch, and without a stage slot into SRAM")
        ahead = at[c["stage"] < 0]
        early = ahead < len(columns.op) - len(ahead)
        columns.refuse(early, ahead, "what is staged for a later launch stands behind all other commands")
        kinds = columns.operand_kind
        columns.refuse(kinds[c["operand"]] != kinds[c["operand2"]], at, "the types differ")
        columns.writable(at, c["operand2"])

    def count(self, batch: Batch, ev: Events) -> None:
        payload = _transfer(batch, ev, out=False)
        ev.sram_write_bytes[batch.at] += payload
        ev.noc_bytes[batch.at] += payload
        ev.noc_byte_hops[batch.at] += payload

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return CommandCost(*stage(transfers(batch, ev), batch.chip))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        run.put(c[OPERAND2], c[ROW2], c[COL2], run.tile(c[OPERAND], c[ROW], c[ROWS], c[COL], c[COLS]))

    def show(self, c: Any, block: Block) -> str:
        into = f"stage {c['stage']}" if c["stage"] >= 0 else "ahead"
        return f"%{c['operand2']}[{c['row2']}, {c['col2']}] = %{c['operand']}{tile_text(c)} {into}"


def _transfer(batch: Batch, ev: Events, *, out: bool) -> Array:
    """Count moves between operands and the network; return each transfer's payload bytes, [command]."""
    c, payload = batch.c, np.zeros(len(batch.at))
    for i in np.unique(c["operand"]):
        mine, operand = c["operand"] == i, batch.block.operands[i]
        rows = distinct(operand, c["row"][mine].astype(np.int64), c["rows"][mine].astype(np.int64))
        cols = c["cols"][mine].astype(float)
        run, runs, turned = runs_of(operand, rows, cols)
        if operand.tiled:
            run, runs = run * runs, np.ones_like(runs)
        data = rows * (cols if operand.strides[-1] else 1) * operand.dtype.bytes
        where = batch.at[mine]
        payload[mine] = data
        ev.run_bytes[where], ev.runs[where] = run, runs
        ev.transposed_bytes[where] += data * turned
        pass_memory(ev, where, operand.space, data, batch.chip.dram.burst(run, runs), out=out)
    return payload


def pass_memory(ev: Events, where: Array, space: Memory, data: Array, bursts: Array, *, out: bool) -> None:
    """Count data[n] bytes at the memory that an operand is in; DRAM moves bursts[n] for them."""
    if space.off_chip:
        (ev.dram_write_bytes if out else ev.dram_read_bytes)[where] += bursts
    else:
        (ev.sram_write_bytes if out else ev.sram_read_bytes)[where] += data


def cross_network(batch: Batch, ev: Events, payload: Array) -> None:
    """Count payload[command] bytes that cross the network between a memory and one PE."""
    ev.noc_bytes[batch.at] += payload
    ev.noc_byte_hops[batch.at] += payload * (batch.c["pe"] % batch.chip.grid.cols + 1.0)


def transfers(batch: Batch, ev: Events) -> Transfer:
    """Return commands that move tiles or rows, as the machine's ways are asked for them."""
    at, cast, chip = batch.at, batch.cast, batch.chip
    return Transfer(
        ev.noc_bytes[at],
        ev.runs[at],
        chip.grid.hops(batch.pe, cast, batch.bands),
        cast == Cast.COL,
        ev.missed[at] * (ev.dram_read_bytes[at] > 0),
        ev.transposed_bytes[at],
        ev.rows[at],
    )


def into_grid(batch: Batch, way: Way) -> CommandCost:
    """Return what commands take whose data come to a PE by the link of its row or its column."""
    return CommandCost(*way, links_in(batch.pe, batch.cast, batch.chip))
