"""The figures of a run's page, as values that draw themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from ..results.report import LAUNCH, Layer, Report
from ..results.roofs import Roofs
from ..sums import add_up
from . import units
from .html.activity import ActivityChart, Busy, rests
from .html.bars import BarChart, StackedBar
from .html.frame import SERIES
from .html.roofs import MOST_POINTS, RooflineChart
from .html.scales import ChartAxis, share
from .roofline import roofline_of
from .share import BETWEEN, second_bottleneck, seconds_by_bound
from .versus import Ratio

TIME, ENERGY = ChartAxis("time", "s", show=units.seconds), ChartAxis("energy", "J", show=units.joules)
MOST_BARS = 12
OTHERS = "others"
NAMES = {"local": "local memory", "sram": "SRAM", "dram": "DRAM", "noc": "NoC", "clock": "clock (inferred)"}


@dataclass(frozen=True)
class LayerKind:
    """Layers of one op and kernel that are bound alike: the first one's name, and all of them."""

    name: str
    members: tuple[Layer, ...]

    @property
    def seconds(self) -> float:
        """Return the seconds that are theirs."""
        return add_up(x.seconds for x in self.members)

    @property
    def left_s(self) -> float:
        """Return the seconds that their second bottlenecks alone take."""
        return add_up((1.0 - x.slack) * x.seconds for x in self.members)

    @property
    def shown(self) -> str:
        """Return the name, with how many there are."""
        return self.name if len(self.members) == 1 else f"{self.name} and {len(self.members) - 1:,} like it"


def layer_kinds(layers: Iterable[Layer]) -> list[LayerKind]:
    """Return layers by op, kernel, bounds and own cycles, the kind of the most time first."""
    groups: dict[tuple[object, ...], list[Layer]] = {}
    for x in layers:
        key = (x.op, x.kernel, x.bound_by, x.next_bound, round(x.cycles, 3))
        groups.setdefault(key, []).append(x)
    kinds = [LayerKind(members[0].name, tuple(members)) for members in groups.values()]
    return sorted(kinds, key=lambda k: -k.seconds)


def coloured(amounts: dict[str, float]) -> tuple[str, ...]:
    """Return the names that get colours of their own, the largest first; last `OTHERS` of too many."""
    names = tuple(sorted(amounts, key=lambda n: -amounts[n]))
    return names if len(names) <= SERIES else (*names[: SERIES - 1], OTHERS)


def timeline(report: Report, lanes: Sequence[Busy], strip: Sequence[str]) -> ActivityChart:
    """Return what ran when, and what bound it; gaps are where nothing did."""
    kinds = coloured(seconds_by_bound(report)) if strip else ()
    named = tuple(name if name in kinds or not name else OTHERS for name in strip)
    kinds = tuple(k for k in dict.fromkeys((*kinds, OTHERS)) if k in named)
    parts = len(lanes[0].shares)
    part_s = report.seconds / parts
    idle, at, length = rests([lane for lane in lanes if lane.name != LAUNCH])
    gap = "At no time do all rest."
    if length:
        start, long = units.seconds(at * part_s), units.seconds(length * part_s)
        gap = f"All rest for {share(idle)} of the time, at most {long} on end, from {start} on."
    summary = (
        f"{gap} A lane is as high as the share of its instances at work, in {parts} parts of "
        f"{units.seconds(part_s)} each."
    )
    return ActivityChart("What ran when", summary, TIME, report.seconds, lanes, named, kinds)


def time_by_op(report: Report) -> BarChart:
    """Return where the time goes: a bar an op and kernel, in parts by what bound it."""
    bound = seconds_by_bound(report)
    kinds = coloured(bound)
    sums: dict[str, dict[str, float]] = {}
    for x in report.layers:
        bar = sums.setdefault(f"{x.op} ({x.kernel})" if x.kernel != x.op else x.op, {})
        kind = x.bound_by if x.bound_by in kinds else OTHERS
        bar[kind] = bar.get(kind, 0.0) + x.seconds
    if BETWEEN in bound:
        sums[BETWEEN] = {BETWEEN if BETWEEN in kinds else OTHERS: bound[BETWEEN]}
    first = next(iter(bound), "-")
    part = share(bound.get(first, 0.0) / (report.track_seconds or 1.0))
    text = f"Bound by {first} for {part} of it; {units.many(len(report.layers), 'layer')}."
    return _bars("Where the time goes", text, TIME, sums, kinds)


