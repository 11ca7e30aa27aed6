"""Schedule to addresses: constants and the model's inputs and outputs in DRAM, activations in SRAM while they live."""

from __future__ import annotations

from collections.abc import Iterable
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
    """First-fit allocation in one memory."""

    limit: int | None
    top: int = 0
    taken: list[tuple[int, int]] = field(default_factory=list)  # (address, bytes), by address

    def take(self, size: int) -> int | None:
        """Return the lowest address with `size` free bytes, or None where there is none."""
        size, at = -(-size // LINE) * LINE, 0
        for index, (start, length) in enumerate(self.taken):
            if start - at >= size:
                break
            at = start + length
        else:
            index = len(self.taken)
        if self.limit is not None and at + size > self.limit:
            return None
        self.taken.insert(index, (at, size))
        self.top = max(self.top, at + size)
        return at

    def give(self, address: int) -> None:
        """Free what was taken at an address."""
        self.taken = [t for t in self.taken if t[0] != address]


def place(plan: Schedule, inputs_in: str = "dram") -> Placement:
    """Return where every buffer lies. `inputs_in` is "sram" to start (and end) the model's tensors in SRAM.

    Temporaries live from the first step that writes them to the last that reads them; those that find no room in SRAM
    spill to DRAM.
    """
    sram, dram = Arena(plan.chip.sram.bytes - plan.chip.sram.bytes // SCRATCH_SHARE), Arena(None)
    space: dict[str, str] = {}
    address: dict[str, int] = {}
    spilled = []

    def put(name: str, want: str) -> None:
        size = max(plan.buffers[name].type.bytes, 1)
        at = sram.take(size) if want == "sram" else None
        if at is None:
            if want == "sram":
                spilled.append(name)
            at = dram.take(size)
            assert at is not None
        space[name] = "dram" if want == "dram" or (spilled and spilled[-1] == name) else "sram"
        address[name] = at

    for buffer in plan.buffers.values():
        if buffer.role != "temp":
            put(buffer.name, inputs_in)
    last = _last_uses(plan)
    for index, step in enumerate(plan.steps):
        for view in step.outputs:
            if view.buffer not in space:
                put(view.buffer, "sram")
        for name in last.get(index, ()):
            (sram if space[name] == "sram" else dram).give(address[name])
    return Placement(space, address, dram.top, sram.top, tuple(spilled))


def _last_uses(plan: Schedule) -> dict[int, list[str]]:
    """Return the temporaries that no step after a given one touches."""
    last: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        for name in _touched(step.inputs, step.outputs):
            last[name] = index
    at: dict[int, list[str]] = {}
    for name, index in last.items():
        if plan.buffers[name].role == "temp":
            at.setdefault(index, []).append(name)
    return at


def _touched(*views: Iterable) -> list[str]:  # type: ignore[type-arg]
    return [v.buffer for group in views for v in group]
