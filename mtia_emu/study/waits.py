"""Which launches of a program wait for which exchanges: told by the memory that they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtia_emu.compiler.ops.collectives import COLLECTIVES, PLACED

from ..machine.memories import Memory
from ..program.isa import Operand, Program


@dataclass(frozen=True)
class _Range:
    """What an operand takes of a memory: from the first byte to the one after the last.

    Of that only `width` bytes in each `pitch` where the operand is columns of something wider; else pitch 0.
    """

    space: Memory
    start: int
    end: int
    pitch: int = 0
    width: int = 0

    def meets(self, other: _Range) -> bool:
        """Return whether two ranges have a byte in common."""
        if self.space != other.space or self.start >= other.end or other.start >= self.end:
            return False
        if not self.pitch or self.pitch != other.pitch:
            return True
        behind = (other.start - self.start) % self.pitch
        return behind < self.width or behind + other.width > self.pitch


@dataclass(frozen=True)
class _Touched:
    """What a launch reads and what it writes."""

    reads: tuple[_Range, ...]
    writes: tuple[_Range, ...]

    def meets(self, other: _Touched) -> bool:
        """Return whether the order of two launches matters."""
        return (
            _overlap(self.writes, other.reads)
            or _overlap(self.reads, other.writes)
            or _overlap(self.writes, other.writes)
        )


def exchanges(program: Program) -> tuple[int, ...]:
    """Return the numbers of the launches that are exchanges between ranks."""
    return tuple(i for i in range(len(program.launches)) if _op(program, i) in COLLECTIVES)


def waits(program: Program, among: Sequence[int]) -> list[tuple[int, ...]]:
    """Return, for each launch, which exchange it waits for; for each exchange, which launch.

    A launch that follows one which waits already does not say so again: a chip runs them in order. Exchanges
    with the holders of tables go together, so one does not wait for another of its kind.
    """
    touched = [_touched(program, i) for i in range(len(program.launches))]
    ops = [_op(program, i) for i in range(len(program.launches))]
    out: list[tuple[int, ...]] = []
    chosen, open_ = set(among), list[int]()
    for number, mine in enumerate(touched):
        before = [c for c in open_ if mine.meets(touched[c])]
        if number in chosen:
            out.append(_before(touched, number, ops))
            open_.append(number)
            continue
        open_ = [c for c in open_ if c not in before]
        out.append(tuple(before))
    return out


def _before(touched: Sequence[_Touched], number: int, ops: Sequence[str]) -> tuple[int, ...]:
    """Return the last launch before an exchange that it has to wait for."""
    own = ops[number]
    met = (
        i
        for i in range(number - 1, -1, -1)
        if not (own in PLACED and ops[i] == own) and touched[number].meets(touched[i])
    )
    last = next(met, None)
    return () if last is None else (last,)


def _op(program: Program, number: int) -> str:
    return str(program.blocks[program.launches[number].block].scalar[0])


def _touched(program: Program, number: int) -> _Touched:
    launch = program.launches[number]
    reads: list[_Range] = []
    writes: list[_Range] = []
    for x, address in zip(program.blocks[launch.block].operands, launch.addresses, strict=True):
        if x.space == Memory.SCRATCH:
            continue
        (writes if x.written else reads).append(_range(x, address))
    return _Touched(tuple(reads), tuple(writes))


def _range(x: Operand, address: int) -> _Range:
    """Return what an operand at an address takes."""
    end, size = address + x.extent_bytes, x.dtype.bytes
    rows = x.strides[:-1]
    if not rows or x.strides[-1] != 1 or rows[-1] <= x.shape[-1] or any(s % rows[-1] for s in rows):
        return _Range(x.space, address, end)
    return _Range(x.space, address, end, rows[-1] * size, x.shape[-1] * size)


def _overlap(one: Sequence[_Range], other: Sequence[_Range]) -> bool:
    return any(a.meets(b) for a in one for b in other)
