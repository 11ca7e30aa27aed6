"""Weights read ahead: while a step leaves DRAM idle, tiles of the next product's weight come into SRAM.

A product that DRAM holds up gets a head in SRAM, filled by the steps before it, down to the product before.
How long each step leaves DRAM idle, and how long a product waits for DRAM, is estimated (`kernels/pace.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mtia_emu.kernels.pace import Pace, pace
from mtia_emu.kernels.prefetch import PIECES, Head, LoadedTiles, spread, tiles_of, with_head, with_prefetch

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import read_latency
from mtia_emu.program.census import looks_up
from mtia_emu.program.isa import Block, Cast, Launch
from mtia_emu.reuse.memo import Memoise, SameObject

from .launches import Launches
from .place import SCRATCH_SHARE, Arena, Placement, vacant

DIGITS = 4  # binary digits of the counts of tiles and pieces that are copied


@dataclass(frozen=True)
class Ahead:
    """A program's blocks and launches with prefetches, the SRAM that it then takes, and what to say of it."""

    blocks: list[Block]
    launches: list[Launch]
    sram_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stream:
    """A weight that a block loads tile after tile: one copied piece of a tile takes DRAM so many cycles.

    `tile_cycles` are those that a tile takes the block from DRAM, in all its loads.
    """

    operand: int
    tiles: LoadedTiles
    tile_bytes: int
    piece_cycles: float
    tile_cycles: float


@dataclass
class _Change:
    """What becomes of a launch: the head that it reads, the pieces of others' heads that it copies."""

    head: tuple[int, int] | None = None  # tiles, address
    copies: list[tuple[int, range]] = field(default_factory=list)  # of which launch's head


def as_launched(launched: Launches, placement: Placement) -> Ahead:
    """Return the program without prefetches."""
    return Ahead(launched.blocks, launched.launches, placement.sram_bytes)


def read_ahead(launched: Launches, placement: Placement, memoise: Memoise) -> Ahead:
    """Return the program with prefetches where they pay."""
    schedule, blocks = launched.schedule, launched.blocks
    planner = _Planner(launched, memoise)
    arena = vacant(schedule, placement, _limit(schedule.chip, placement, blocks))
    for index in range(len(launched.launches)):
        planner.plan(index, arena)
    total = planner.bytes
    if not total:
        return as_launched(launched, placement)
    changed = planner.build()
    top = max(placement.sram_bytes, arena.top)
    heads = sum(c.head is not None for c in planner.changes)
    note = (
        f"{total / 1e6:.3g} MB of the weights of {heads} launches are read into SRAM while launches before "
        "them leave DRAM idle"
    )
    return Ahead(*changed, top, (note,))