def joules_by_part(report: Report) -> BarChart:
    """Return where the joules go."""
    parts = {NAMES.get(name, name): v for name, v in asdict(report.joules_by).items() if v}
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    first = next(iter(parts), "-")
    part = share(parts.get(first, 0.0) / (report.joules or 1.0))
    text = f"{first} takes {part} of {units.joules(report.joules)}."
    sums = {name: {"energy": value} for name, value in parts.items()}
    return _bars("Where the joules go", text, ENERGY, sums, ("energy",))


def joules_by_op(report: Report) -> BarChart:
    """Return the joules of each op's layers, what flows all the time while they ran among them."""
    sums: dict[str, dict[str, float]] = {}
    for x in report.layers:
        bar = sums.setdefault(x.op, {"energy": 0.0})
        bar["energy"] += x.joules
    first = max(sums, key=lambda name: sums[name]["energy"], default="-")
    part = sums[first]["energy"] / (report.joules or 1.0) if sums else 0.0
    text = f"{first} takes {share(part)}; leakage and clock are each layer's while it runs."
    return _bars("Which ops take the joules", text, ENERGY, sums, ("energy",))


def second(report: Report) -> BarChart | None:
    """Return, for the kinds of layers of most time, what their second bottlenecks leave, and the slack."""
    found = second_bottleneck(report)
    if found is None:
        return None
    kinds = layer_kinds(report.layers)
    sums = {
        f"{k.shown}: {k.members[0].bound_by}, then {k.members[0].next_bound}": {
            "left by the second": k.left_s,
            "slack": k.seconds - k.left_s,
        }
        for k in kinds[:MOST_BARS]
    }
    text = (
        f"However fast all that bounds layers first becomes, {units.seconds(found.seconds_left)} is left: "
        f"slack {share(found.slack)}. {min(len(kinds), MOST_BARS)} of {len(kinds):,} kinds of layers."
    )
    return _bars("What bounds next", text, TIME, sums, ("left by the second", "slack"))


def roofline(report: Report, roofs: Roofs) -> RooflineChart:
    """Return every layer under the chip's roofs."""
    line = roofline_of(report, roofs)
    amounts: dict[str, float] = {}
    for point in line.points:
        amounts[point.bound_by] = amounts.get(point.bound_by, 0.0) + point.share
    drawn = line.points[:MOST_POINTS]
    hidden = len(line.points) - len(drawn)
    part = share(min(add_up(p.share for p in drawn), 1.0))
    text = f"{sum(p.layers for p in drawn):,} of {units.many(len(report.layers), 'layer')}, {part} of the "
    text += (
        f"time, in {len(drawn)} spots{f'; {hidden:,} smaller ones are not drawn' if hidden else ''}. Area: "
    )
    text += "share of the time; hollow: by SRAM bytes, without DRAM traffic; at the left edge: only moves."
    return RooflineChart("Every layer on the roofline", text, line, coloured(amounts))


def beside(ratio: Ratio, values: tuple[float, float], names: Sequence[str], axis: ChartAxis) -> BarChart:
    """Return chip and GPU as two bars, the GPU's with the 80 % band of its model where that is known."""
    ours, theirs = values
    ends: tuple[float | None, float | None] = (None, None)
    text = f"Chip over GPU {ratio.ratio}; of: {ratio.basis}."
    if ratio.band is not None and ours:
        ends = ours / ratio.band.high, ours / ratio.band.low
        text += " The whisker is the 80 % band of the GPU's model."
    bars = [StackedBar(names[0], [ours]), StackedBar(names[1], [theirs], *ends)]
    shown = ChartAxis(ratio.named, axis.unit, show=axis.show)
    return BarChart(f"{ratio.name.capitalize()} beside the GPU", text, shown, bars)


def _bars(
    title: str, summary: str, axis: ChartAxis, sums: dict[str, dict[str, float]], kinds: Sequence[str]
) -> BarChart:
    """Return bars by name, the longest first, in parts by `kinds`; of too many the rest are one."""
    ranked = sorted(sums.items(), key=lambda item: -math.fsum(item[1].values()))
    kept, rest = ranked[:MOST_BARS], ranked[MOST_BARS:]
    if rest:
        pooled = {kind: math.fsum(bar.get(kind, 0.0) for _, bar in rest) for kind in kinds}
        kept.append((f"{len(rest):,} {OTHERS}", pooled))
    bars = [StackedBar(label, [max(bar.get(kind, 0.0), 0.0) for kind in kinds]) for label, bar in kept]
    return BarChart(title, summary, axis, bars, tuple(kinds))
