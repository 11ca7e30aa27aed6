"""Reports and listings on a terminal: plain lines in a pipe, colour where there is some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.table import Table

from ..options import BOARD
from ..results.check import Check, Distance, LayerCheck
from ..results.report import HitBytes, Layer, Report, compare
from ..sums import add_up
from . import units
from .chips import system_parts
from .page import Cell, Page, beside
from .share import BETWEEN, grouped, overlaps, second_bottleneck, seconds_by_bound
from .versus import in_words, ratios, sentences, sides

NAMES = {"local": "local", "sram": "SRAM", "dram": "DRAM", "noc": "NoC", "clock": "clock (inferred)"}
_BAR = 14
_SIDE_BY_SIDE = 100
_NOTES = 20
_GPU_LAYERS = 5
_GPU_NOTES = 4  # the basis, and the longest list of dtypes, loops and short kernels that is short
_OUTPUTS = 16
_CHAIN = 12  # commands behind a wrong one
_PASSES = (
    "every layer computes what the graph after all passes says: what is wrong is in the passes, which "
    "`mtia-emu opt --verify-each` tries one by one, in how the model was read, or in its precision"
)


def print_report(
    report: Report,
    gpu: Report | None,
    check: Check | None,
    console: Console,
    *,
    layers: int = 12,
    basis: str = BOARD,
) -> None:
    """Print a report, the GPU's beside it and the outcome of a check, where there are any.

    `layers` is how many rows the tables of layers and of ops may have, `basis` what the joules are of by
    which chip and GPU are compared. Needs 80 columns to show every table well; columns of lesser weight are
    left out where they do not fit. Names are printed as text, whatever they hold.
    """
    page = Page(console)
    parts: list[RenderableType] = [_header(page, report), _totals(page, report)]
    if report.system is not None:
        parts += system_parts(page, report.system)
    parts.append(beside(page, _traffic(page, report), _energy(page, report), least=_SIDE_BY_SIDE))
    if report.layers:
        parts += [_bound(page, report), _ops(page, report, layers), _top(page, report, layers)]
    if gpu is not None:
        parts.append(_gpu(page, report, gpu, basis))
        if gpu.system is not None:
            parts += system_parts(page, gpu.system)
    if check is not None:
        parts.append(_check(page, check))
        if check.layers:
            parts.append(_layer_checks(page, check, layers))
    if report.notes:
        parts.append(_notes(page, report.notes))
    page.print(*parts)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], console: Console) -> None:
    """Print a headed table; texts wrap where they do not fit, numbers are aligned right."""
    page = Page(console)
    page.print(page.section(title, page.table(columns, rows)))


def _header(page: Page, report: Report) -> RenderableType:
    title = page.text(f"{report.model} on {report.machine}", "bold")
    dims = [f"{name}={size}" for name, size in report.dims.items()]
    return Group(title, page.text(", ".join([report.dtype, *dims]), "dim"), "")


def _totals(page: Page, report: Report) -> RenderableType:
    dram = report.traffic.dram_read_bytes + report.traffic.dram_write_bytes
    cycles = f"{report.cycles:,} cycles at {units.hertz(report.clock_hz)}"
    rate = units.count(_per(report.macs, report.seconds), "MAC/s")
    peak = f"{units.percent(report.utilization)} of the {report.dtype} peak"
    rows = [
        ("time", units.seconds(report.seconds), cycles),
        ("energy", units.joules(report.joules), _power(report)),
        ("work", units.count(report.macs, "MAC"), f"{rate}, {peak}"),
        ("DRAM", units.size(dram), f"{units.size(_per(dram, report.seconds))}/s on average"),
    ]
    if report.served is not None:
        rows += _hits(report.served)
    if report.power is not None and report.power.slowed:
        asked, limit = units.hertz(report.power.asked_hz), units.watts(report.power.limit_w)
        rows.insert(
            1, ("clock", units.hertz(report.clock_hz), f"{asked} asked for: slowed to keep to {limit}")
        )
    if report.layers:
        rows.append(("bound by", *_mostly(report)))
        rows += _second(report)
    grid = Table.grid(padding=(0, 3, 0, 0))
    for label, value, detail in rows:
        grid.add_row(page.text(label), page.text(value, "bold"), page.text(detail, "dim"))
    return page.section("Totals", grid)


def _hits(served: HitBytes) -> Iterator[tuple[str, str, str]]:
    """Yield a row on what SRAM served, where anything was asked for."""
    named = [("dense tiles", served.dense_hit_rate), ("looked-up rows", served.row_hit_rate)]
    known = [(name, units.percent(rate)) for name, rate in named if rate is not None]
    if known:
        (first, rate), *rest = known
        yield "SRAM hits", rate, "; ".join([f"of {first}", *(f"{share} of {name}" for name, share in rest)])


def _power(report: Report) -> str:
    """Return a run's average power, beside its limit and what is drawn between runs where that is known."""
    average, state = f"{units.watts(report.watts)} on average", report.power
    if state is None:
        return average
    idle, asleep = units.watts(state.idle_w), units.watts(state.sleep_w)
    return f"{average} of {units.watts(state.limit_w)}; {idle} idle, {asleep} asleep"


