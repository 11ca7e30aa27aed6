"""What a run of a model on a machine came to: plain data, the same for our chip and for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Self, cast

from ..options import BOARD
from ..sums import add_up
from .basis import Around, Published
from .power import PowerState
from .spans import Track
from .system_use import SystemUse

PLUS = " + "  # between the names of what several runs were of
FILL, LATENCY, LAUNCH = "fill and drain", "latency", "launch"


class Amounts:
    """Amounts by name, the fields of a dataclass: they add and scale field by field."""

    @classmethod
    def sum(cls, items: Sequence[Self]) -> Self:
        """Return the sum of amounts, each added to those before it."""
        return cls(*(add_up(getattr(x, f.name) for x in items) for f in fields(cast(Any, cls))))

    def __add__(self, other: Self) -> Self:
        """Return the amounts of both."""
        return self.sum((self, other))

    def __rmul__(self, times: int) -> Self:
        """Return the amounts so many times."""
        return type(self)(*(times * getattr(self, f.name) for f in fields(cast(Any, self))))


@dataclass(frozen=True)
class Traffic(Amounts):
    """Bytes moved, by level and direction. `noc_bytes` are payload bytes that entered the network on chip.

    `host_bytes` are those of the inputs, which the host sends before a run: no part of its time or energy.
    """

    local_read_bytes: int = 0
    local_write_bytes: int = 0
    sram_read_bytes: int = 0
    sram_write_bytes: int = 0
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    noc_bytes: int = 0
    host_bytes: int = 0


@dataclass(frozen=True)
class HitBytes(Amounts):
    """Bytes that PEs asked of the memories behind their own, and those of them that SRAM served.

    `row` bytes are of rows looked up in tables, `dense` bytes of all tiles of tensors, read or written.
    """

    dense_bytes: int = 0
    dense_hit_bytes: int = 0
    row_bytes: int = 0
    row_hit_bytes: int = 0

    @property
    def dense_hit_rate(self) -> float | None:
        """Return the share of dense bytes that SRAM served, None of none."""
        return self.dense_hit_bytes / self.dense_bytes if self.dense_bytes else None

    @property
    def row_hit_rate(self) -> float | None:
        """Return the share of rows' bytes that SRAM served, None of none."""
        return self.row_hit_bytes / self.row_bytes if self.row_bytes else None


@dataclass(frozen=True)
class Joules(Amounts):
    """Energy by what spent it, in joules; the fields sum to the whole.

    `clock` is the clock tree and control that no event price holds: its size is inferred, not counted.
    """

    compute: float = 0.0
    local: float = 0.0
    sram: float = 0.0
    dram: float = 0.0
    noc: float = 0.0
    control: float = 0.0
    static: float = 0.0
    clock: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum of all parts."""
        return float(add_up(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Layer:
    """One layer, the time to launch it included: when it ran on its track, what it moved and what bound it.

    `bound_by`, one of `bounds.BOUNDS` on our chip, is the resource that was busy the largest share of the
    time. Where it was busy less than half of it, `fill and drain` or `latency`, whichever kept it idle
    longer; `launch` where launching took longer than running. `ops` are arithmetic operations: two a
    multiply-add, one for each element and pass of the SIMD engine and for each element on a core; 0 where
    they are not counted.

    `next_bound` is the resource that is busiest but for `bound_by`, and `slack` the share of the layer's span
    in which it does not work: however fast all else becomes, 1 - slack of the span is left. "" and 0 where
    that is not known, as of a GPU's kernels.

    `launch` is the number of the launch that ran it, -1 where there are none. Layers of one launch ran side
    by side: their spans overlap, and `own` is the part of the track's time that is each one's (`own_ticks`).
    Cycles are ticks of the clock of the track.
    """

    name: str
    op: str
    kernel: str
    start_cycle: int
    end_cycle: int
    macs: int
    dram_bytes: int
    sram_bytes: int
    joules: float
    bound_by: str
    ops: int = 0
    launch: int = -1
    own: float | None = None
    next_bound: str = ""
    slack: float = 0.0
    track: Track = field(kw_only=True)

    @property
    def cycles(self) -> float:
        """Return the cycles that are its own: over a track's layers they sum to those in which any ran."""
        return self.end_cycle - self.start_cycle if self.own is None else self.own

    @property
    def seconds(self) -> float:
        """Return the seconds that are the layer's own."""
        return self.track.seconds(self.cycles)

    @property
    def span_s(self) -> float:
        """Return the seconds from its start to its end, whatever ran beside it."""
        return self.track.seconds(self.end_cycle - self.start_cycle)

    def later(self, seconds: Fraction, launches: int) -> Layer:
        """Return the layer of a run that starts so much later, after so many launches."""
        ticks = self.track.ticks_in(seconds)
        number = self.launch + launches if self.launch >= 0 else self.launch
        return replace(
            self, start_cycle=self.start_cycle + ticks, end_cycle=self.end_cycle + ticks, launch=number
        )


