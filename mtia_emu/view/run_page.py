"""A run as one page: what ran when, where time and joules went, what bounds it next, the GPU beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..options import BOARD
from ..results.check import Check
from ..results.report import Band, Report, compare
from ..results.roofs import Roofs
from ..results.system_use import SystemUse
from . import run_charts as charts
from . import units
from .chips import system_tables
from .html.activity import Busy
from .html.elements import Element
from .html.page import Tile, figure, footer, header, notes, paragraph, section, table, tiles, write_page
from .html.scales import share
from .share import second_bottleneck, seconds_by_bound
from .text import clean, shorten
from .versus import Ratio, in_words, ratios, sentences, sides

MOST_KINDS = 40  # rows of the table of layers
MOST_NOTES, LONGEST = 40, 90
LAYERS = (
    "layer",
    "op",
    "kernel",
    "layers",
    "time",
    "share",
    "bound by",
    "then by",
    "slack",
    "DRAM",
    "energy",
)
MEANINGS = (
    "Bound by: the resource that was busy the largest share of a layer's time; where that was less than "
    "half, fill and drain or latency; launch where starting it took longer than running it.",
    "Then by: the busiest of the others. Slack is the share of the layer's time in which that one rests: "
    "the most that can be won by relieving the first alone.",
    "80 % bands are of the GPU's model, as it was held to measurements; what is wrong with the chip's own "
    "comes on top, and no band of it is known.",
    "Rests are seen to one part of the time: shorter ones lower a lane.",
)


@dataclass(frozen=True)
class RunPage:
    """All that a run's page shows; `lanes` are of units over time, `strip` what bound the parts of the time.

    `roofs` are None of many chips, `origin` says which program and command made the page.
    """

    report: Report
    lanes: Sequence[Busy]
    strip: Sequence[str]
    roofs: Roofs | None = None
    gpu: Report | None = None
    check: Check | None = None
    basis: str = BOARD
    origin: str = ""


def write_run_page(path: str | os.PathLike[str], shown: RunPage) -> None:
    """Write the page: one file, nothing fetched, its size bounded whatever the model's."""
    report = shown.report
    title = f"{name_of(report.model)} on {name_of(report.machine)}"
    write_page(path, title, list(_parts(shown, title)))


def name_of(text: str) -> str:
    """Return a name from outside as a page shows it: whole if short, on one line."""
    return shorten(clean(text), LONGEST)


def _parts(shown: RunPage, title: str) -> Iterator[Element]:
    report = shown.report
    dims = ", ".join([report.dtype, *(f"{name_of(k)}={v:,}" for k, v in report.dims.items())])
    yield header(title, verdict(shown), dims)
    yield tiles(list(_tiles(shown)))
    if shown.lanes and report.seconds:
        yield figure(charts.timeline(report, shown.lanes, shown.strip), size="whole")
    if report.layers:
        yield figure(charts.time_by_op(report))
        yield figure(charts.joules_by_part(report))
        yield from map(figure, filter(None, [charts.second(report)]))
        if shown.roofs is not None:
            yield figure(charts.roofline(report, shown.roofs))
        yield figure(charts.joules_by_op(report))
    yield from _beside(shown)
    yield from _sections(shown)
    yield footer(shown.origin or "mtia-emu")


def verdict(shown: RunPage) -> str:
    """Return what a run came to, in a sentence or two."""
    report, bound = shown.report, seconds_by_bound(shown.report)
    text = f"{units.seconds(report.seconds)} and {units.joules(report.joules)} a run"
    if report.layers:
        first = next(iter(bound))
        text += f", bound by {first} for {share(bound[first] / (report.track_seconds or 1.0))} of the time"
    found = second_bottleneck(report)
    text += f" and by {found.name} next" if found is not None else ""
    if shown.gpu is not None:
        return f"{text}; {in_words(report, shown.gpu, compare(report, shown.gpu, shown.basis))}"
    return f"{text}."