def _mostly(report: Report) -> tuple[str, str]:
    """Return what bound most of the time, and how much."""
    bound = seconds_by_bound(report)
    name = next(iter(bound), "-")
    return name, f"{units.percent(_per(bound.get(name, 0.0), report.track_seconds))} of the time"


def _second(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield a row on the second bottleneck: what bounds layers next, and the time that it leaves."""
    second = second_bottleneck(report)
    if second is not None:
        slack, left = units.percent(second.slack), units.seconds(second.seconds_left)
        yield "then by", second.name, f"slack {slack}: however fast all else, {left} is left"


def _per(amount: float, whole: float) -> float:
    return amount / whole if whole else 0.0


def _traffic(page: Page, report: Report) -> RenderableType:
    traffic = asdict(report.traffic)
    rows: list[list[Cell]] = []
    for level in ("local", "sram", "dram"):
        read, write = traffic[f"{level}_read_bytes"], traffic[f"{level}_write_bytes"]
        rows.append([NAMES[level], units.size(read), units.size(write), *_moved(read + write, report)])
    rows.append([NAMES["noc"], "-", "-", *_moved(report.traffic.noc_bytes, report)])
    return page.section("Traffic", page.table(["", "read", "written", "both", "rate"], rows))


def _moved(amount: int, report: Report) -> list[Cell]:
    return [units.size(amount), units.size(_per(amount, report.seconds)) + "/s"]


def _energy(page: Page, report: Report) -> RenderableType:
    parts = {NAMES.get(name, name): joules for name, joules in asdict(report.joules_by).items() if joules}
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    rows = _shares(page, parts, units.joules)
    rows.append(["total", units.joules(report.joules), "100.0%" if parts else "-", ""])
    return page.section("Energy", page.table(["", "energy", "share", ""], rows, total=True))


def _shares(page: Page, parts: dict[str, float], show: units.Show) -> list[list[Cell]]:
    """Return rows of name, amount, share of the sum, and bar."""
    whole = math.fsum(parts.values())
    return [
        [name, show(amount), percent, page.bar(_per(amount, whole), _BAR)]
        for (name, amount), percent in zip(parts.items(), units.percents(list(parts.values())), strict=True)
    ]


def _bound(page: Page, report: Report) -> RenderableType:
    bound = seconds_by_bound(report)
    rows = _shares(page, bound, units.seconds)
    for row, name in zip(rows, bound, strict=True):
        row.insert(1, "-" if name == BETWEEN else sum(layer.bound_by == name for layer in report.layers))
    note = "a cycle in which n layers run counts 1/n for each" if overlaps(report.layers) else ""
    table = page.table(["", "layers", "time", "share", ""], rows)
    return page.section("Time by what bound it", table, note=note)


def _ops(page: Page, report: Report, limit: int) -> RenderableType:
    groups: dict[tuple[str, str], list[Layer]] = {}
    for layer in report.layers:
        groups.setdefault((layer.op, layer.kernel), []).append(layer)
    ranked = sorted(groups.items(), key=lambda item: (-add_up(x.seconds for x in item[1]), item[0]))
    rows = [[op, kernel, *_group(report, members)] for (op, kernel), members in ranked[:limit]]
    rest = [member for _, members in ranked[limit:] for member in members]
    if rest:
        rows.append([f"{len(ranked) - limit} others", "", *_group(report, rest)])
    columns = ["op", "kernel", "layers", "time", "share", "bound by", "MACs", "DRAM", "energy"]
    return page.section("Time by op", page.table(columns, rows, flex=1, optional=(6, 8, 7)))


def _group(report: Report, layers: Sequence[Layer]) -> list[Cell]:
    """Return what layers come to together."""
    bound = next(iter(grouped(layers, lambda layer: layer.bound_by)))
    return [len(layers), *_spent(report, add_up(x.seconds for x in layers), bound), *_amounts(layers)]


def _spent(report: Report, seconds: float, bound: str) -> list[Cell]:
    return [units.seconds(seconds), units.percent(_per(seconds, report.track_seconds)), bound]


def _amounts(layers: Sequence[Layer]) -> list[Cell]:
    macs, dram = sum(x.macs for x in layers), sum(x.dram_bytes for x in layers)
    return [units.count(macs), units.size(dram), units.joules(math.fsum(x.joules for x in layers))]


def _top(page: Page, report: Report, limit: int) -> RenderableType:
    ranked = sorted(report.layers, key=lambda x: (-x.seconds, x.start_cycle))
    shown = ranked[:limit]
    if not shown:
        return Group()
    rows: list[list[Cell]] = [
        [x.name, x.op, x.kernel, *_spent(report, x.seconds, x.bound_by), *_amounts([x]), _then(x)]
        for x in shown
    ]
    part = units.percent(_per(add_up(x.seconds for x in shown), report.track_seconds))
    note = f"{len(shown)} of {len(ranked)}, {part} of the time"
    columns = ["layer", "op", "kernel", "time", "share", "bound by", "MACs", "DRAM", "energy", "then, slack"]
    if not any(x.next_bound for x in shown):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    optional = (6, 8, 7, 2, *range(9, len(columns)))
    return page.section("Slowest layers", page.table(columns, rows, flex=0, optional=optional), note=note)


def _then(layer: Layer) -> str:
    """Return a layer's second bottleneck and its slack, where they are known."""
    return f"{layer.next_bound} {layer.slack:.0%}" if layer.next_bound else "-"


def _gpu(page: Page, report: Report, gpu: Report, basis: str) -> RenderableType:
    versus = compare(report, gpu, basis)
    rows: list[list[Cell]] = [[x.named, x.ours, x.theirs, x.ratio] for x in ratios(report, gpu, versus)]
    rows.append(["bound by", *(_mostly(x)[0] if x.layers else "-" for x in (report, gpu)), ""])
    lines = (*sentences(report, gpu, versus), *gpu.notes[:_GPU_NOTES])
    parts: list[RenderableType] = [
        page.table(["", *sides(report, gpu), "chip / GPU"], rows),
        "",
        page.text(in_words(report, gpu, versus), "bold"),
        *(page.text(line, "dim") for line in lines),
    ]
    return page.section("Beside the GPU", *parts, "", _gpu_bound(page, gpu))


def _gpu_bound(page: Page, gpu: Report) -> RenderableType:
    """Return the GPU's slowest kernels, with what bound each."""
    ranked = sorted(gpu.layers, key=lambda x: (-x.span_s, x.start_cycle))[:_GPU_LAYERS]
    rows: list[list[Cell]] = [[x.name, x.op, x.kernel, *_spent(gpu, x.span_s, x.bound_by)] for x in ranked]
    columns = [f"slowest on {gpu.machine}", "op", "kernel", "time", "share", "bound by"]
    return page.table(columns, rows, flex=0, optional=(2,))


def _check(page: Page, check: Check) -> RenderableType:
    verdict = page.text("passed" if check.passed else "FAILED", "bold green" if check.passed else "bold red")
    verdict.append(f": largest relative error {check.max_rel_error:.3g}, tolerance {check.tolerance:.3g}")
    title = f"Check against {check.oracle or 'the oracle'}"
    if not check.outputs:
        return page.section(title, verdict)
    rows = [_outcome(name, distance, check.tolerance) for name, distance in check.outputs.items()]
    rows.sort(key=lambda row: row[-1] == "ok")  # what failed comes first, else the order stays
    hidden = len(rows) - _OUTPUTS
    note = f"{hidden} more outputs are in the JSON report" if hidden > 0 else ""
    columns = ["output", "max abs error", "max rel error", "cosine", "SQNR dB", ""]
    table = page.table(columns, rows[:_OUTPUTS], flex=0)
    return page.section(title, verdict, table, note=note)


def _outcome(name: str, distance: Distance, tolerance: float) -> list[Cell]:
    """Return the row of one output."""
    state = "ok" if distance.max_rel_error <= tolerance else "FAILED"
    cosine = "" if distance.cosine is None else f"{distance.cosine:.6f}"
    sqnr = "" if distance.sqnr_db is None else f"{distance.sqnr_db:.1f}"
    return [name, f"{distance.max_abs_error:.3g}", f"{distance.max_rel_error:.3g}", cosine, sqnr, state]


def _layer_checks(page: Page, check: Check, limit: int) -> RenderableType:
    """Return how far each layer is from its reference: those that are wrong, in order, then the farthest."""
    wrong = [x for x in check.layers if not x.passed]
    others = sorted((x for x in check.layers if x.passed), key=lambda x: -_per(x.max_rel_error, x.allowed))
    rows: list[list[Cell]] = [
        [x.name, x.op, x.kernel, f"{x.max_abs_error:.3g}", f"{x.max_rel_error:.3g}", f"{x.allowed:.3g}",
         "ok" if x.passed else "FAILED"]
        for x in [*wrong, *others][:limit]
    ]  # fmt: skip
    unknown = sum(not x.compared for x in check.layers)
    note = f"{len(rows)} of {len(check.layers)}" + (f"; {unknown} have nothing to compare" if unknown else "")
    columns = ["layer", "op", "kernel", "max abs error", "max rel error", "allowed", ""]
    body: list[RenderableType] = [page.table(columns, rows, flex=0, optional=(3, 2))] if rows else []
    if check.first_wrong is not None:
        body += ["", *(page.text(line) for line in _culprit(check.first_wrong))]
    elif not check.passed:
        body += ["", page.text(_PASSES)]
    return page.section("Layers against their references", *body, note=note)


def _culprit(layer: LayerCheck) -> Iterator[str]:
    """Yield lines on the first wrong layer: its first wrong command, and whence that has its values."""
    yield f"first wrong layer: {layer.name} ({layer.op}, launch {layer.launch})"
    command = layer.command
    if command is None:
        return
    if command.index < 0:
        yield f"first wrong command: none; {command.why}"
        return
    yield f"first wrong command: {command.index} `{command.text}`: {command.why}"
    if command.unlike and command.unlike != command.chain[-1]:
        yield f"what made right parts of the result has none like: {command.unlike}"
    if len(command.chain) > 1:
        yield "its values come from:"
        yield from (f"  {text}" for text in command.chain[-_CHAIN:])


def _notes(page: Page, notes: Sequence[str]) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    for note in dict.fromkeys(notes[:_NOTES]):
        grid.add_row("-", page.text(note))
    if len(notes) > _NOTES:
        grid.add_row("-", page.text(f"and {len(notes) - _NOTES} more; the JSON report has them all"))
    return page.section("Notes", grid)
