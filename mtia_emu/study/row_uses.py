"""What the look-ups of a program say of the tables that its bags read, for machines that know no launches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.lookups import Lookups
from ..program.commands import POOLS, looks_up
from ..program.isa import Program
from ..types import BagWork, TableUse, Work

Array = np.ndarray[Any, Any]


def with_tables(program: Program, lookups: Mapping[int, Lookups]) -> tuple[Work, ...]:
    """Return the works of a program, its bags with the tables that launches look up.

    Bags and launches go together in order where there are as many of either; one bag stands for all launches.
    A bag keeps what it says where the rows of one of its launches are not known.
    """
    bags = [w for w in program.works if isinstance(w, BagWork)]
    launches = (
        [i for i, x in enumerate(program.launches) if looks_up(program.blocks[x.block])] if bags else []
    )
    if not bags or len(bags) not in (1, len(launches)):
        return program.works
    parts = [launches] if len(bags) == 1 else [[i] for i in launches]
    known = {
        id(bag): tuple(use for i in part for use in _uses(program, i, lookups[i]))
        for bag, part in zip(bags, parts, strict=True)
        if part and all(i in lookups for i in part)
    }
    return tuple(replace(w, tables=known[id(w)]) if id(w) in known else w for w in program.works)


def _uses(program: Program, launch: int, known: Lookups) -> list[TableUse]:
    """Return how a launch looks up each of its tables."""
    block = program.blocks[program.launches[launch].block]
    pools = block.commands["operand"][POOLS[block.commands["op"]]]
    parts = np.split(known.rows, np.cumsum(known.counts)[:-1])  # of each command
    tables: dict[int, list[Array]] = {}
    for at, rows in zip(pools.tolist(), parts, strict=True):
        tables.setdefault(at, []).append(rows)
    whole = {at: np.concatenate(rows) for at, rows in tables.items()}
    return [
        TableUse(block.operands[at].rows, len(rows), distinct=_distinct(rows))
        for at, rows in whole.items()
        if len(rows)
    ]


def _distinct(rows: Array) -> int:
    """Return how many of rows [n] differ."""
    ordered = np.sort(rows)
    return 1 + int((ordered[1:] != ordered[:-1]).sum())
