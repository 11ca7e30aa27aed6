"""A run as a page: verdict, numbers that stand out, latencies, and what the engines did over time."""

from __future__ import annotations

import math
import os

import numpy as np

from ..view import units
from ..view.html.elements import Element
from ..view.html.lines import Line, LineChart, Marked
from ..view.html.page import Tile, figure, footer, header, notes, section, table, tiles, write_page
from ..view.html.scales import ChartAxis, share
from .load import Floats
from .printed import BOUNDS, LATENCY, a_second, bounds_rows, chips_text, flow_rows, latency_rows, verdict
from .served import ServedLoad

BINS = 240  # of a figure over time
POINTS = 120  # of a figure of shares


def write_report(path: str | os.PathLike[str], served: ServedLoad) -> None:
    """Write the page of a run: one file, nothing fetched."""
    title = f"{served.service.table.model} on {served.service.table.machine}"
    write_page(path, f"Serving {title}", _parts(served, title))


def _parts(served: ServedLoad, title: str) -> list[Element]:
    found = served.answers
    return [
        header(f"Serving {title}", verdict(served), _what(served)),
        tiles(_tiles(served)),
        figure(_shares(served), size="half"),
        figure(_over_time(served, "queue"), size="half"),
        figure(_over_time(served, "cache"), size="half"),
        figure(_tokens(served), size="half"),
        *([figure(_rates(served), size="half")] if served.greatest is not None else []),
        section("Latency", table(LATENCY, latency_rows(found))),
        section("Throughput, energy, fullness", table(["what", "value", "remark"], flow_rows(found))),
        *([section("Bounds", table(BOUNDS, bounds_rows(served)))] if served.bounds else []),
        section("What the numbers mean", notes(MEANINGS)),
        footer(f"Step table: {title}; load: {served.load.name}."),
    ]  # fmt: skip


MEANINGS = (
    "To first token: from a request's arrival to the end of the step that gives its first token.",
    "Per token after: (last token - first token) / (tokens - 1); a request of one token has none.",
    "Between tokens: every gap between two tokens of one request, waiting after a preemption in it.",
    "Intervals are of other hours of the same traffic, by a moving-block bootstrap; the step table's own "
    "error is not in them.",
    "Bounds, where they are asked for: served again with every step as fast, and as slow, as the table's "
    "errors and the machine's band against measurements allow, all to one side; energy by its own band.",
)


def _what(served: ServedLoad) -> str:
    service, load = served.service, served.load
    rules = service.rules
    engines = f"{service.engines} engine{'s' * (service.engines > 1)}"
    if service.handover is not None:
        engines = f"{service.handover.engines} for prompts and {engines} for decoding"
    cache = service.cache_blocks * rules.block_tokens
    return (
        f"{units.many(len(load), 'request')} of {load.name} on {engines}; up to "
        f"{rules.max_sequences} sequences and {rules.token_budget:,} tokens a step, "
        f"a cache of {cache:,} tokens."
    )


def _tiles(served: ServedLoad) -> list[Tile]:
    found = served.answers
    out = [Tile("requests", f"{a_second(found.served_rate_per_s)}/s", chips_text(found))]
    for name, measure in (("first token", found.ttft_s), ("token after", found.tpot_s)):
        if measure is not None:
            median = f"median {units.seconds(measure.p50.value)}"
            out.append(Tile(f"{name}, p99", units.seconds(measure.p99.value), median))
    out.append(Tile("tokens for each chip", f"{found.output_tokens_per_s_per_chip:,.0f}/s"))
    joules = found.joules_per_output_token
    out.append(Tile("energy", "not known" if joules is None else f"{units.joules(joules)}/token"))
    out.append(Tile("busy", share(found.utilisation), f"cache {share(found.fullness.cache_mean)} full"))
    return out  # fmt: skip