def _limit(chip: Chip, placement: Placement, blocks: Sequence[Block]) -> int:
    """Return how much of SRAM buffers may take: not what kernels stage in, nor a cache that is used."""
    scratch = max((b.scratch_bytes for b in blocks), default=0)
    room = chip.sram.bytes - max(chip.sram.bytes // SCRATCH_SHARE, scratch)
    if not any(map(looks_up, blocks)):
        return room
    resident = placement.resident_bytes
    cache = chip.sram.cache_bytes(placement.sram_bytes - resident + scratch, resident)
    granules = chip.sram.bytes // chip.sram.granule_bytes * chip.sram.granule_bytes
    return min(room, granules - cache - scratch) if cache else room


class _Planner:
    """What each launch could copy and read ahead, and what it does."""

    def __init__(self, launched: Launches, memoise: Memoise) -> None:
        chip = self.chip = launched.schedule.chip
        self.blocks, self.launches, self.times = launched.blocks, launched.launches, launched.times
        self.memoise = memoise
        self.changes = [_Change() for _ in self.launches]
        self.bytes = 0
        self._paces: dict[int, Pace | None] = {}
        self._streams: dict[int, _Stream | None] = {}
        self._weights = [self._weight(block) for block in self.blocks]
        self._latency = float(read_latency(chip.grid.hops(0, Cast.NONE), 1.0, chip))

    def plan(self, index: int, arena: Arena) -> None:
        """Give a launch a head where DRAM holds it up and launches before it leave DRAM idle."""
        number = self.launches[index].block
        if self._weights[number] is None or not index:
            return
        stream, own = self._stream(number), self._pace(number)
        if stream is None or own is None or own.late < stream.tile_cycles:
            return
        room = {i: _coarse(self._idle(i) / stream.piece_cycles) for i in self._window(index)}
        if stream.tile_bytes % (PIECES * self.chip.dram.burst_bytes):  # a cut would break a burst
            room = {i: pieces // PIECES * PIECES for i, pieces in room.items()}
        most = min(int(own.late / stream.tile_cycles), len(stream.tiles), sum(room.values()) // PIECES)
        while most := _coarse(most):
            copies = dict(_shared_out(most * PIECES, room))
            life = self.times[min(copies)], self.times[index]
            address = arena.take(most * stream.tile_bytes, *life)
            if address is not None:
                return self._take(index, stream, (most, address), copies)
            most //= 2

    def _take(self, index: int, stream: _Stream, head: tuple[int, int], copies: dict[int, range]) -> None:
        self.changes[index].head = head
        self.bytes += head[0] * stream.tile_bytes
        for i, pieces in copies.items():
            self.changes[i].copies.append((index, pieces))

    def _window(self, index: int) -> Iterator[int]:
        """Yield the launches before one, the nearest first, to the last that reads a weight of its own."""
        for i in range(index - 1, -1, -1):
            yield i
            if self._weights[self.launches[i].block] is not None:
                return

    def _weight(self, block: Block) -> int | None:
        """Return the operand in DRAM that a block alone reads, stored in the order of its tiles."""
        weights = (i for i, x in enumerate(block.operands) if x.tiled and x.space.off_chip)
        apart = block.bands or block.is_routed  # tiles of a layer beside others, and of experts, stay in DRAM
        return None if apart else next(weights, None)

    def _idle(self, index: int) -> float:
        """Return the cycles for which a launch leaves DRAM idle, less the way of what is copied then."""
        own = self._pace(self.launches[index].block)
        return max(own.idle - self._latency, 0.0) if own else 0.0

    def _pace(self, number: int) -> Pace | None:
        if number not in self._paces:
            block = self.blocks[number]
            self._paces[number] = self.memoise("pace", SameObject(block), self.chip, lambda c: pace(block, c))
        return self._paces[number]

    def _stream(self, number: int) -> _Stream | None:
        if number not in self._streams:
            self._streams[number] = self._measured(number)
        return self._streams[number]

    def _measured(self, number: int) -> _Stream | None:
        block, operand = self.blocks[number], self._weights[number]
        assert operand is not None
        tiles = self.memoise(
            "tiles", (SameObject(block), operand), self.chip, lambda _: tiles_of(block, operand)
        )
        if tiles is None or not len(tiles):
            return None
        tile_bytes = Head(block.operands[operand], tiles, spread(1, tiles)).operand.extent_bytes
        each = np.array([tile_bytes / PIECES, tile_bytes])
        cycles = self.chip.run_cycles(each, np.ones(2))
        return _Stream(operand, tiles, tile_bytes, float(cycles[0]), float(cycles[1]) * tiles.sizes.loads)

    def build(self) -> tuple[list[Block], list[Launch]]:
        """Return the blocks and launches as planned; equal changes of equal blocks give one block."""
        numbers: dict[Any, int] = {}
        blocks: list[Block] = []
        launches = []
        for launch, change in zip(self.launches, self.changes, strict=True):
            copies = [
                (self.launches[i], self.changes[i].head or (0, 0), pieces) for i, pieces in change.copies
            ]
            head = change.head[0] if change.head else 0
            key = (launch.block, head, tuple((x.block, n, pieces) for x, (n, _), pieces in copies))
            if key not in numbers:
                numbers[key] = len(blocks)
                blocks.append(self._block(*key))
            places = [change.head[1]] if change.head else []
            for reader, (_, address), _ in copies:
                places += [reader.addresses[self._weights[reader.block] or 0], address]
            launches.append(replace(launch, block=numbers[key], addresses=(*launch.addresses, *places)))
        return blocks, launches

    def _block(self, number: int, head: int, copies: tuple[tuple[int, int, range], ...]) -> Block:
        """Return a block with a head of so many tiles that copies pieces of others."""
        block = base = self.blocks[number]
        if head:
            own = self._head(number, head)
            block = self.memoise("head", (SameObject(base), head), self.chip, lambda _: with_head(base, own))
        for reader, tiles, pieces in copies:
            key = (SameObject(block), SameObject(self.blocks[reader]), tiles, pieces)
            block = self.memoise("prefetch", key, self.chip, _Copy(block, self._head(reader, tiles), pieces))
        return block

    def _head(self, number: int, tiles: int) -> Head:
        stream = self._stream(number)
        assert stream is not None
        source = self.blocks[number].operands[stream.operand]
        return Head(source, stream.tiles, spread(tiles, stream.tiles))


@dataclass(frozen=True)
class _Copy:
    """The work of giving a block copies of pieces of a head; it asks nothing of the chip."""

    block: Block
    head: Head
    pieces: range

    def __call__(self, chip: Chip) -> Block:
        return with_prefetch(self.block, self.head, self.pieces)


def _coarse(count: float) -> int:
    """Return a count rounded down to a few binary digits: chips that are nearly alike share blocks."""
    drop = max(int(count).bit_length() - DIGITS, 0)
    return int(count) >> drop << drop


def _shared_out(pieces: int, room: dict[int, int]) -> Iterator[tuple[int, range]]:
    """Yield which pieces each launch copies, as many as it has room for, until all are."""
    given = 0
    for index, most in room.items():
        if many := min(most, pieces - given):
            yield index, range(given, given + many)
            given += many
