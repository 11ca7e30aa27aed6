"""A training step on a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from ..results.report import Layer, Report, compare
from ..results.report_json import as_json
from ..results.training import PHASES, PipelineUse, Training
from ..results.whole_run import WholeRun
from . import units
from .chips import system_parts
from .page import Cell, Page
from .whole_run import whole_rows

KINDS = ("weights", "optimizer", "gradients", "activations", "data")
EDGE = 6  # losses shown from each end


def print_training(training: Training, console: Console, *, layers: int = 12) -> None:
    """Print what a step takes, the losses of executed ones, memory by kind, and its longest layers."""
    page, report = Page(console), training.report
    title = page.text(f"{report.model} on {report.machine}", "bold")
    dims = ", ".join([report.dtype, *(f"{name}={size}" for name, size in report.dims.items())])
    parts: list[RenderableType] = [title, page.text(dims, "dim"), "", _step(page, training)]
    parts += [_phases(page, training), _memory(page, training)]
    if layers:
        parts.append(_layers(page, training, layers))
    if training.pipeline is not None:
        parts.append(_pipeline(page, training.pipeline))
    if report.system is not None:
        parts += system_parts(page, report.system)
    if training.gpu is not None:
        parts.append(_gpu(page, training, training.gpu))
    if training.whole is not None:
        parts.append(_whole(page, training, training.whole))
    if training.losses is not None:
        parts.append(_losses(page, training))
    if report.notes:
        parts.append(page.section("Notes", *(page.text(f"- {note}") for note in report.notes)))
    page.print(*parts)


def _grid(page: Page, rows: list[tuple[str, str, str]]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for label, value, detail in rows:
        grid.add_row(page.text(label), page.text(value, "bold"), page.text(detail, "dim"))
    return grid


def _step(page: Page, t: Training) -> RenderableType:
    one, report = t.counted.removesuffix("s"), t.report
    peak = f"of the {report.dtype} peak"
    rows = [
        (
            "time",
            units.seconds(report.seconds),
            f"{report.cycles:,} cycles at {units.hertz(report.clock_hz)}",
        ),
        ("rate", units.count(t.items_per_s, f"{one}/s"), f"{t.items:,} {t.counted} a step"),
        ("energy", units.joules(report.joules), f"{units.joules(t.joules_per_item)} a {one}"),
        ("work", units.count(report.macs, "MAC"), f"forward {units.count(t.forward_macs, 'MAC')}"),
        ("MFU", units.percent(t.mfu), f"three times forward, {peak}"),
        ("HFU", units.percent(t.hfu), f"all that is multiplied, {peak}"),
    ]
    return page.section("A step", _grid(page, rows))


def _phases(page: Page, t: Training) -> RenderableType:
    whole = t.report.seconds or 1.0
    rows: list[list[Cell]] = []
    for name in PHASES:
        mine = t.layers_of(name)
        seconds = t.phases[name]
        dram = units.size(sum(x.dram_bytes for x in mine))
        rows.append(
            [
                name,
                units.seconds(seconds),
                units.percent(seconds / whole),
                dram,
                page.bar(seconds / whole, 14),
            ]
        )
    return page.section("Phases", page.table(["", "time", "share", "DRAM", ""], rows))


def _memory(page: Page, t: Training) -> RenderableType:
    m = t.memory
    rows = [[kind, units.size(getattr(m, kind)), _each(getattr(m, kind), t)] for kind in KINDS]
    rows.append(["all", units.size(m.total), _each(m.total, t)])
    fits = f"of {units.size(m.capacity)}: {'fits' if m.fits else _missing(t)}"
    head = page.section(
        "Memory at its peak", page.table(["", "bytes", "a parameter"], rows, total=True), note=fits
    )
    return head


def _each(size: int, t: Training) -> str:
    return f"{size / t.parameters:.3g} B" if t.parameters else "-"


def _missing(t: Training) -> str:
    chips = -(-t.memory.total // t.memory.capacity) if t.memory.capacity else 0
    return f"does not fit (the states of {chips} such chips would hold it, shared out evenly)"


def _pipeline(page: Page, p: PipelineUse) -> RenderableType:
    """Return who holds what at its peak, and how long chips wait for one another."""
    rows: list[list[Cell]] = []
    for peak in p.peaks:
        sizes = [getattr(peak.memory, kind) for kind in (*KINDS[:-2], "total")]
        rows.append([peak.name, peak.alive, *map(units.size, (peak.kept, *sizes))])
    interleaved = f", {p.chunks} stages a chip" if p.chunks > 1 else ""
    waits = (
        f"chips wait {units.percent(p.bubble)} of the time in which they work; stages that were all alike "
        f"would wait {units.percent(p.even_bubble)}"
    )
    batches = f"{p.batches:,} micro-batch{'es' if p.batches > 1 else ''}"
    note = f"{p.schedule}, {batches}{interleaved}"
    table = page.table(["", "held", "kept", *KINDS[:-2], "all"], rows)
    return page.section("Pipeline", table, page.text(waits, "dim"), note=note)


def _layers(page: Page, t: Training, most: int) -> RenderableType:
    if t.report.system is not None and t.report.system.batches > 1:
        return _repeated(page, t.report.layers, most)
    found = sorted(t.report.layers, key=lambda x: -x.seconds)
    rows = [[x.name, x.kernel, units.seconds(x.seconds), x.bound_by] for x in found[:most]]
    note = f"{min(most, len(found))} of {len(found):,}"
    return page.section(
        "Longest layers", page.table(["layer", "kernel", "time", "bound by"], rows, flex=0), note=note
    )


def _repeated(page: Page, layers: Sequence[Layer], most: int) -> RenderableType:
    """Return the longest layers of several micro-batches: equal ones are a row, with the time of each."""
    counted = Counter((x.name, x.kernel, x.seconds, x.bound_by) for x in layers)
    found = sorted(counted.items(), key=lambda item: -item[0][2] * item[1])
    rows: list[list[Cell]] = [
        [name, times, kernel, units.seconds(seconds), bound]
        for (name, kernel, seconds, bound), times in found[:most]
    ]
    heads, note = ["layer", "n", "kernel", "time each", "bound by"], f"{len(rows)} of {len(found):,} kinds"
    return page.section("Longest layers", page.table(heads, rows, flex=0), note=note)


def _gpu(page: Page, t: Training, gpu: Report) -> RenderableType:
    ours, one = t.report, t.counted.removesuffix("s")
    times, rates = [ours.seconds, gpu.seconds], [t.items / x.seconds for x in (ours, gpu)]
    both = compare(ours, gpu)
    joules = [x / t.items for x in (both.chip_joules, both.gpu_joules)]
    rows = [
        ["time", *map(units.seconds, times), units.ratio(times[0] / times[1])],
        [f"{t.counted} a second", *map(units.count, rates), units.ratio(rates[0] / rates[1])],
        [
            f"energy a {one} ({both.basis or 'each its own'})",
            *map(units.joules, joules),
            units.ratio(joules[0] / joules[1]),
        ],
    ]
    heads = ["", f"{ours.machine} ({ours.dtype})", f"{gpu.machine} ({gpu.dtype})", "chip / GPU"]
    note = "operator by operator: no measured training step stands behind it"
    return page.section("Beside the GPU", page.table(heads, rows), note=note)


def _whole(page: Page, t: Training, run: WholeRun) -> RenderableType:
    note = f"{run.chips:,} chip{'s' if run.chips > 1 else ''} that can fail" if run.stops is not None else ""
    return page.section("The whole training", _grid(page, whole_rows(t, run)), note=note)


def _losses(page: Page, t: Training) -> RenderableType:
    losses = t.losses
    assert losses is not None
    heads = ["step", "loss", *(["expected"] if losses.expected else [])]
    count = len(losses.losses)
    shown = [i for i in range(count) if i < EDGE or i >= count - EDGE]
    rows = [
        [str(i + 1), f"{losses.losses[i]:.6g}", *([f"{losses.expected[i]:.6g}"] if losses.expected else [])]
        for i in shown
    ]
    body: list[RenderableType] = [page.table(heads, rows)]
    if losses.skipped:
        body.append(
            page.text(f"{units.many(len(losses.skipped), 'step')} skipped: gradients were not finite")
        )
    if losses.expected:
        verdict = "passed" if losses.passed else "FAILED"
        body.append(
            page.text(
                f"{verdict}: largest error {losses.error:.3g} of the largest loss, tolerance "
                f"{losses.tolerance:g}, held to {losses.oracle}",
                "green" if losses.passed else "bold red",
            )
        )
        if losses.chaotic:
            first, most = losses.chaotic[0], max(losses.spread) / losses.largest
            said = (
                f"from step {first} on losses follow last digits: {losses.oracle} itself, from weights that "
                f"differ in theirs, parts by {most:.3g} of the largest loss. Steps are held to that as well "
                "(a smaller rate, lr=, tells more)"
            )
            body.append(page.text(said, "yellow"))
    return page.section("Losses", *body, note=f"{units.many(count, 'step')} executed")


def training_json(t: Training) -> dict[str, Any]:
    """Return a training step as plain values: the report's own, with `training` beside them."""
    own = {
        "items": t.items,
        "counted": t.counted,
        "items_per_s": t.items_per_s,
        "joules_per_item": t.joules_per_item,
        "parameters": t.parameters,
        "forward_macs": t.forward_macs,
        "mfu": t.mfu,
        "hfu": t.hfu,
        "seconds_by_phase": t.phases,
        "peak_bytes": {**asdict(t.memory), "total": t.memory.total, "fits": t.memory.fits},
    }
    if t.whole is not None:
        own["whole"] = _whole_json(t.whole)
    if t.pipeline is not None:
        shares = {"bubble": t.pipeline.bubble, "even_bubble": t.pipeline.even_bubble}
        own["pipeline"] = {**asdict(t.pipeline), **shares}
    losses = t.losses
    if losses is not None:
        more = {"error": losses.error, "passed": losses.passed, "chaotic": losses.chaotic}
        checked = more if losses.expected else {}
        own["losses"] = {**asdict(losses), **checked}
    return {**as_json(t.report, t.gpu), "training": own}


def _whole_json(run: WholeRun) -> dict[str, Any]:
    own = {"steps": run.steps, "seconds": run.seconds, "chips": run.chips, "failures": run.failures}
    if run.stops is None:
        return own
    shares = {name: getattr(run.stops, name) for name in ("goodput", "checkpoints", "restarts", "again")}
    return {**own, **asdict(run.stops), "shares": shares}
