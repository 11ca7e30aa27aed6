"""The cost of a program's launches, memoised between chips: see `reuse/memo.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping

import numpy as np

from ..machine.chip import Chip
from ..program.census import looks_up
from ..program.commands import POOLS
from ..program.isa import Block, Program
from ..reuse.memo import Memoise, SameObject
from .cost import BlockCost, cost_of
from .events import events
from .launches import part
from .lookups import Lookups, cache_bytes, through_cache
from .steady import Misses, steady
from .timing import check_fits, timed, work
from .totals import Totals


def memoised_costs(
    program: Program, chip: Chip, memoise: Memoise, lookups: Mapping[int, Lookups] | None = None
) -> list[BlockCost]:
    """Return the cost of each launch, as `launches.costs` has it but without the times of each command.

    Raises `UserError` where a block does not fit the chip.
    """
    chip = part(program, chip)
    for block in program.blocks:  # apart: that it fits asks for sizes, what it costs then does not
        check_fits(block, chip)
    known = _cached(program, chip, lookups or {}, memoise)
    misses = steady(program, chip, known)
    seen: dict[tuple[int, Misses | None], BlockCost] = {}
    out = []
    for index, launch in enumerate(program.launches):
        key = launch.block, misses.get(index)
        if index in known:
            out.append(_cost(program, key, chip, known[index], memoise))
            continue
        if key not in seen:
            seen[key] = _cost(program, key, chip, None, memoise)
        out.append(seen[key])
    return out


def memoised_cycles(block: Block, chip: Chip, memoise: Memoise) -> float:
    """Return the cycles of a block by the timing reading, with mean look-ups and no cache.

    Raises `UserError` where the block does not fit the chip.
    """
    check_fits(block, chip)
    key = (SameObject(block), "alone" if looks_up(block) else None, None, None)

    def counted(chip: Chip) -> Totals:
        return Totals(events(block, chip))

    ev = memoise("events", key, chip, counted).events
    known = memoise("work", key, chip, lambda c: work(block, c, memoise("events", key, c, counted).events))
    return timed(block, chip, ev, known).cycles


def _cached(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups], memoise: Memoise
) -> Mapping[int, Lookups]:
    """Return look-ups with what the cache missed, once for equal look-ups of equal tables."""
    if not lookups:
        return lookups
    asked = tuple((n, _tables(program, n), _content(rows_read)) for n, rows_read in sorted(lookups.items()))
    key = (_scratch(program), asked)
    return memoise("cache", key, chip, lambda c: through_cache(program, c, lookups))


def _cost(
    program: Program,
    number_misses: tuple[int, Misses | None],
    chip: Chip,
    lookups: Lookups | None,
    memoise: Memoise,
) -> BlockCost:
    """Return a block's cost; the times of its commands, which nothing here asks for, are not kept."""
    number, misses = number_misses
    block = program.blocks[number]
    pools = looks_up(block)  # only they look at the cache
    key = (
        SameObject(block),
        _scratch(program) if pools else None,
        None if lookups is None else _content(lookups),
        misses,
    )

    def counted(chip: Chip) -> Totals:
        return Totals(events(block, chip, lookups, cache_bytes(program, chip) if pools else 0, misses))

    def costed(chip: Chip) -> BlockCost:
        totals = memoise("events", key, chip, counted)
        known = memoise(
            "work", key, chip, lambda c: work(block, c, memoise("events", key, c, counted).events)
        )
        return cost_of(block, chip, totals, timed(block, chip, totals.events, known)).untimed()

    return memoise("cost", key, chip, costed)


def _tables(program: Program, launch: int) -> tuple[Hashable, ...]:
    """Return the table that each POOL command of a launch looks up, and where it lies."""
    x = program.launches[launch]
    block = program.blocks[x.block]
    tables = block.commands["operand"][POOLS[block.commands["op"]]].tolist()
    lie = {i: (block.operands[i], x.addresses[i]) for i in set(tables)}
    return tuple(tables), tuple(sorted(lie.items(), key=lambda one: one[0]))


def _scratch(program: Program) -> tuple[int, int, int]:
    """Return what of SRAM the program takes from the cache."""
    return program.sram_bytes, program.scratch_bytes, program.resident_bytes


def _content(lookups: Lookups) -> str:
    """Return a digest of look-ups."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((lookups.popularity, lookups.carried)).encode())
    for array in (lookups.counts, lookups.rows, lookups.missed):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()