def _shares(served: ServedLoad) -> LineChart:
    """Return what share of the requests had their token by when."""
    log, level = served.log, served.answers.level
    lines = []
    for name, values in (("to first token", log.ttft_s), ("to last token", log.e2e_s)):
        at = np.linspace(0, 1, POINTS)
        lines.append(Line(name, np.quantile(values, at).tolist(), at.tolist()))
    limits = [] if level is None else [(level.ttft, "limit of the first"), (level.e2e, "limit of the last")]
    marked = [Marked(value, text) for value, text in limits if math.isfinite(value)]
    summary = f"Half of the first tokens come within {units.seconds(float(np.median(log.ttft_s)))}."
    axes = ChartAxis("time", "s", log=True), ChartAxis("requests served by then", "share", show=share)
    return LineChart("How long requests wait", summary, *axes, lines, marked, zero=True)


def _over_time(served: ServedLoad, what: str) -> LineChart:
    log = served.log
    middle, edges = _bins(log.end_s)
    if what == "queue":
        names = {"decoding": "decode", "waiting": "wait"}
        axis, title = ChartAxis("requests", "of all engines"), "Who decodes and who waits"
    else:
        names = {"used_blocks": "cache in use"}
        axis, title = ChartAxis("cache in use", "share of blocks", show=share), "How full the cache is"
    lines = []
    for field, name in names.items():
        total = np.zeros(len(middle))
        for steps, blocks in zip(log.engines, log.blocks, strict=True):
            held = getattr(steps, field) / (blocks * len(log.engines) if field == "used_blocks" else 1)
            total += mean_over(steps.start_s, steps.end_s, held, edges)
        lines.append(Line(name, middle.tolist(), total.tolist()))
    most = max(max(line.up) for line in lines)
    summary = f"At most {axis.show(most)}; a point is a mean over {units.seconds(edges[1] - edges[0])}."
    return LineChart(title, summary, ChartAxis("time", "s"), axis, lines, zero=True)


def _tokens(served: ServedLoad) -> LineChart:
    log = served.log
    middle, edges = _bins(log.end_s)
    lines = []
    for field, name in (("prompt_tokens", "prompts computed"), ("tokens_out", "generated")):
        counts = sum(
            np.histogram(steps.end_s, edges, weights=getattr(steps, field))[0] for steps in log.engines
        )
        lines.append(Line(name, middle.tolist(), (counts / np.diff(edges)).tolist()))
    summary = f"On the mean {served.answers.output_tokens_per_s:,.0f} tokens a second are generated."
    axes = ChartAxis("time", "s"), ChartAxis("tokens", "per second")
    return LineChart("Tokens over time", summary, *axes, lines, zero=True)


def _rates(served: ServedLoad) -> LineChart:
    assert served.greatest is not None
    tried = sorted(served.greatest.tried, key=lambda t: t.rate_per_s)
    line = Line("kept", [t.rate_per_s for t in tried], [t.kept_share for t in tried])
    marked = [] if served.greatest.rate_per_s is None else [Marked(served.greatest.rate_per_s, "greatest")]
    axes = ChartAxis("requests", "per second"), ChartAxis("requests that keep the level", "share", show=share)
    summary = f"{len(tried)} rates were tried."
    return LineChart("Which rate is kept", summary, *axes, [line], marked, zero=True)


def _bins(end_s: float) -> tuple[Floats, Floats]:
    edges = np.linspace(0.0, end_s, BINS + 1)
    return (edges[:-1] + edges[1:]) / 2, edges


def mean_over(start_s: Floats, end_s: Floats, held: Floats, edges: Floats) -> Floats:
    """Return the mean, between each two edges, of a value that is held from start to end and 0 else."""
    if not len(start_s):
        return np.zeros(len(edges) - 1)
    area = np.concatenate([[0.0], np.cumsum((end_s - start_s) * held)])
    knots = np.stack([start_s, end_s], axis=1).ravel()
    sums = np.repeat(area, 2)[1:-1]
    return np.diff(np.interp(edges, knots, sums)) / np.diff(edges)
