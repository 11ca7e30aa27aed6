"""The DMA engines: tiles between operands and slots, and from operand to operand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...machine.chip import Chip
from ..columns import CommandColumns
from ..events import Events
from ..fields import CAST, COL, COL2, COLS, DST, OPERAND, OPERAND2, PE, ROW, ROW2, ROWS, SRC0, Fields
from ..geometry import distinct, hops, links_in, links_out, reached, runs_of
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
    casts = waits_for_stage = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        columns.held(at, c["dst"], c["rows"] * c["cols"])
        columns.same(at, c["dst"], c["operand"])

    def count(self, batch: Batch, ev: Events) -> None:
        payload, c = _transfer(batch, ev, out=False), batch.c
        receivers = reached(c, batch.bands, batch.chip)
        ev.local_write_bytes[batch.at] += batch.elements * batch.operand_bytes[c["operand"]] * receivers
        ev.noc_bytes[batch.at] += payload
        far = hops(batch.pe, c["cast"], batch.bands, batch.chip)
        ev.noc_byte_hops[batch.at] += payload * np.where(c["cast"] == Cast.ALL, receivers, far)

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        busy = np.maximum(port_cycles(batch, ev), _turning(batch, ev))
        return CommandCost(busy, way_of_read(batch, ev), *into_grid(batch, ev))

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
        chip, pe = batch.chip, batch.pe
        busy = np.maximum(port_cycles(batch, ev), _turning(batch, ev))
        on_link = ev.noc_bytes[batch.at] / chip.noc.row_bytes_per_cycle
        return CommandCost(busy, _way(batch), on_link, links_out(pe, chip))

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
        space = np.array([x.space for x in columns.block.operands])
        into = np.where(c["stage"] >= 0, "scratch", "sram")
        wrong = (space[c["operand2"]] != into) | (space[c["operand"]] == "scratch")
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
        return CommandCost(_turning(batch, ev), way_of_read(batch, ev))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        run.put(c[OPERAND2], c[ROW2], c[COL2], run.tile(c[OPERAND], c[ROW], c[ROWS], c[COL], c[COLS]))

    def show(self, c: Any, block: Block) -> str:
        into = f"stage {c['stage']}" if c["stage"] >= 0 else "ahead"
        return f"%{c['operand2']}[{c['row2']}, {c['col2']}] = %{c['operand']}{tile_text(c)} {into}"


def _transfer(batch: Batch, ev: Events, *, out: bool) -> Array:
    """Count moves between operands and the network; return each transfer's payload bytes."""
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


def pass_memory(ev: Events, where: Array, space: str, data: Array, bursts: Array, *, out: bool) -> None:
    """Count bytes at the memory that an operand is in; `bursts` are those that DRAM moves for them."""
    if space == "dram":
        (ev.dram_write_bytes if out else ev.dram_read_bytes)[where] += bursts
    else:
        (ev.sram_write_bytes if out else ev.sram_read_bytes)[where] += data


def cross_network(batch: Batch, ev: Events, payload: Array) -> None:
    """Count bytes that cross the network between a memory and one PE."""
    ev.noc_bytes[batch.at] += payload
    ev.noc_byte_hops[batch.at] += payload * (batch.c["pe"] % batch.chip.grid.cols + 1.0)


def port_cycles(batch: Batch, ev: Events) -> Array:
    """Return the cycles that transfers take the port of their PE."""
    return batch.chip.pe.dma.cycles(ev.noc_bytes[batch.at], ev.runs[batch.at])


def _turning(batch: Batch, ev: Events) -> Array:
    """Return the cycles that tiles take the layout unit."""
    return np.asarray(ev.transposed_bytes[batch.at] / batch.chip.pe.layout.bytes_per_cycle)


def into_grid(batch: Batch, ev: Events) -> tuple[Array, Array]:
    """Return the cycles that transfers take the link by which they come to a PE, and its number."""
    noc, cast = batch.chip.noc, batch.c["cast"]
    rate = np.where(cast == Cast.COL, noc.col_bytes_per_cycle, noc.row_bytes_per_cycle)
    return ev.noc_bytes[batch.at] / rate, links_in(batch.pe, cast, batch.chip)


def _way(batch: Batch, reads: Array | float = 0.0) -> Array:
    """Return the cycles that data are under way: the answer of a memory, the hops, the set-up."""
    chip = batch.chip
    far = hops(batch.pe, batch.c["cast"], batch.bands, chip) * chip.noc.hop_cycles
    return np.asarray(reads + far + chip.pe.dma.startup_cycles)


def way_of_read(batch: Batch, ev: Events) -> Array:
    """Return the cycles from a read's start until its data are there; DRAM's only where it is read."""
    at, chip = batch.at, batch.chip
    near, missed = chip.cycles(chip.sram.latency_s), ev.missed[at] * (ev.dram_read_bytes[at] > 0)
    return _way(batch, near + missed * (_dram_latency(chip) - near if missed.any() else 0.0))


def _dram_latency(chip: Chip) -> float:
    return chip.cycles(chip.dram.latency_s)