@dataclass(frozen=True)
class Stretch:
    """A run of `length` seconds, `times` times over: its layers' times count from its own start."""

    layers: tuple[Layer, ...]
    length: Fraction
    times: int = 1


@dataclass(frozen=True)
class Band:
    """An 80 % band of what a measurement would give: as factors of the value that it stands beside."""

    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """The outcome of one model on one machine, or of several runs one after another.

    `tracks` are what ran, the chip or GPU first; `stretches` are the runs, whose layers may overlap on
    different tracks. `peak_macs` are the multiply-adds at the peak rate in the time. The bands are given
    where its model was held to measurements, `served` where its SRAM is shared by all that computes,
    `power` where a chip's limit of power was kept; of several runs it, `around` (what the joules leave out),
    `published` (of such machines) and `system` (what there is to say of many chips) are those that all share.

    `a + b` is a run of `a`, then one of `b`; `n * a` is `a + ... + a`, and takes no more memory where `a` is
    one run. Times, traffic and multiply-adds add exactly, joules and bands up to rounding.
    """

    model: str
    machine: str
    dtype: str
    dims: dict[str, int]
    tracks: tuple[Track, ...]
    stretches: tuple[Stretch, ...]
    joules_by: Joules
    traffic: Traffic
    macs: int
    peak_macs: float
    notes: tuple[str, ...] = ()
    seconds_band: Band | None = None
    joules_band: Band | None = None
    served: HitBytes | None = None
    power: PowerState | None = None
    around: Around | None = None
    published: Published | None = None
    system: SystemUse | None = None

    @cached_property
    def length(self) -> Fraction:
        """Return the time taken, in seconds, without rounding."""
        return sum((x.times * x.length for x in self.stretches), Fraction(0))

    @cached_property
    def seconds(self) -> float:
        """Return the time taken, in seconds."""
        return float(self.length)

    @property
    def track_seconds(self) -> float:
        """Return the seconds of all tracks together but links', of which each layer's own are a part."""
        return (len(self.system.stages) if self.system else len(self.tracks)) * self.seconds

    @property
    def clock_hz(self) -> float:
        """Return the clock of the first track."""
        return self.tracks[0].clock_hz

    @cached_property
    def cycles(self) -> int:
        """Return the time taken in cycles of the first track's clock: begun ones count as whole."""
        return self.tracks[0].ticks_in(self.length)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of all runs, in time from the start of the first."""
        if [x.times for x in self.stretches] == [1]:
            return self.stretches[0].layers
        return tuple(_in_turn(self.stretches))

    @property
    def joules(self) -> float:
        """Return the energy taken, in joules."""
        return self.joules_by.total

    @property
    def watts(self) -> float:
        """Return the average power, in watts."""
        return self.joules / self.seconds if self.seconds else 0.0

    @property
    def utilization(self) -> float:
        """Return the multiply-adds done as a part of what the peak rate would allow in the time."""
        return self.macs / self.peak_macs if self.peak_macs else 0.0

    def __add__(self, other: Report) -> Report:
        """Return the report of this run and another after it; names that differ are joined."""
        return Report(
            _both(self.model, other.model),
            _both(self.machine, other.machine),
            _both(self.dtype, other.dtype),
            {name: size for name, size in self.dims.items() if other.dims.get(name) == size},
            tuple(dict.fromkeys(self.tracks + other.tracks)),
            _counted(self.stretches + other.stretches),
            self.joules_by + other.joules_by,
            self.traffic + other.traffic,
            self.macs + other.macs,
            self.peak_macs + other.peak_macs,
            tuple(dict.fromkeys(self.notes + other.notes)),
            _mixed((self.seconds_band, self.seconds), (other.seconds_band, other.seconds)),
            _mixed((self.joules_band, self.joules), (other.joules_band, other.joules)),
            _together(self.served, other.served),
            self.power if self.power == other.power else None,
            self.around if self.around == other.around else None,
            self.published if self.published == other.published else None,
            self.system if self.system == other.system else None,
        )

    def __rmul__(self, times: int) -> Report:
        """Return the report of so many runs, one after another. Raises `ValueError` for less than one."""
        if times < 1:
            raise ValueError(f"a report cannot be taken {times} times (right: 1 or more)")
        return replace(
            self,
            stretches=_repeated(self.stretches, times),
            joules_by=times * self.joules_by,
            traffic=times * self.traffic,
            macs=times * self.macs,
            peak_macs=times * self.peak_macs,
            notes=self.notes if times == 1 else tuple(dict.fromkeys(self.notes)),
            served=None if self.served is None else times * self.served,
        )


def _in_turn(stretches: Sequence[Stretch]) -> Iterator[Layer]:
    """Yield the layers of stretches, each run after those before it."""
    at, launches = Fraction(0), 0
    for x in stretches:
        count = 1 + max((layer.launch for layer in x.layers), default=-1)
        for _ in range(x.times):
            yield from (layer.later(at, launches) for layer in x.layers)
            at, launches = at + x.length, launches + count


def _repeated(stretches: tuple[Stretch, ...], times: int) -> tuple[Stretch, ...]:
    """Return stretches so many times, one after another."""
    if len(stretches) == 1:
        return (replace(stretches[0], times=times * stretches[0].times),)
    return _counted(stretches * times)


def _counted(stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Return stretches with equal neighbours as one that is run more often."""
    out: list[Stretch] = []
    for x in stretches:
        if out and replace(out[-1], times=x.times) == x:
            out[-1] = replace(x, times=out[-1].times + x.times)
        else:
            out.append(x)
    return tuple(out)


