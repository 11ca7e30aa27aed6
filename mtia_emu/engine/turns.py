"""A program as an execution has found it: with the commands of the turns that its routing came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..program.isa import Block, Program
from ..program.routed import EXPERT, ROWS
from ..types import ExpertsWork

Array = np.ndarray[Any, Any]


def as_routed(program: Program, turns: Mapping[int, Array]) -> Program:
    """Return a program whose launches follow the tables of turns, int32[turns, 2], by index of the launch.

    So do its works, by which other machines are timed. Equal tables of a block give one block.
    """
    if not turns:
        return program
    blocks, numbers = list(program.blocks), dict[tuple[int, bytes], int]()
    launches, experts = list(program.launches), dict[str, int]()
    for index, table in turns.items():
        launch = launches[index]
        key = (launch.block, np.ascontiguousarray(table).tobytes())
        if key not in numbers:
            block = blocks[launch.block].following(table)
            numbers[key] = _place(block, launch.block, blocks)
        launches[index] = replace(launch, block=numbers[key])
        experts[launch.origin] = len(np.unique(table[table[:, ROWS] > 0, EXPERT]))
    works = tuple(
        _with(w, experts[w.name]) if isinstance(w, ExpertsWork) and w.name in experts else w
        for w in program.works
    )
    return replace(program, blocks=tuple(blocks), launches=tuple(launches), works=works)


def _place(block: Block, number: int, blocks: list[Block]) -> int:
    """Return the number of a block: that of the one it comes from where it is the same, else a new one."""
    if block is blocks[number]:
        return number
    blocks.append(block)
    return len(blocks) - 1


def _with(work: ExpertsWork, experts: int) -> ExpertsWork:
    """Return the work where so many experts have rows."""
    read = work.read_bytes + (experts - work.batch) * work.expert_bytes
    return replace(work, batch=experts, m=-(-work.rows // max(experts, 1)), read_bytes=read)
