"""Joins the readings of a program into a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

from ..machine.chip import Chip
from ..program.events import Events
from ..program.isa import Block, Launch, Part, Program
from ..results.report import LAUNCH, Joules, Layer, Report, Traffic, own_cycles
from ..sums import add_up
from ..types import dtype
from .cost import BlockCost, cost
from .energy import spared, standing
from .events import events
from .lookups import Lookups, cache_bytes, through_cache
from .timing import Timeline, check_fits

T = TypeVar("T")
SCALAR = "scalar"  # the kernel that is an op's reference, on one core
CORE_SHARE = 0.1  # of the time, beyond which a note says that one core does it
Times = Mapping[tuple[int, int], Timeline]
Zeros = Sequence[Mapping[str, int]]  # of a launch: multiply-adds with a zero operand by dtype, band by band


class Counts:
    """The events of each launch of a program; those of launches without look-ups of their own are shared.

    They are counted when asked for, and kept where `keep` says so. No rate or price of the chip changes them.
    """

    def __init__(
        self,
        program: Program,
        chip: Chip,
        lookups: Mapping[int, Lookups] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self._program, self._chip = program, part(program, chip)
        self._lookups = through_cache(program, self._chip, lookups or {})
        self._cache_bytes = cache_bytes(program, self._chip)
        self._kept: dict[tuple[int, int], Events] | None = {} if keep else None

    def key(self, index: int) -> tuple[int, int]:
        """Return what launches with equal events have in common."""
        return self._program.launches[index].block, index if index in self._lookups else -1

    def of(self, index: int) -> Events:
        """Return the events of a launch."""
        key = self.key(index)
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        block = self._program.blocks[key[0]]
        found = events(block, self._chip, self._lookups.get(index), self._cache_bytes)
        if self._kept is not None:
            self._kept[key] = found
        return found


def part(program: Program, chip: Chip) -> Chip:
    """Return the corner of the chip that the program was compiled for."""
    return chip.part(**program.chip.get("grid", chip.grid.model_dump()))


def costs(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    counts: Counts | None = None,
    times: Times | None = None,
) -> list[BlockCost]:
    """Return the cost of each launch; equal blocks are timed once.

    `lookups` are what is known of the data; in their place `counts`, of a chip that differs in rates and
    prices only. `times`, by the key of `counts`, are of a chip that differs in prices only.

    Raises `UserError` where a block does not fit the chip.
    """
    known = counts or Counts(program, chip, lookups)
    chip = part(program, chip)
    seen: dict[tuple[int, int], BlockCost] = {}
    out = []
    for index, launch in enumerate(program.launches):
        key = known.key(index)
        if key not in seen:
            block, time = program.blocks[launch.block], times[key] if times else None
            check_fits(block, chip)
            seen[key] = cost(block, chip, known.of(index), time)
        out.append(seen[key])
    return out


def report(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    zero_macs: Mapping[int, Zeros] | None = None,
    counts: Counts | None = None,
    times: Times | None = None,
    each: Sequence[BlockCost] | None = None,
) -> Report:
    """Return the report of a program on a chip; `lookups`, `counts` and `times` as in `costs`.

    `zero_macs` are an execution's, by launch; without them no operand is zero. `each` is the cost of each
    launch, where it is known already.
    """
    each = costs(program, chip, lookups, counts, times) if each is None else each
    ran = tuple(_ran(program, chip, each, zero_macs or {}))
    price = _Price(chip)
    layers = tuple(layer for x in ran for layer in _layers(x, price))
    cycles, macs = ran[-1].end if ran else 0, sum(c.macs for c in each)
    peak = chip.peak_macs_per_cycle(dtype(program.dtype))
    return Report(
        program.model,
        chip.name,
        program.dtype,
        program.dims,
        chip.clock_hz,
        cycles,
        _sum(Joules, [price.of(x) for x in ran]),
        _sum(Traffic, [c.traffic for c in each]),
        macs,
        macs / (peak * cycles) if cycles else 0.0,
        layers,
        program.notes + _core_notes(layers, cycles),
    )


def _core_notes(layers: Sequence[Layer], cycles: int) -> tuple[str, ...]:
    """Return what to say of work that one core does by itself, where that is much of the time."""
    took = Counter[str]()
    for layer in layers:
        if layer.kernel == SCALAR:
            took[layer.op] += layer.end_cycle - layer.start_cycle
    if took.total() <= CORE_SHARE * cycles:
        return ()
    most = ", ".join(op for op, _ in took.most_common(3))
    return (
        f"{took.total() / cycles:.0%} of the time one processor core works by itself, for want of a kernel "
        f"({most}): a real chip's software would spread that over the grid",
    )


@dataclass(frozen=True)
class _Ran:
    """A launch that began at cycle `start`, and its block's commands `gap` cycles later."""

    number: int
    launch: Launch
    block: Block
    start: int
    gap: int
    cost: BlockCost
    zeros: Zeros

    @property
    def end(self) -> int:
        """Return the cycle in which the launch ended."""
        return self.start + self.gap + self.cost.cycles


