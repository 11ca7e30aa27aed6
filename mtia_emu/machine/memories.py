"""The memories in which operands lie, as data: what is asked of one is a property of it, never its name."""

from __future__ import annotations

from enum import StrEnum

from ..errors import UserError


class Memory(StrEnum):
    """A memory, by the name that programs and reports have for it.

    `off_chip`: its time goes by runs of bytes, and a cache stands before it; the others have one bandwidth.
    `of_block`: what lies there is a block's own, and gone after its launch.
    """

    off_chip: bool
    of_block: bool

    DRAM = "dram", True, False
    SRAM = "sram", False, False
    SCRATCH = "scratch", False, True  # the part of SRAM that a block has for itself

    def __new__(cls, name: str, off_chip: bool, of_block: bool) -> Memory:
        memory = str.__new__(cls, name)
        memory._value_ = name
        memory.off_chip, memory.of_block = off_chip, of_block
        return memory


FASTEST_FIRST = (Memory.SRAM, Memory.DRAM)  # those that keep what lies there from one launch to the next


def memory_named(name: str) -> Memory:
    """Return the memory of a name; raise `UserError` where there is none."""
    if isinstance(name, Memory):
        return name
    if name not in list(Memory):
        raise UserError(f"no memory {name!r} (right: {', '.join(Memory)})")
    return Memory(name)  # type: ignore[call-arg]
