"""Which launches of a program wait for which exchanges: told by the memory that they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtia_emu.compiler.ops.collectives import COLLECTIVES

from ..machine.memories import Memory
from ..program.isa import Program

Range = tuple[Memory, int, int]  # a memory, the first byte, the one after the last


@dataclass(frozen=True)
class _Touched:
    """What a launch reads and what it writes."""

    reads: tuple[Range, ...]
    writes: tuple[Range, ...]

    def meets(self, other: _Touched) -> bool:
        """Return whether the order of two launches matters."""
        return (
            _overlap(self.writes, other.reads)
            or _overlap(self.reads, other.writes)
            or _overlap(self.writes, other.writes)
        )


def exchanges(program: Program) -> tuple[int, ...]:
    """Return the numbers of the launches that are exchanges between ranks."""
    return tuple(
        i for i, x in enumerate(program.launches) if program.blocks[x.block].scalar[0] in COLLECTIVES
    )


def waits(program: Program, among: Sequence[int]) -> list[tuple[int, ...]]:
    """Return, for each launch, which exchange it waits for; for each exchange, which launch.

    A launch that follows one which waits already does not say so again: a chip runs them in order.
    """
    touched = [_touched(program, i) for i in range(len(program.launches))]
    out: list[tuple[int, ...]] = []
    chosen, open_ = set(among), list[int]()
    for number, mine in enumerate(touched):
        before = [c for c in open_ if mine.meets(touched[c])]
        if number in chosen:
            last = next((i for i in range(number - 1, -1, -1) if mine.meets(touched[i])), None)
            out.append(() if last is None else (last,))
            open_.append(number)
            continue
        open_ = [c for c in open_ if c not in before]
        out.append(tuple(before))
    return out


def _touched(program: Program, number: int) -> _Touched:
    launch = program.launches[number]
    reads: list[Range] = []
    writes: list[Range] = []
    for x, address in zip(program.blocks[launch.block].operands, launch.addresses, strict=True):
        if x.space == Memory.SCRATCH:
            continue
        (writes if x.written else reads).append((x.space, address, address + x.extent_bytes))
    return _Touched(tuple(reads), tuple(writes))


def _overlap(one: Sequence[Range], other: Sequence[Range]) -> bool:
    return any(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a in one for b in other)
