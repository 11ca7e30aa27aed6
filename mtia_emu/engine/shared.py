"""The cost of a program's launches, shared between chips: see `sharing`."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping

import numpy as np

from ..machine.chip import Chip
from ..program.isa import Block, Op, Program
from ..reuse.sharing import Same, Share
from .cost import BlockCost, cost
from .events import Events, events
from .lookups import Lookups, cache_bytes, looks_up, through_cache
from .run import part
from .timing import check_fits, timed, work


def shared_costs(
    program: Program, chip: Chip, share: Share, lookups: Mapping[int, Lookups] | None = None
) -> list[BlockCost]:
    """Return the cost of each launch, as `run.costs` has it but without the times of each command.

    Raises `UserError` where a block does not fit the chip.
    """
    chip = part(program, chip)
    for block in program.blocks:  # apart: that it fits asks for sizes, what it costs then does not
        check_fits(block, chip)
    known = _cached(program, chip, lookups or {}, share)
    seen: dict[int, BlockCost] = {}
    out = []
    for index, launch in enumerate(program.launches):
        if index in known:
            out.append(_cost(program, launch.block, chip, known[index], share))
            continue
        if launch.block not in seen:
            seen[launch.block] = _cost(program, launch.block, chip, None, share)
        out.append(seen[launch.block])
    return out


def shared_cycles(block: Block, chip: Chip, share: Share) -> float:
    """Return the cycles of a block by the timing reading, with mean look-ups and no cache.

    Raises `UserError` where the block does not fit the chip.
    """
    check_fits(block, chip)
    key = (Same(block), "alone" if looks_up(block) else None, None)
    ev = share("events", key, chip, lambda c: events(block, c))
    known = share(
        "work", key, chip, lambda c: work(block, c, share("events", key, c, lambda x: events(block, x)))
    )
    return timed(block, chip, ev, known).cycles


def _cached(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups], share: Share
) -> Mapping[int, Lookups]:
    """Return look-ups with what the cache missed, shared between equal look-ups of equal tables."""
    if not lookups:
        return lookups
    asked = tuple((n, _tables(program, n), _content(found)) for n, found in sorted(lookups.items()))
    key = (_scratch(program), asked)
    return share("cache", key, chip, lambda c: through_cache(program, c, lookups))


def _cost(program: Program, index: int, chip: Chip, lookups: Lookups | None, share: Share) -> BlockCost:
    """Return a block's cost; the times of its commands, which nothing here asks for, are not kept."""
    block = program.blocks[index]
    pools = looks_up(block)  # only they look at the cache
    key = (Same(block), _scratch(program) if pools else None, None if lookups is None else _content(lookups))

    def counted(chip: Chip) -> Events:
        return events(block, chip, lookups, cache_bytes(program, chip) if pools else 0)

    def costed(chip: Chip) -> BlockCost:
        ev = share("events", key, chip, counted)
        known = share("work", key, chip, lambda c: work(block, c, share("events", key, c, counted)))
        return cost(block, chip, ev, timed(block, chip, ev, known)).untimed()

    return share("cost", key, chip, costed)


def _tables(program: Program, launch: int) -> tuple[Hashable, ...]:
    """Return the table that each POOL command of a launch looks up, and where it lies."""
    x = program.launches[launch]
    block = program.blocks[x.block]
    tables = block.commands["operand"][block.commands["op"] == Op.POOL].tolist()
    lie = {i: (block.operands[i], x.addresses[i]) for i in set(tables)}
    return tuple(tables), tuple(sorted(lie.items(), key=lambda one: one[0]))


def _scratch(program: Program) -> tuple[int, int]:
    """Return what of SRAM the program takes from the cache."""
    return program.sram_bytes, max((b.scratch_bytes for b in program.blocks), default=0)


def _content(lookups: Lookups) -> str:
    """Return a digest of look-ups."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (lookups.counts, lookups.rows, lookups.missed):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()