def _tiles(shown: RunPage) -> Iterator[Tile]:
    report = shown.report
    traffic = report.traffic
    dram = traffic.dram_read_bytes + traffic.dram_write_bytes
    yield Tile(
        "time", units.seconds(report.seconds), f"{report.cycles:,} cycles at {units.hertz(report.clock_hz)}"
    )
    yield Tile("energy", units.joules(report.joules), f"{units.watts(report.watts)} on average")
    rate = units.count(report.macs / report.seconds if report.seconds else 0.0, "MAC/s")
    yield Tile(
        "work", units.count(report.macs, "MAC"), f"{rate}, {units.percent(report.utilization)} of the peak"
    )
    speed = units.size(dram / report.seconds if report.seconds else 0.0)
    yield Tile("DRAM", units.size(dram), f"{speed}/s on average")
    if shown.gpu is not None:
        versus = compare(report, shown.gpu, shown.basis)
        name = shown.gpu.machine
        if versus.speed:
            yield Tile(f"as fast as {name}", units.ratio(versus.speed), _band(versus.speed_band))
        if versus.perf_per_watt:
            of = f"{versus.basis or 'own'} joules"
            note = ", ".join(filter(None, [of, _band(versus.energy_band)]))
            yield Tile(f"perf/W of {name}", units.ratio(versus.perf_per_watt), note)
    if shown.check is not None:
        state = "passed" if shown.check.passed else "FAILED"
        yield Tile("check", state, f"largest relative error {shown.check.max_rel_error:.3g}")


def _band(band: Band | None) -> str:
    return "" if band is None else f"80 % band {units.ratio(band.low)} to {units.ratio(band.high)}"


def _beside(shown: RunPage) -> Iterator[Element]:
    report, gpu = shown.report, shown.gpu
    if gpu is None:
        return
    versus = compare(report, gpu, shown.basis)
    rows, names = ratios(report, gpu, versus), sides(report, gpu)
    seconds, joules = (report.seconds, gpu.seconds), (versus.chip_joules, versus.gpu_joules)
    yield figure(charts.beside(rows[0], seconds, names, charts.TIME))
    yield figure(charts.beside(rows[1], joules, names, charts.ENERGY))
    columns = ["", *names, "chip / GPU", "80 % band", "of"]
    lines = [*sentences(report, gpu, versus), *gpu.notes[:MOST_NOTES]]
    yield section("Beside the GPU", table(columns, [_ratio(x) for x in rows]), notes(lines))


def _ratio(x: Ratio) -> list[str]:
    band = "-" if x.band is None else f"{units.ratio(x.band.low)} to {units.ratio(x.band.high)}"
    return [x.name, x.ours, x.theirs, x.ratio, band, x.basis]


def _sections(shown: RunPage) -> Iterator[Element]:
    report = shown.report
    if report.layers:
        yield layers_table(report)
    for machine in filter(None, (report, shown.gpu)):
        if machine.system is not None:
            yield from _system(machine.system)
    if shown.check is not None:
        yield _check(shown.check)
    if report.notes:
        said = list(report.notes[:MOST_NOTES])
        said += [f"{len(report.notes) - MOST_NOTES} more notes"] if len(report.notes) > MOST_NOTES else []
        yield section("Notes on this run", notes(said))
    yield section("What the numbers mean", notes(MEANINGS))


def layers_table(report: Report) -> Element:
    """Return the kinds of layers of most time, with both bottlenecks of each."""
    kinds = charts.layer_kinds(report.layers)
    rows = [_kind(k, report) for k in kinds[:MOST_KINDS]]
    part = share(min(sum(k.seconds for k in kinds[:MOST_KINDS]) / (report.track_seconds or 1.0), 1.0))
    layers = units.many(len(report.layers), "layer")
    caption = f"{len(rows)} of {len(kinds):,} kinds of {layers}, {part} of the time"
    return section("Layers", table(LAYERS, rows, caption=caption))


def _system(use: SystemUse) -> Iterator[Element]:
    for title, columns, rows, lines in system_tables(use):
        cells = [[str(cell) for cell in row] for row in rows[:MOST_KINDS]]
        rest = [f"{len(rows) - MOST_KINDS} more"] if len(rows) > MOST_KINDS else []
        yield section(title, table(columns, cells), *([notes([*lines, *rest])] if lines or rest else []))


def _kind(kind: charts.LayerKind, report: Report) -> list[str]:
    x = kind.members[0]
    slack = share(1.0 - kind.left_s / kind.seconds) if x.next_bound and kind.seconds else "-"
    return [
        x.name,
        x.op,
        x.kernel,
        f"{len(kind.members):,}",
        units.seconds(kind.seconds),
        share(kind.seconds / (report.track_seconds or 1.0)),
        x.bound_by,
        x.next_bound or "-",
        slack,
        units.size(sum(m.dram_bytes for m in kind.members)),
        units.joules(sum(m.joules for m in kind.members)),
    ]


def _check(check: Check) -> Element:
    state = "Passed" if check.passed else "FAILED"
    text = f"{state}: largest relative error {check.max_rel_error:.3g}, tolerance {check.tolerance:.3g}."
    return section(f"Check against {check.oracle or 'the oracle'}", paragraph(text))