def _both(one: str, other: str) -> str:
    """Return the names in two texts that join names by a plus, each once."""
    return PLUS.join(dict.fromkeys([*one.split(PLUS), *other.split(PLUS)]))


def _together(one: HitBytes | None, other: HitBytes | None) -> HitBytes | None:
    """Return what SRAM served in both runs, of the machines that count it."""
    return one + other if one is not None and other is not None else one or other


def _mixed(one: tuple[Band | None, float], other: tuple[Band | None, float]) -> Band | None:
    """Return the band of a sum of two amounts, each with its band; None where one has none.

    Errors of one model go together, so they do not average out.
    """
    (a, weight_a), (b, weight_b) = one, other
    whole = weight_a + weight_b
    if a is None or b is None or a == b or not whole:
        return a if b is not None else None
    return Band(
        (a.low * weight_a + b.low * weight_b) / whole, (a.high * weight_a + b.high * weight_b) / whole
    )


@dataclass(frozen=True)
class Comparison:
    """How many times better the chip is than the GPU: above 1 the chip wins, None where it cannot be said."""

    speed: float | None
    energy: float | None
    perf_per_watt: float | None
    speed_band: Band | None = None
    energy_band: Band | None = None
    basis: str | None = None
    chip_joules: float = 0.0
    gpu_joules: float = 0.0
    published: Published | None = None


def _around(value: float | None, band: Band | None) -> Band | None:
    """Return the band of a value that grows with what the band is of."""
    return Band(value * band.low, value * band.high) if value is not None and band is not None else None


def compare(chip: Report, gpu: Report, basis: str = BOARD) -> Comparison:
    """Return the ratios of GPU to chip: time, energy, and work per second per watt.

    Joules of both are brought to a basis; `basis` is None, and each has its own, where what stands around one
    of them is not known. Performance per watt is 1 / (seconds x watts) on each side, which is 1 / joules: at
    equal work it equals the energy ratio. Both are printed since both are asked for by name. The bands are
    those of the GPU's model alone: what is wrong with the chip's comes on top.
    """
    known = chip.around is not None and gpu.around is not None
    ours, theirs = (_on(x, x.joules, basis if known else None) for x in (chip, gpu))
    energy = theirs / ours if ours else None
    speed = gpu.seconds / chip.seconds if chip.seconds else None
    band = None
    if gpu.joules_band is not None and ours:
        ends = (gpu.joules_band.low, gpu.joules_band.high)
        band = Band(*(_on(gpu, end * gpu.joules, basis if known else None) / ours for end in ends))
    return Comparison(
        speed, energy, energy, _around(speed, gpu.seconds_band), band,
        basis if known else None, ours, theirs, chip.published,
    )  # fmt: skip


def _on(report: Report, joules: float, basis: str | None) -> float:
    """Return joules of a report's own kind on a basis; as they are without one."""
    if basis is None or report.around is None:
        return joules
    return report.around.joules(joules, report.seconds, basis)
