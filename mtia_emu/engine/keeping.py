"""Which dense operands in DRAM the cache keeps from one use to the next, in the steady state.

A compiler knows the order in which a program's tensors are written and read, run after run, and tells the
cache: lines that are used again while there is room for them stay; all others pass by it and push nothing
out. What is written and read for the last time is dead: it is not written back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ..program.census import census
from ..program.isa import Binding, Block, Program
from ..sums import add_up

Array = np.ndarray[Any, Any]
Shares = tuple[float, float]  # of bytes that an operand asks for first, and again: what is missed
ALL, NONE = 1.0, 0.0
WHOLE = 0.99  # of a region's bytes: what is left between rows of views is never touched


class _Use(NamedTuple):
    """One operand of one launch, and how many bytes of its region it touches."""

    launch: int
    operand: int
    written: bool
    touched: float


@dataclass
class _Region:
    """Bytes of DRAM that operands share: who uses them, in order, and for what.

    `stays` where the next run finds what this one leaves, `leaves` where someone outside reads it.
    """

    low: int
    high: int
    uses: list[_Use] = field(default_factory=list)
    stays: bool = False
    leaves: bool = False

    @property
    def bytes(self) -> int:
        """Return how many there are."""
        return self.high - self.low


@dataclass(frozen=True)
class _Wait:
    """A region between a launch that uses it and the next that reads it, maybe in the next run."""

    region: _Region
    first: int
    last: int
    length: int


def dense_misses(program: Program, capacity: int) -> tuple[list[list[Shares]], int]:
    """Return what a cache of so many bytes misses of each launch's operands, and the most that they take.

    Waits are kept while there is room, the shortest first; those are of what the next launches read.
    """
    launches = len(program.launches)
    out = [[(ALL, ALL)] * len(program.blocks[x.block].operands) for x in program.launches]
    taken = np.zeros(launches, np.int64)
    waits = [wait for region in _regions(program) for wait in _waits(region, launches)]
    kept = set[tuple[int, int, int]]()
    for wait in sorted(waits, key=lambda w: (w.length, w.first, w.region.low)):
        during = _during(wait, launches)
        if wait.region.bytes <= capacity - int(taken[during].max()):
            taken[during] += wait.region.bytes
            kept.add((wait.region.low, wait.first, wait.last))
    for region in {id(wait.region): wait.region for wait in waits}.values():
        mine = list(_waits(region, launches))
        _serve(region, [w for w in mine if (region.low, w.first, w.last) in kept], len(mine), out)
    _serve_again(program, capacity, taken, out)
    return out, int(taken.max()) if launches else 0


def _during(wait: _Wait, launches: int) -> Array:
    """Return the launches during which a wait takes the cache: all after its first."""
    return (wait.first + 1 + np.arange(max(wait.length, 1))) % launches


def _waits(region: _Region, launches: int) -> Iterator[_Wait]:
    """Yield the waits of a region: from each launch that uses it to the next, where that needs what is there.

    That is so where it reads, or writes a part.
    """
    numbers = sorted({use.launch for use in region.uses})
    part = WHOLE * region.bytes
    reads = {use.launch for use in region.uses if not use.written or use.touched < part}
    for one, other in itertools.pairwise(numbers):
        if other in reads:
            yield _Wait(region, one, other, other - one)
    if region.stays and numbers and numbers[0] in reads:
        yield _Wait(region, numbers[-1], numbers[0], numbers[0] + launches - numbers[-1])


def _serve(region: _Region, kept: list[_Wait], waits: int, out: list[list[Shares]]) -> None:
    """Let the cache serve the reads behind kept waits, and the writes that nobody then needs in DRAM.

    A read finds what launches before it touched since when it was kept: all of it, or it counts as missed.
    """
    found, needed = {w.last for w in kept}, region.leaves or len(kept) < waits
    held = 0.0
    for again in range(1 + region.stays):  # of what stays the run before has touched all that it could
        for launch, group in groupby(region.uses, key=lambda use: use.launch):
            held = held if launch in found else 0.0
            hit, now = held >= WHOLE * region.bytes, list(group)
            held = min(held + add_up(use.touched for use in now), float(region.bytes))
            for use in now:
                if (use.written and not needed) or (hit and not use.written and again == region.stays):
                    out[use.launch][use.operand] = (NONE, NONE)


def _serve_again(program: Program, capacity: int, taken: Array, out: list[list[Shares]]) -> None:
    """Let the cache serve what one launch reads more than once, where that fits beside what is kept."""
    again = [_read_again(block) for block in program.blocks]
    for number, launch in enumerate(program.launches):
        operands = program.blocks[launch.block].operands
        missed = [i for i in again[launch.block] if out[number][i][0]]
        need = sum(operands[i].distinct_bytes for i in missed)
        if missed and need <= capacity - int(taken[number]):
            taken[number] += need
            for i in missed:
                out[number][i] = (ALL, NONE)


def _read_again(block: Block) -> list[int]:
    """Return the operands in DRAM of which a block reads more than there is."""
    moved = census(block).moved_bytes
    operands = ((i, x) for i, x in enumerate(block.operands) if x.space.off_chip and not x.written)
    return [i for i, x in operands if moved[i] > x.distinct_bytes]


def _touched(block: Block) -> list[float]:
    """Return how many bytes of each of its operands a block touches: all, where no tiles are moved."""
    every = [float(x.distinct_bytes) for x in block.operands]
    pairs = zip(census(block).moved_bytes, every, strict=True)
    return [min(some, whole) if some else whole for some, whole in pairs]


def _regions(program: Program) -> list[_Region]:
    """Return the bytes of DRAM that dense operands use, those that overlap as one."""
    uses = []
    touched = [_touched(block) for block in program.blocks]
    tables = [{operand for operand, _ in census(block).looked_up} for block in program.blocks]
    for number, launch in enumerate(program.launches):
        block = program.blocks[launch.block]
        for i, (x, at) in enumerate(zip(block.operands, launch.addresses, strict=True)):
            if x.space.off_chip and x.extent_bytes and i not in tables[launch.block]:
                use = _Use(number, i, x.written, touched[launch.block][i])
                uses.append((at, at + x.extent_bytes, use))
    regions: list[_Region] = []
    for low, high, use in sorted(uses):
        if not regions or low >= regions[-1].high:
            regions.append(_Region(low, high))
        regions[-1].high = max(regions[-1].high, high)
        regions[-1].uses.append(use)
    starts = np.array([r.low for r in regions])
    given, constant, result = (
        _overlapping(bindings, regions, starts)
        for bindings in (program.inputs, program.consts, program.outputs)
    )
    for index, region in enumerate(regions):
        region.uses.sort()
        state = index in given and index in result
        region.stays = index in constant or state
        region.leaves = index in result and not state
    return regions


def _overlapping(bindings: tuple[Binding, ...], regions: list[_Region], starts: Array) -> set[int]:
    """Return the numbers of the regions in which tensors of the model lie."""
    found = set[int]()
    for b in bindings:
        if not b.space.off_chip:
            continue
        end = b.address + max(b.operand.extent_bytes, 1)
        first = max(int(np.searchsorted(starts, b.address, side="right")) - 1, 0)
        for index in range(first, int(np.searchsorted(starts, end, side="left"))):
            if regions[index].high > b.address:
                found.add(index)
    return found
