"""Several kernels in one launch: each keeps to a band of the grid's rows, and shares the memories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mtia_emu.program.commands import COMMANDS, table_of
from mtia_emu.program.isa import BESIDE, COMMAND, MOST_COMMANDS, Array, Block, join, select

from .builder import LINE, NoRoom, round_up


def _naming(name: str) -> Array:
    """Return [256], by opcode, whether a field names an operand."""
    return table_of(lambda kind: name in kind.operands)


_OPERANDS = {name: _naming(name) for name in ("operand", "operand2", "row2")}  # as far as commands have them
_FROM_PEER = table_of(lambda kind: kind.from_peer)
_PRODUCTS = tuple(kind for kind in COMMANDS.values() if kind.multiplies)
_MOST_NUMBERS = np.iinfo(COMMAND["operand"]).max  # of operands, of slots


def beside(blocks: Sequence[Block], rows: Sequence[int], cols: int, spans: Sequence[float]) -> Block:
    """Return the block that runs blocks side by side, the first on the grid's first rows.

    Each was made for a grid of so many `rows`, and `cols` columns. Its commands are issued about in
    proportion to `spans`, the cycles that each block takes alone: what shares a memory serves commands of
    nearly the same time in the order of issue. Raises `NoRoom` for blocks that no block can hold together.
    """
    _refuse_unlike(blocks)
    firsts = [0, *accumulate(rows)][:-1]
    operands, slots, stages = (
        [0, *accumulate(each)]
        for each in zip(*((len(b.operands), len(b.slots), b.stages) for b in blocks), strict=True)
    )
    moved, order = [], []
    for i, (block, span) in enumerate(zip(blocks, spans, strict=True)):
        moved.append(_moved(block.commands, firsts[i] * cols, operands[i], slots[i], stages[i]))
        order.append(np.arange(len(moved[-1])) * (span / max(len(moved[-1]), 1)))
    return Block(
        BESIDE.join(b.kernel for b in blocks),
        tuple(x for b in blocks for x in b.operands),
        tuple(s for b in blocks for s in b.slots),
        select(join(moved), np.argsort(np.concatenate(order), kind="stable")),
        sum(map(scratch_bytes, blocks)),
        stages[-1],
        mapping=BESIDE.join(f"{n} rows {b.mapping}".rstrip() for b, n in zip(blocks, rows, strict=True)),
        bands=tuple(firsts[1:]),
    )


def scratch_bytes(block: Block) -> int:
    """Return the SRAM scratch that a block takes beside others."""
    return round_up(block.scratch_bytes, LINE)


def _refuse_unlike(blocks: Sequence[Block]) -> None:
    """Raise `NoRoom` for blocks that cannot be one: all products of a block are of the same types."""
    if any(block.scalar[0] or block.bands for block in blocks):
        raise NoRoom("a launch has one op for the core, and bands are not divided")
    if len({kind for block in blocks for kind in _product_kinds(block)}) > 1:
        raise NoRoom("all products of a launch have the same types")
    if sum(b.size for b in blocks) > MOST_COMMANDS:
        raise NoRoom(f"a block has at most {MOST_COMMANDS} commands")
    if max(sum(len(b.operands) for b in blocks), sum(len(b.slots) for b in blocks)) > _MOST_NUMBERS:
        raise NoRoom(f"a block has at most {_MOST_NUMBERS} operands and slots")


def _product_kinds(block: Block) -> set[tuple[str, ...]]:
    """Return the types, and the queue, of a block's products: of the first of each kind."""
    products = set()
    for kind in _PRODUCTS:
        for at in np.flatnonzero(block.commands["op"] == kind.opcode)[:1]:
            c = block.commands[at]
            types = [block.slots[int(c[name])].dtype.name for name in ("src0", "src1", "dst")]
            flag, queue = kind.flagged or (0, kind.queue)
            products.add((*types, (queue if c["flags"] & flag else kind.queue).name))
    return products


def _moved(commands: Array, pes: int, operands: int, slots: int, stages: int) -> Array:
    """Return commands [n] with the numbers of all that they name moved on by so many."""
    c = commands.copy()
    c["pe"] += pes
    c["src_pe"][_FROM_PEER[c["op"]]] += pes
    for name, named in _OPERANDS.items():
        c[name][named[c["op"]] & (c[name] >= 0)] += operands
    for name in ("dst", "src0", "src1", "src2"):
        c[name][c[name] >= 0] += slots
    c["stage"][c["stage"] >= 0] += stages
    return c
