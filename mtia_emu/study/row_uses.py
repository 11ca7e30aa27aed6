"""What the look-ups of a program say of the tables that its bags read, for machines that know no launches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.lookups import Lookups
from ..program.census import looks_up
from ..program.commands import POOLS
from ..program.isa import Program
from ..types import BagWork, TableUse, Work

Array = np.ndarray[Any, Any]


def with_tables(program: Program, lookups: Mapping[int, Lookups]) -> tuple[Work, ...]:
    """Return the works of a program, its bags with the tables that launches look up.

    Tables of launches go to bags in order. Bags keep what they say where rows of a launch are not known, or
    where the tables that are next are not those that a bag has.
    """
    if not any(isinstance(w, BagWork) for w in program.works):
        return program.works
    launches = [i for i, x in enumerate(program.launches) if looks_up(program.blocks[x.block])]
    if not all(i in lookups for i in launches):
        return program.works
    uses = iter([use for i in launches for use in _uses(program, i, lookups[i])])
    works: list[Work] = []
    for work in program.works:
        tables = _next(uses, work) if isinstance(work, BagWork) else ()
        if tables is None:
            return program.works
        works.append(replace(work, tables=tables) if isinstance(work, BagWork) else work)
    return tuple(works)


def _next(uses: Iterator[TableUse], bag: BagWork) -> tuple[TableUse, ...] | None:
    """Return the next tables, as many as a bag has rows of; None where they are others."""
    tables: list[TableUse] = []
    while sum(x.rows for x in tables) < bag.rows:
        found = next(uses, None)
        if found is None:
            return None
        tables.append(found)
    same = sum(x.rows for x in tables) == bag.rows and sum(x.lookups for x in tables) <= bag.lookups
    return tuple(tables) if same else None


def _uses(program: Program, launch: int, known: Lookups) -> list[TableUse]:
    """Return how a launch looks up each of its tables, in the order of its operands."""
    block = program.blocks[program.launches[launch].block]
    pools = block.commands["operand"][POOLS[block.commands["op"]]]
    parts = np.split(known.rows, np.cumsum(known.counts)[:-1])  # of each command
    tables: dict[int, list[Array]] = {}
    for at, rows in zip(pools.tolist(), parts, strict=True):
        tables.setdefault(at, []).append(rows)
    whole = ((block.operands[at].rows, np.concatenate(tables[at])) for at in sorted(tables))
    return [TableUse(rows, len(each), known.popularity, _distinct(each)) for rows, each in whole]


def _distinct(rows: Array) -> int:
    """Return how many of rows [n] differ."""
    ordered = np.sort(rows)
    return int((ordered[1:] != ordered[:-1]).sum()) + (len(rows) > 0)
