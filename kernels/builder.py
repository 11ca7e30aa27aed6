"""What every kernel builds with: tiles, slots in local memory, and commands emitted as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import (
    COMMAND,
    MOST_COMMANDS,
    NO_SLOT,
    Block,
    Cast,
    Opcode,
    Operand,
    Slot,
    join,
    select,
)
from mtia_emu.types import DType

Array = np.ndarray[Any, Any]
LINE = 64  # slots start on lines of this many bytes


class NoRoom(UserError):
    """A mapping that does not fit the chip's memories."""


class TooLarge(UserError):
    """A kernel call of more commands than a block may have: the compiler cuts it, where it can."""


_most_commands = ContextVar("most_commands", default=MOST_COMMANDS)


def most_commands() -> int:
    """Return how many commands a block may have now."""
    return min(MOST_COMMANDS, _most_commands.get())


@contextmanager
def at_most(commands: int) -> Iterator[None]:
    """Let no block have more commands than that meanwhile."""
    before = _most_commands.set(commands)
    try:
        yield
    finally:
        _most_commands.reset(before)


@dataclass
class Builder:
    """Collects a block: slots first, then commands, each batch with the order in which it is issued."""

    chip: Chip
    kernel: str
    operands: tuple[Operand, ...]
    mapping: str = ""
    slots: list[Slot] = field(default_factory=list)
    parts: list[tuple[Array, Array]] = field(default_factory=list)
    local: int = 0
    accumulators: int = 0
    added: int = 0

    def slot(self, kind: DType, elements: int, count: int = 1, *, accumulator: bool = False) -> int:
        """Reserve `count` equal slots and return the first one's number, or raise `NoRoom`."""
        first, size = len(self.slots), -(-elements * kind.bytes // LINE) * LINE
        for _ in range(count):
            at = self.accumulators if accumulator else self.local
            self.slots.append(Slot(kind, at, size, accumulator))
            if accumulator:
                self.accumulators += size
            else:
                self.local += size
        if self.local > self.chip.pe.local.bytes:
            raise NoRoom(
                f"{self.kernel}: needs {self.local} bytes of local memory, "
                f"a PE has {self.chip.pe.local.bytes}"
            )
        if self.accumulators > self.chip.pe.reduce.bytes:
            raise NoRoom(
                f"{self.kernel}: needs {self.accumulators} bytes of accumulators, a PE has "
                f"{self.chip.pe.reduce.bytes}"
            )
        return first

    def add(self, op: Opcode, order: Array | float, **fields: Any) -> None:
        """Add one command for each element of the broadcast fields, to be issued in the order of `order`."""
        shape = np.broadcast_shapes(np.shape(order), *(np.shape(v) for v in fields.values()))
        self.added += math.prod(shape)
        self.limit(self.added)
        out = np.zeros(math.prod(shape), COMMAND)
        out["op"] = op
        for name in ("operand", "operand2", "dst", "src0", "src1", "src2", "stage", "src_pe"):
            out[name] = NO_SLOT
        for name, value in fields.items():
            out[name] = np.broadcast_to(value, shape).ravel()
        self.parts.append((np.broadcast_to(np.asarray(order, np.float64), shape).ravel(), out))

    def for_all(self) -> dict[str, Any]:
        """Return the fields of loads that bring one tile to all PEs: a broadcast, or a multicast a row."""
        grid = self.chip.grid
        if self.chip.noc.broadcast:
            return {"pe": 0, "cast": Cast.ALL}
        return {"pe": np.arange(grid.rows) * grid.cols, "cast": Cast.ROW}

    def limit(self, commands: int) -> None:
        """Raise `TooLarge` for more commands than a block may have, before memory is taken for them."""
        if commands > (most := most_commands()):
            raise TooLarge(
                f"{self.kernel}: takes {commands} commands or more, a block has at most {most}; "
                "make the problem smaller (a smaller batch, say)"
            )

    def steps(self, count: int) -> Array:
        """Return 0 .. count - 1, a number for each of at least as many commands."""
        self.limit(count)
        return np.arange(count)

    def block(self, *, scratch_bytes: int = 0, stages: int = 0, scalar: tuple[str, Any] = ("", ())) -> Block:
        """Return the block: all commands, sorted by their order; equal orders keep the order of adding."""
        order = np.concatenate([np.zeros(0), *(o for o, _ in self.parts)])
        commands = join([c for _, c in self.parts])
        return Block(
            self.kernel,
            self.operands,
            tuple(self.slots),
            select(commands, np.argsort(order, kind="stable")),
            scratch_bytes,
            stages,
            scalar,
            self.mapping,
        )


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """Return the least multiple of b that is at least a."""
    return ceil_div(a, b) * b
