"""Regenerate the MTIA part of docs/accuracy.md: tables and one picture. `make accuracy` runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from kinds import cycles_by_kind
from mtia_cases import Case, anchors, fc, fc_lpddr, other_ops, rows_of, tbe
from order import distribution

DOCS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DOCS))

from fences import fill  # noqa: E402
from markdown_table import table  # noqa: E402

from mtia_emu import api  # noqa: E402
from mtia_emu.machine.chip import load_chip  # noqa: E402

PAGE = DOCS / "accuracy.md"
PICTURE = DOCS / "pictures" / "accuracy-mtia.svg"
SPILLS = "4096 x 4096 x 4096"
NONE = "no layer"
Lines = list[list[str]]
PRODUCTION = ("0", "1", "2", "3", "5", "13", "27", "50", "61", "103")


@cache
def fc_cases() -> tuple[Case, ...]:
    """Return the fully connected layers, run once."""
    return tuple(fc(load_chip("mtia-1")))


@cache
def tbe_cases() -> tuple[Case, ...]:
    """Return the embedding bags, run once."""
    return tuple(tbe(load_chip("mtia-1")))


@cache
def op_cases() -> tuple[Case, ...]:
    """Return the other operators, run once."""
    return tuple(other_ops(load_chip("mtia-1")))


def rows(cases: Iterable[Case], unit: str) -> str:
    """Return a table of cases."""
    head = ["case", f"published, {unit}", "here", "error", "bound by", "half"]
    lines = [
        [c.name, f"{c.published:g}", f"{c.here:.4g}", f"{100 * c.error:+.1f} %", c.bound_by,
         "fitted" if c.fitted else "held out"]
        for c in cases
    ]  # fmt: skip
    return table(head, lines)


def statistics(cases: Sequence[Case]) -> str:
    """Return the error statistics of both halves and of all."""
    head = ["cases", "number", "median error", "90th percentile", "largest", "bias (median)"]
    groups = [
        ("fitted half", [c for c in cases if c.fitted]),
        ("held out", [c for c in cases if not c.fitted]),
        ("all", list(cases)),
    ]
    lines = []
    for name, group in groups:
        if group:
            e = np.array([100 * c.error for c in group])
            a = np.abs(e)
            lines.append(
                [name, len(group), f"{np.median(a):.1f} %", f"{np.percentile(a, 90):.1f} %",
                 f"{a.max():.1f} %", f"{np.median(e):+.1f} %"]
            )  # fmt: skip
    return table(head, lines)


def mtia_fc() -> str:
    """Return the fully connected layers and their statistics, the one that spills apart."""
    fits = [c for c in fc_cases() if c.name != SPILLS]
    return f"{statistics(fits)}\n\n{rows(fc_cases(), 'us')}"


def mtia_tbe() -> str:
    """Return the embedding bags and their statistics."""
    return f"{statistics(tbe_cases())}\n\n{rows(tbe_cases(), 'GB/s')}"


def mtia_ops() -> str:
    """Return the other operators."""
    return f"{statistics(op_cases())}\n\n{rows(op_cases(), 'GB/s')}"


def mtia_lpddr() -> str:
    """Return what is published with operands in LPDDR beside ours: layers, then other operators."""
    chip = load_chip("mtia-1")
    layers, others = fc_lpddr(chip), other_ops(chip, "mtia1_ops_lpddr.csv", "dram")
    return f"{rows(layers, 'us')}\n\n{rows(others, 'GB/s')}"


def mtia_2i() -> str:
    """Return what is published of MTIA 2i beside what comes out."""
    rows = [[c.name, c.published, f"{c.here:.3g}", c.unit, "yes" if c.met else "no"] for c in anchors()]
    return table(["claim", "published", "here", "unit", "met"], rows)


def mtia_mc2() -> str:
    """Return a recommender of MC2's size on MTIA 1: share of peak, and time by operator."""
    peaks, shares = [], {}
    for batch in (64, 256):
        report = api.run("zoo:dlrm-mc2", "mtia-1", dims={"batch": batch}, gpu=None).report
        int8 = load_chip("mtia-1").pes * 1024 * 0.8e9
        peaks.append(f"batch {batch}: {100 * report.macs / report.seconds / int8:.1f} %")
        kinds = cycles_by_kind(report.layers)
        shares[batch] = {kind: 100 * cycles / report.cycles for kind, cycles in kinds.items()}
    lines = breakdown(rows_of("mtia1_breakdown.csv"), shares)
    head = ["operator", "batch 64, published %", "here %", "batch 256, published %", "here %"]
    return f"Share of the INT8 peak: {', '.join(peaks)} (published: 3.9 %).\n\n{table(head, lines)}"


