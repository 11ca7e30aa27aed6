"""Schedule to addresses: constants and the model's inputs and outputs in DRAM, activations in SRAM while they live."""

from __future__ import annotations

from dataclasses import dataclass, field

from .schedule import Schedule

LINE = 256  # buffers start on lines of this many bytes
SCRATCH_SHARE = 4  # one part in so many of SRAM is left to kernels that stage operands


@dataclass(frozen=True)
class Placement:
    """The memory and byte address of each buffer, and how much of each memory is used."""

    space: dict[str, str]
    address: dict[str, int]
    dram_bytes: int
    sram_bytes: int
    spilled: tuple[str, ...]


@dataclass
class Arena:
    """One memory over time: a buffer takes the lowest address that is free in all steps of its life."""

    limit: int | None
    top: int = 0
    alive: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # step -> (address, end) of buffers alive

    def take(self, size: int, first: int, last: int) -> int | None:
        """Return an address for `size` bytes during steps first .. last, or None where there is no room."""
        taken = sorted({piece for step in range(first, last + 1) for piece in self.alive.get(step, ())})
        at, end = 0, -(-size // LINE) * LINE
        for start, stop in taken:
            if start - at >= end:
                break
            at = max(at, stop)
        if self.limit is not None and at + end > self.limit:
            return None
        for step in range(first, last + 1):
            self.alive.setdefault(step, []).append((at, at + end))
        self.top = max(self.top, at + end)
        return at


def place(plan: Schedule, inputs_in: str = "dram") -> Placement:
    """Return where every buffer lies. `inputs_in` is "sram" to start (and end) the model's tensors in SRAM.

    Temporaries live from the first step that writes them to the last that reads them. The largest choose first; those
    that find no room in SRAM spill to DRAM.
    """
    sram, dram = Arena(plan.chip.sram.bytes - plan.chip.sram.bytes // SCRATCH_SHARE), Arena(None)
    lives = _lives(plan)
    space: dict[str, str] = {}
    address: dict[str, int] = {}
    spilled = []
    fixed = [b for b in plan.buffers.values() if b.role != "temp"]
    temps = [b for b in plan.buffers.values() if b.role == "temp" and b.name in lives]
    steady = _Steady()
    for buffer in fixed:
        at = steady.take(max(buffer.type.bytes, 1))
        space[buffer.name], address[buffer.name] = inputs_in, at
    if inputs_in == "sram" and (sram.limit is None or steady.top > sram.limit):
        inputs_in, space = "dram", dict.fromkeys(space, "dram")
        spilled += [b.name for b in fixed]
    base = {"sram": steady.top if inputs_in == "sram" else 0, "dram": steady.top if inputs_in == "dram" else 0}
    if inputs_in == "sram" and sram.limit is not None:
        sram.limit -= steady.top
    for buffer in sorted(temps, key=lambda b: (-b.type.bytes, lives[b.name])):
        size, (first, last) = max(buffer.type.bytes, 1), lives[buffer.name]
        here = sram.take(size, first, last)
        if here is None:
            spilled.append(buffer.name)
            here = dram.take(size, first, last)
        assert here is not None
        space[buffer.name] = "dram" if spilled and spilled[-1] == buffer.name else "sram"
        address[buffer.name] = base[space[buffer.name]] + here
    return Placement(space, address, base["dram"] + dram.top, base["sram"] + sram.top, tuple(spilled))


@dataclass
class _Steady:
    """Addresses of buffers that live through the whole program, one after another."""

    top: int = 0

    def take(self, size: int) -> int:
        at = self.top
        self.top += -(-size // LINE) * LINE
        return at


def _lives(plan: Schedule) -> dict[str, tuple[int, int]]:
    """Return the first and the last step that touches each buffer."""
    lives: dict[str, tuple[int, int]] = {}
    for index, step in enumerate(plan.steps):
        for view in (*step.inputs, *step.outputs):
            lives[view.buffer] = (lives.get(view.buffer, (index, index))[0], index)
    return lives
