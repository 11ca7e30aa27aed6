"""A training step as one page: losses, what ran when, memory by kind, forward against backward, the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..options import BOARD
from ..results.report import compare
from ..results.training import Training
from . import run_charts, units
from . import training_charts as charts
from .html.activity import Busy
from .html.elements import Element
from .html.page import Tile, figure, footer, header, notes, section, table, tiles, write_page
from .run_page import LONGEST, MOST_NOTES, layers_table, name_of
from .text import shorten
from .versus import in_words, ratios, sides
from .whole_run import whole_rows

MEANINGS = (
    "MFU is three times the multiply-adds of the forward pass, as a share of what the peak rate allows in "
    "the time of a step (Chowdhery et al., 2022); HFU counts all that is multiplied, recomputation included. "
    "Scores that a causal mask hides are in MFU, and in HFU only where they are multiplied.",
    "Memory is counted at the moment of a step at which most is held. Gradients are what comes after the "
    "forward pass, activations what it made and is still read.",
    "A block is a layer's name up to its first number. The optimizer's time is that of the block whose "
    "weight it changes.",
    "No measured training step of the chip stands behind these times; what of GPUs was held to published "
    "ones is in the pages of accuracy.",
)


@dataclass(frozen=True)
class TrainingPage:
    """All that a training step's page shows; `lanes` are of its phases over time, `strip` what bound them."""

    training: Training
    lanes: Sequence[Busy] = ()
    strip: Sequence[str] = ()
    basis: str = BOARD
    origin: str = ""


def write_training_page(path: str | os.PathLike[str], shown: TrainingPage) -> None:
    """Write the page: one file, nothing fetched, its size bounded whatever the model's."""
    report = shown.training.report
    title = f"{name_of(report.model)} on {name_of(report.machine)}"
    write_page(path, title, list(_parts(shown, title)))


def _parts(shown: TrainingPage, title: str) -> Iterator[Element]:
    t, report = shown.training, shown.training.report
    dims = ", ".join([report.dtype, *(f"{name_of(k)}={v:,}" for k, v in report.dims.items())])
    yield header(title, verdict(shown), dims)
    yield tiles(list(_tiles(shown)))
    if t.losses is not None and t.losses.losses:
        yield figure(charts.losses(t.losses), size="whole")
    if shown.lanes and report.seconds:
        yield figure(run_charts.timeline(report, shown.lanes, shown.strip), size="whole")
    if report.layers:
        yield figure(charts.by_block(t))
    yield figure(charts.memory(t.memory))
    if report.layers:
        yield figure(run_charts.time_by_op(report))
        yield figure(run_charts.joules_by_part(report))
    yield from _beside(shown)
    if t.whole is not None:
        rows = [list(row) for row in whole_rows(t, t.whole)]
        yield section("The whole training", table(["", "", "what it is"], rows))
    if report.layers:
        yield layers_table(report)
    if report.notes:
        yield section(
            "Notes on this step", notes([shorten(n, 4 * LONGEST) for n in report.notes[:MOST_NOTES]])
        )
    yield section("What the numbers mean", notes(MEANINGS))
    yield footer(shown.origin or "mtia-emu")


def verdict(shown: TrainingPage) -> str:
    """Return what a step came to, in a sentence or two."""
    t, one = shown.training, shown.training.counted.removesuffix("s")
    fits = "fits" if t.memory.fits else f"does not fit in {units.size(t.memory.capacity)}"
    rate, size = units.count(t.items_per_s, one), units.size(t.memory.total)
    text = (
        f"A step takes {units.seconds(t.report.seconds)} and {units.joules(t.joules_per_item)} a {one}: "
        f"{rate}/s, MFU {units.percent(t.mfu)}; {size} {fits}"
    )
    if t.gpu is None:
        return f"{text}."
    return f"{text}; {in_words(t.report, t.gpu, compare(t.report, t.gpu, shown.basis))}"


def _tiles(shown: TrainingPage) -> Iterator[Tile]:
    t, report = shown.training, shown.training.report
    one = t.counted.removesuffix("s")
    cycles = f"{report.cycles:,} cycles at {units.hertz(report.clock_hz)}"
    yield Tile("a step", units.seconds(report.seconds), cycles)
    yield Tile("rate", f"{units.count(t.items_per_s, one)}/s", f"{t.items:,} {t.counted} a step")
    yield Tile(f"energy a {one}", units.joules(t.joules_per_item), f"{units.joules(report.joules)} a step")
    yield Tile("MFU", units.percent(t.mfu), f"three times forward, of the {report.dtype} peak")
    yield Tile("HFU", units.percent(t.hfu), "all that is multiplied")
    each = f"{t.memory.total / t.parameters:.3g} B a parameter" if t.parameters else ""
    yield Tile("memory at its peak", units.size(t.memory.total), each)
    if t.gpu is not None and t.gpu.seconds:
        versus = compare(report, t.gpu, shown.basis)
        if versus.speed:
            yield Tile(f"as fast as {t.gpu.machine}", units.ratio(versus.speed))
        if versus.perf_per_watt:
            ratio = units.ratio(versus.perf_per_watt)
            yield Tile(f"perf/W of {t.gpu.machine}", ratio, f"{versus.basis} joules")


def _beside(shown: TrainingPage) -> Iterator[Element]:
    report, gpu = shown.training.report, shown.training.gpu
    if gpu is None:
        return
    versus = compare(report, gpu, shown.basis)
    rows, names = ratios(report, gpu, versus), sides(report, gpu)
    yield figure(run_charts.beside(rows[0], (report.seconds, gpu.seconds), names, run_charts.TIME))
    joules = (versus.chip_joules, versus.gpu_joules)
    yield figure(run_charts.beside(rows[1], joules, names, run_charts.ENERGY))
    cells = [[x.name, x.ours, x.theirs, x.ratio, x.basis] for x in rows]
    yield section(
        "Beside the GPU", table(["", *names, "chip / GPU", "of"], cells), notes(gpu.notes[:MOST_NOTES])
    )