def breakdown(published: Iterable[Mapping[str, str]], shares: Mapping[int, Mapping[str, float]]) -> Lines:
    """Return the rows of published shares beside ours, by batch; an operator without a layer has no share."""
    return [
        [row["op"], *(x for batch in shares for x in _both(row, batch, shares[batch]))] for row in published
    ]


def _both(row: Mapping[str, str], batch: int, here: Mapping[str, float]) -> tuple[str, str]:
    return row[f"batch_{batch}_percent"], f"{here[row['op']]:.1f}" if row["op"] in here else NONE


def mtia_production() -> str:
    """Return the bandwidth of looked-up rows that production embedding bags reach on MTIA 2i."""
    lines = []
    for name in PRODUCTION:
        done = api.run(f"zoo:tbe-production-{name}", "mtia-2i", gpu=None)
        report, moved = done.report, done.report.traffic.dram_read_bytes
        looked = sum(w.read_bytes for w in done.program.works)
        lines.append(
            [name, f"{report.seconds * 1e6:.0f}", f"{looked / report.seconds / 1e9:.0f}",
             f"{moved / report.seconds / 1e9:.0f}"]
        )  # fmt: skip
    return table(["configuration", "us", "rows read, GB/s", "of it from DRAM, GB/s"], lines)


def timing_order() -> str:
    """Return how far the fast timing is from one that serves strictly by time."""
    return table(["blocks", "5th percentile", "median", "95th percentile", "largest"], distribution())


def picture() -> None:
    """Draw predicted against published for MTIA 1."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mtia-emu"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    groups = [
        (axes[0], "Fully connected, INT8, in SRAM", "us", [fc_cases()], ["o"]),
        (axes[1], "Embedding bags; other operators", "GB/s", [tbe_cases(), op_cases()], ["o", "s"]),
    ]
    for axis, title, unit, sets, marks in groups:
        for cases, mark in zip(sets, marks, strict=True):
            for fitted, colour in ((True, "tab:orange"), (False, "tab:blue")):
                some = [c for c in cases if c.fitted is fitted]
                axis.plot([c.published for c in some], [c.here for c in some], mark, color=colour, ms=5,
                          alpha=0.8, label="fitted half" if fitted else "held out")  # fmt: skip
        low, high = axis.get_xlim()
        low = max(low, min(c.published for cases in sets for c in cases) * 0.7)
        axis.plot([low, high], [low, high], color="0.5", lw=1, zorder=0)
        axis.set(xscale="log", yscale="log", title=title, xlabel=f"published, {unit}", ylabel=f"here, {unit}")
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(handles.values(), handles.keys(), frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


SECTIONS: dict[str, Callable[[], str]] = {
    f.__name__.replace("_", "-"): f
    for f in (mtia_fc, mtia_tbe, mtia_ops, mtia_lpddr, mtia_2i, mtia_mc2, mtia_production, timing_order)
}


def main(names: Sequence[str]) -> None:
    """Make the page's tables and the picture anew, or only those that are named (`picture`)."""
    chosen = {n: f for n, f in SECTIONS.items() if not names or n in names}
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), chosen), encoding="utf-8")
    if not names or "picture" in names:
        picture()


if __name__ == "__main__":
    main(sys.argv[1:])
