"""Schedule to addresses: activations in SRAM while they live, the model's own tensors in DRAM or as asked.

On a chip that is warm from runs before, weights stay in the SRAM that activations leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import FASTEST_FIRST, Memory
from mtia_emu.options import COLD, PLACES, WARM

from ..graph import Graph
from ..user_kernels import kernel_of
from .steps import Buffer, Schedule
from .views import View

LINE = 256  # buffers start on lines of this many bytes
SMALL_SHARE = 256  # one part in so many of SRAM is small for a buffer
SCRATCH_SHARE = 4  # one part in so many of SRAM is left to kernels that stage operands


@dataclass(frozen=True)
class Placement:
    """The memory and byte address of each buffer, and how much of each memory is used.

    `spilled` are the activations that found no room in SRAM, `kept_out` the model's own tensors that were to
    start or end there and do not. In the `state` "warm" `resident_bytes` are of weights and states that lie
    in SRAM from run to run, above all else; `homeless_bytes` of those that found no room there.
    """

    space: dict[str, Memory]
    address: dict[str, int]
    dram_bytes: int
    sram_bytes: int
    spilled: tuple[str, ...]
    kept_out: tuple[str, ...] = ()
    state: str = COLD
    resident_bytes: int = 0
    homeless_bytes: int = 0


class Arena:
    """One memory over time: a buffer takes the lowest address that is free in all steps of its life."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.top = limit, 0
        self.taken = np.zeros((4, 0), np.int64)  # by address; rows: first step, last step, address, end

    def take(self, size: int, first: int, last: int) -> int | None:
        """Return an address for `size` bytes during steps first .. last, or None where there is no room."""
        size = -(-size // LINE) * LINE
        firsts, lasts = self.taken[:2]
        _, _, starts, ends = self.taken[:, (firsts <= last) & (lasts >= first)]
        free = np.append(0, np.maximum.accumulate(ends))  # where nothing that begins before reaches to
        gaps = np.flatnonzero(starts - free[:-1] >= size)
        at = int(free[gaps[0] if len(gaps) else -1])
        if self.limit is not None and at + size > self.limit:
            return None
        self._put(first, last, at, at + size)
        self.top = max(self.top, at + size)
        return at

    def _put(self, *column: int) -> None:
        place = np.searchsorted(self.taken[2], column[2], side="right")
        self.taken = np.insert(self.taken, place, column, axis=1)


def place(schedule: Schedule, inputs_in: str = "dram", state: str = COLD) -> Placement:
    """Return where every buffer lies; `inputs_in`, one of PLACES, says what of a model is in SRAM.

    Constants, inputs and outputs live through the whole program; those that are wanted in SRAM take it one
    after another, while there is room. Temporaries live from the first step that writes them to the last that
    reads them. Small ones choose first (angles, masks: read in every layer, they need a place that is free in
    all of them), then the largest; those that find no room in SRAM spill to DRAM. What then is left of SRAM
    holds, in the `state` "warm" and where `inputs_in` asks for nothing there, weights and states.
    """
    fixed = [b for b in schedule.buffers.values() if b.role != "temp"]
    room = schedule.chip.sram.bytes - schedule.chip.sram.bytes // SCRATCH_SHARE
    space, address, base, kept_out = _fixed(fixed, PLACES[inputs_in], room)
    arenas = {m: Arena(None if m.off_chip else room - base[m]) for m in FASTEST_FIRST}
    spilled = _temporaries(schedule, arenas, base, space, address)
    tops = {memory: base[memory] + arena.top for memory, arena in arenas.items()}
    dram, sram = tops[Memory.DRAM], tops[Memory.SRAM]
    if state == COLD or PLACES[inputs_in]:
        return Placement(space, address, dram, sram, tuple(spilled), kept_out, state)
    stay, homeless = _residents(schedule, sram, room)
    top = max((address_ + size for address_, size in stay.values()), default=sram)
    space |= dict.fromkeys(stay, Memory.SRAM)
    address |= {name: at for name, (at, _) in stay.items()}
    return Placement(space, address, dram, top, tuple(spilled), kept_out, WARM, top - sram, homeless)


def _temporaries(
    schedule: Schedule,
    arenas: dict[Memory, Arena],
    base: dict[Memory, int],
    space: dict[str, Memory],
    address: dict[str, int],
) -> list[str]:
    """Add to `space` and `address` where temporaries lie; return those that find no room in SRAM."""
    spilled: list[str] = []
    lives = _lives(schedule)
    temps = [b for b in schedule.buffers.values() if b.role == "temp" and b.name in lives]
    small = schedule.chip.sram.bytes // SMALL_SHARE

    def order(b: Buffer) -> tuple[bool, int, tuple[int, int]]:
        return b.type.bytes > small and b.name not in schedule.reread, -b.type.bytes, lives[b.name]

    together = overwriting(schedule, lives)
    for buffer in sorted(temps, key=order):
        if buffer.name in space:
            continue
        names = together.get(buffer.name, [buffer.name])
        first, last = min(lives[n][0] for n in names), max(lives[n][1] for n in names)
        here = arenas[Memory.SRAM].take(max(buffer.type.bytes, 1), first, last) if len(names) > 1 else None
        if here is not None:  # each takes the place of the one before
            space |= dict.fromkeys(names, Memory.SRAM)
            address |= dict.fromkeys(names, base[Memory.SRAM] + here)
            continue
        for memory in FASTEST_FIRST:
            here = arenas[memory].take(max(buffer.type.bytes, 1), *lives[buffer.name])
            if here is not None:
                space[buffer.name], address[buffer.name] = memory, base[memory] + here
                break
            spilled.append(buffer.name)
    return spilled


def _megabytes(size: int) -> str:
    """Return millions of bytes as people read them: 0.834, 15,300."""
    return f"{float(f'{size / 1e6:.3g}'):,g}"


def samples(graph: Graph) -> int:
    """Return the samples that a model takes at once, where that is what all its inputs begin with; else 1."""
    sizes = {kind.shape[0] for kind in graph.inputs.values() if kind.rank > 1}
    return sizes.pop() if len(sizes) == 1 and not graph.states else 1


def room_notes(placement: Placement, chip: Chip, batch: int = 1) -> tuple[str, ...]:
    """Return what to say of memories that are too small; `batch` is what all of the model's inputs are of."""
    notes = []
    if placement.dram_bytes > chip.dram.bytes:
        need, have = (f"{size / 1e9:.1f} GB" for size in (placement.dram_bytes, chip.dram.bytes))
        share = "read it as one of several chips' share"
        notes.append(f"the program takes {need} of DRAM, {chip.name} has {have}: {share}")
    if placement.kept_out:
        notes.append(
            f"{len(placement.kept_out)} inputs, outputs or weights found no room in SRAM and are in DRAM"
        )
    if placement.resident_bytes:
        whole = placement.resident_bytes + placement.homeless_bytes
        share = f"{_megabytes(placement.resident_bytes)} of {_megabytes(whole)} MB of weights and states"
        notes.append(f"warm: {share} stay in SRAM from run to run (--state cold: a first run)")
    if placement.spilled:
        fewer = " (micro-batches need less: --parallel mb=N)" if batch > 1 else ""
        notes.append(f"{len(placement.spilled)} activations found no room in SRAM and are in DRAM{fewer}")
    return tuple(notes)


def _residents(schedule: Schedule, base: int, room: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Return address and bytes of weights and states that stay in SRAM up to `room`, and bytes of the others.

    Those that most steps read come first, then those that are read first. Tables in which rows are looked up
    are not among them: a cache holds the rows that are asked for. Each has its home in DRAM as well.
    """
    uses, looked_up = Counter[str](), set[str]()
    states = {view.buffer for view in schedule.in_place.values()}
    for step in schedule.steps:
        read = {v.buffer for v in kernel_of(step).streamed(step.inputs, step.outputs)}
        uses.update(sorted(read))
        looked_up |= {v.buffer for v in step.inputs} - read
    stay, top, homeless = dict[str, tuple[int, int]](), base, 0
    for name, _ in uses.most_common():
        buffer = schedule.buffers[name]
        if name in looked_up or not (buffer.role == "const" or name in states):
            continue
        size = _lines(buffer)
        if top + size > room:
            homeless += size
            continue
        stay[name] = top, size
        top += size
    return stay, homeless


def vacant(schedule: Schedule, placement: Placement, limit: int) -> Arena:
    """Return SRAM up to an address as an arena in which every buffer of a placement lies."""
    arena, lives = Arena(limit), _lives(schedule)
    end = max(len(schedule.steps) - 1, 0)
    here = [b for b in schedule.buffers.values() if placement.space.get(b.name) is Memory.SRAM]
    taken = np.zeros((4, len(here)), np.int64)
    for index, buffer in enumerate(here):
        life = lives[buffer.name] if buffer.role == "temp" else (0, end)
        at = placement.address[buffer.name]
        taken[:, index] = *life, at, at + _lines(buffer)
    arena.taken = taken[:, np.argsort(taken[2], kind="stable")]
    return arena


def _lines(buffer: Buffer) -> int:
    """Return the bytes that a buffer takes: whole lines."""
    return -(-max(buffer.type.bytes, 1) // LINE) * LINE


def _fixed(
    buffers: list[Buffer], roles: tuple[str, ...], room: int
) -> tuple[dict[str, Memory], dict[str, int], dict[Memory, int], tuple[str, ...]]:
    """Return the memory and address of each buffer, what each memory holds, and what SRAM could not."""
    space, address, top, kept_out = {}, {}, dict.fromkeys(FASTEST_FIRST, 0), []
    for buffer in buffers:
        size = _lines(buffer)
        at_home = buffer.role in roles
        memory = Memory.SRAM if at_home and top[Memory.SRAM] + size <= room else Memory.DRAM
        if at_home and memory.off_chip:
            kept_out.append(buffer.name)
        space[buffer.name], address[buffer.name] = memory, top[memory]
        top[memory] += size
    return space, address, top, tuple(kept_out)


def overwriting(schedule: Schedule, lives: Mapping[str, tuple[int, int]]) -> dict[str, list[str]]:
    """Return, by each of their names, buffers that may take one place after another.

    A result may be written over an operand that its step reads last, and nobody else in that moment, where
    both are whole buffers that lie alike and the kernel reads each element before it writes it.
    """
    moments = list(schedule.moments or range(len(schedule.steps)))
    touched = Counter(
        (moment, name)
        for moment, step in zip(moments, schedule.steps, strict=True)
        for name in {v.buffer for v in (*step.inputs, *step.outputs)}
    )
    chains: dict[str, list[str]] = {}
    for moment, step in zip(moments, schedule.steps, strict=True):
        first = kernel_of(step).overwrites
        if first is None or len(step.outputs) != 1:
            continue
        out = step.outputs[0]
        if lives[out.buffer][0] != moment or not _whole_temp(schedule, out) or out.buffer in chains:
            continue
        for view in step.inputs[first:]:
            alone = touched[moment, view.buffer] == touched[moment, out.buffer] == 1
            once = sum(v.buffer == view.buffer for v in step.inputs) == 1
            if alone and once and lives[view.buffer][1] == moment and _alike(schedule, view, out):
                chain = chains.setdefault(view.buffer, [view.buffer])
                chain.append(out.buffer)
                chains[out.buffer] = chain
                break
    return chains


def _whole_temp(schedule: Schedule, view: View) -> bool:
    buffer = schedule.buffers[view.buffer]
    return buffer.role == "temp" and view.offset == 0 and view.type.bytes == buffer.type.bytes


def _alike(schedule: Schedule, view: View, out: View) -> bool:
    """Return whether an operand is a whole temporary buffer that lies as a result does."""
    same = (view.dtype, view.shape, view.strides) == (out.dtype, out.shape, out.strides)
    return same and _whole_temp(schedule, view) and view.buffer != out.buffer


def _lives(schedule: Schedule) -> dict[str, tuple[int, int]]:
    """Return the first and the last moment at which a step touches each buffer."""
    lives: dict[str, tuple[int, int]] = {}
    for index, step in zip(schedule.moments or range(len(schedule.steps)), schedule.steps, strict=True):
        for view in (*step.inputs, *step.outputs):
            lives[view.buffer] = (lives.get(view.buffer, (index, index))[0], index)
    return lives
