"""Joins the readings of a program into a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from ..machine.chip import Chip
from ..program.isa import Program
from ..results.report import LAUNCH, HitBytes, Joules, Layer, Report, Stretch, Traffic
from ..results.spans import own_ticks
from ..types import dtype
from .bounds import runner_up
from .cost import BlockCost
from .energy import scales, spared, standing, supplied
from .launches import costs
from .lookups import Lookups
from .sequence import LaunchRun, LayerRun, launch_runs, track_of

CORE_SHARE = 0.1  # of the time, beyond which a note says that one core does it
Zeros = Sequence[Mapping[str, int]]  # of a launch: multiply-adds with a zero operand by dtype, band by band


def report(
    program: Program,
    chip: Chip,
    lookups: Mapping[int, Lookups] | None = None,
    zero_macs: Mapping[int, Zeros] | None = None,
    each: Sequence[BlockCost] | None = None,
) -> Report:
    """Return the report of a program on a chip.

    `lookups` are what is known of the data, as in `costs`; in their place `each`, the cost of each launch,
    where it is known already. `zero_macs` are an execution's, by launch; without them no operand is zero.
    """
    each = costs(program, chip, lookups) if each is None else each
    runs, zeros = tuple(launch_runs(program, chip, each)), zero_macs or {}
    price = _Price(chip)
    layers = tuple(layer for run in runs for layer in _layers(run, zeros.get(run.span.launch, ()), price))
    cycles, macs = runs[-1].span.end if runs else 0, sum(c.macs for c in each)
    track = track_of(chip)
    peak = chip.peak_macs_per_cycle(dtype(program.dtype))
    return Report(
        program.model,
        chip.name,
        program.dtype,
        program.dims,
        (track,),
        (Stretch(layers, track.exact_seconds(cycles)),),
        Joules.sum([price.of(run, zeros.get(run.span.launch, ())) for run in runs]),
        Traffic.sum([c.traffic for c in each]),
        macs,
        peak * cycles,
        program.notes + _core_notes(runs, cycles),
        served=HitBytes.sum([c.served for c in each]),
    )


def _core_notes(runs: Sequence[LaunchRun], cycles: int) -> tuple[str, ...]:
    """Return what to say of work that one core does by itself, where that is much of the time."""
    took = Counter[str]()
    for run in runs:
        if run.block.scalar[0]:  # an op by its reference, which has the launch to itself
            took[run.launch.op] += run.cost.cycles  # 0 of what others do: exchanges between chips
    if took.total() <= CORE_SHARE * cycles:
        return ()
    most = ", ".join(op for op, ticks in took.most_common(3) if ticks)
    return (
        f"{took.total() / cycles:.0%} of the time one processor core works by itself, for want of a kernel "
        f"({most}): a real chip's software would spread that over the grid",
    )


def _layers(run: LaunchRun, zeros: Zeros, price: _Price) -> list[Layer]:
    """Return the layer of a launch, or those that ran side by side: their spans begin with the launch."""
    if len(run.layers) == 1:
        return [_layer(run.layers[0], price.of(run, zeros).total)]
    spans = [x.span for x in run.layers]
    own = own_ticks([x.start for x in spans], [x.end for x in spans])
    return [
        _layer(x, price.joules(x.cost.joules, spare, ticks).total, ticks)
        for x, ticks, spare in zip(run.layers, own, zeros or [{}] * len(own), strict=True)
    ]


def _layer(run: LayerRun, joules: float, own: float | None = None) -> Layer:
    span, cost = run.span, run.cost
    bound_by = LAUNCH if span.begin - span.start > cost.cycles else cost.split.bound_by
    name, busy = runner_up(cost.time.busy, bound_by)
    return Layer(
        run.layer.name,
        run.layer.op,
        run.kernel,
        span.start,
        span.end,
        cost.macs,
        cost.traffic.dram_read_bytes + cost.traffic.dram_write_bytes,
        cost.traffic.sram_read_bytes + cost.traffic.sram_write_bytes,
        joules,
        bound_by,
        cost.ops,
        span.launch,
        own,
        name,
        max(1.0 - busy / span.ticks, 0.0) if span.ticks else 0.0,
        track=span.track,
    )


class _Price:
    """The joules of launches on a chip; equal costs without zeros are priced once."""

    def __init__(self, chip: Chip) -> None:
        self.chip, self.power, self.scales = chip, standing(chip), scales(chip)
        self.known: dict[tuple[int, int], Joules] = {}

    def of(self, run: LaunchRun, zeros: Zeros) -> Joules:
        """Return the joules of a launch."""
        spare, key = _all(zeros), (id(run.cost), run.span.ticks)
        if spare:
            return self.joules(run.cost.joules, spare, run.span.ticks)
        if key not in self.known:
            self.known[key] = self.joules(run.cost.joules, {}, run.span.ticks)
        return self.known[key]

    def joules(self, events: Joules, zero_macs: Mapping[str, int], cycles: float) -> Joules:
        """Return what events cost, less what zeros spare, and what flows for so many cycles."""
        seconds = cycles / self.chip.clock_hz
        own = supplied(events, self.scales)
        compute = max(0.0, own.compute - spared(zero_macs, self.chip))
        flows = Joules(*(getattr(self.power, f.name) * seconds for f in fields(self.power)))
        return replace(own, compute=compute) + flows


def _all(zeros: Zeros) -> dict[str, int]:
    """Return the multiply-adds with a zero operand of all bands, by dtype."""
    sums: dict[str, int] = {}
    for band in zeros:
        for name, count in band.items():
            sums[name] = sums.get(name, 0) + count
    return sums