def _ran(
    program: Program, chip: Chip, each: Sequence[BlockCost], zero_macs: Mapping[int, Zeros]
) -> Iterator[_Ran]:
    """Yield the launches, one after another."""
    start = 0
    for i, (launch, gap, c) in enumerate(zip(program.launches, _gaps(chip, len(each)), each, strict=True)):
        ran = _Ran(i, launch, program.blocks[launch.block], start, gap, c, zero_macs.get(i, ()))
        yield ran
        start = ran.end


def _gaps(chip: Chip, launches: int) -> list[int]:
    """Return the cycles that it takes to begin each launch."""
    first, more = (math.ceil(chip.cycles(x)) for x in (chip.launch.first_s, chip.launch.replace_s))
    return [first, *[more] * launches][:launches]


def _layers(ran: _Ran, price: _Price) -> list[Layer]:
    """Return the layer of a launch, or those that ran side by side: their spans begin with the launch."""
    names: Sequence[Launch | Part] = ran.launch.parts
    if not names or len(names) != len(ran.cost.members):
        return [_layer(ran, ran.launch, ran.block.kernel, ran.cost, price.of(ran).total)]
    kernels = ran.block.kernels
    found = [
        _layer(ran, name, kernel, c, 0.0)
        for name, kernel, c in zip(names, kernels, ran.cost.members, strict=True)
    ]
    zeros = ran.zeros or [{}] * len(found)
    out = []
    for x, own, c, z in zip(found, own_cycles(found), ran.cost.members, zeros, strict=True):
        out.append(replace(x, own=own, joules=price.joules(c.joules, z, own).total))
    return out


def _layer(ran: _Ran, name: Launch | Part, kernel: str, c: BlockCost, joules: float) -> Layer:
    return Layer(
        name.name,
        name.op,
        kernel,
        ran.start,
        ran.start + ran.gap + c.cycles,
        c.macs,
        c.traffic.dram_read_bytes + c.traffic.dram_write_bytes,
        c.traffic.sram_read_bytes + c.traffic.sram_write_bytes,
        joules,
        LAUNCH if ran.gap > c.cycles else c.split.bound_by,
        c.ops,
        ran.number,
    )


class _Price:
    """The joules of launches on a chip; equal costs without zeros are priced once."""

    def __init__(self, chip: Chip) -> None:
        self.chip, self.power = chip, standing(chip)
        self.known: dict[tuple[int, int], Joules] = {}

    def of(self, ran: _Ran) -> Joules:
        """Return the joules of a launch."""
        zeros, key = _all(ran.zeros), (id(ran.cost), ran.gap)
        if zeros or key not in self.known:
            found = self.joules(ran.cost.joules, zeros, ran.gap + ran.cost.cycles)
            if zeros:
                return found
            self.known[key] = found
        return self.known[key]

    def joules(self, events: Joules, zero_macs: Mapping[str, int], cycles: float) -> Joules:
        """Return what events cost, less what zeros spare, and what flows for so many cycles."""
        seconds = cycles / self.chip.clock_hz
        compute = max(0.0, events.compute - spared(zero_macs, self.chip))
        flows = Joules(*(getattr(self.power, f.name) * seconds for f in fields(self.power)))
        return _sum(Joules, [replace(events, compute=compute), flows])


def _all(zeros: Zeros) -> dict[str, int]:
    """Return the multiply-adds with a zero operand of all bands, by dtype."""
    sums: dict[str, int] = {}
    for band in zeros:
        for name, count in band.items():
            sums[name] = sums.get(name, 0) + count
    return sums


def _sum(kind: type[T], items: Sequence[T]) -> T:
    """Return the sum of dataclasses, field by field."""
    return kind(*(add_up(getattr(x, f.name) for x in items) for f in fields(cast(Any, kind))))
