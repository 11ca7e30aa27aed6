"""The commands of the command line about many chips: sweep, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import Machines, Options, declared
from . import options as o
from .output import console, say

if TYPE_CHECKING:
    from ..sweeps.row import Row
    from ..sweeps.run import Progress
    from ..sweeps.spec import Spec
    from ..sweeps.store import Store
    from ..sweeps.study import Study

SUFFIXES = (".html", ".svg", ".png")
PICTURES = ("pareto", "parallel", "sensitivity", "energy", "roofline")
METHODS = ("grid", "random", "latin", "tpe", "nsga2")
BEST_SHOWN = 5


@click.command(short_help="Evaluate many chips over several models.")
@click.argument("spec", required=False, metavar="[SPEC.toml]", type=click.Path())
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL[,DIM=INT...]",
    help=f"A model with its dimensions, weight=W, name=NAME, {o.assignments('workload')}; may be repeated.",
)
@o.options(*o.flags("sweep", Machines, unset=True))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUES",
    shell_complete=o.complete("key"),
    help='What varies: KEY=16,32,64 or KEY="16..128 step x2"; may be repeated.',
)
@click.option(
    "--link", "links", multiple=True, metavar="KEY=EXPR", help="Set KEY to an expression of other parameters."
)
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="EXPR",
    help='As in "area_mm2 <= 450"; may be repeated.',
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME",
    help="What counts, as seconds, joules, area_mm2, dollars, perf_per_watt; may be repeated.",
)
@click.option("--method", type=click.Choice(METHODS), help="How points are chosen.  [default: grid]")
@click.option(
    "--points", type=click.IntRange(1), metavar="INT", help="Points to choose (all methods but grid)."
)
@o.options(*o.flags("sweep", unset=True))
@click.option(
    "-o",
    "--output",
    "store",
    metavar="STORE",
    required=True,
    callback=o.target,
    help="SQLite file for the rows.",
)
@click.option("--resume", is_flag=True, help="Go on with STORE; begin it where it is not there.")
@click.option(
    "--jobs",
    type=click.IntRange(0),
    metavar="INT",
    help="Processes on this machine; 0: none but this.  [default: one a core]",
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="INT", help="Run on a local dask cluster of so many workers."
)
@click.option("--scheduler", metavar="ADDRESS", help="Run on the dask cluster there, as in tcp://host:8786.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    default=600.0,
    show_default=True,
    help="Most time of one attempt at a point.",
)
@click.option(
    "--memory",
    "memory_bytes",
    type=click.IntRange(0),
    metavar="BYTES",
    default=0,
    help="Most memory of a worker.  [default: no limit]",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    metavar="INT",
    default=2,
    show_default=True,
    help="Attempts after the first, where a worker dies, hangs or runs out of memory.",
)
@click.option("--yes", "consent", is_flag=True, help="Do start a sweep of more than 100,000 points.")
def sweep(spec: str | None, store: str, **flags: Any) -> None:
    """Evaluate every point of a space of chips over several models; the rows go to STORE.

    SPEC.toml says what to do (examples/sweep.toml); flags say the same, or change it. A sweep may be killed
    at any time: --resume goes on with it.

    \b
    Examples:
      mtia-emu sweep examples/sweep.toml -o sweep.db
      mtia-emu sweep --model zoo:dlrm-small --set "dram.channels=8..32 step 8" \\
          --set "sram.bytes=67108864..268435456 step x2" -o sweep.db
      mtia-emu sweep examples/sweep.toml -o sweep.db --resume --workers 8
      mtia-emu report sweep.db -o report.html
    """
    from ..sweeps.run import SweepRun, run
    from ..sweeps.spec import make_spec

    if flags["workers"] and flags["scheduler"]:
        raise UserError("--workers and --scheduler are two ways to a cluster (right: one of the two)")
    checked = make_spec(_values(spec, flags), f"spec {spec}" if spec else "sweep")
    words = {f.name: flags[f.name] for f in fields(SweepRun) if flags.get(f.name) is not None}
    with _progress(checked.objectives[0]) as tick:
        rows = run(checked, SweepRun(store, **words), tick)
    with rows:
        _summary(rows)


def _values(spec: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the spec file with what flags say over them."""
    from ..sweeps.spec import load_spec, parse_model, parse_set

    values = load_spec(spec) if spec else {}
    if flags["models"]:
        values["model"] = [parse_model(text) for text in flags["models"]]
    if "model" not in values:
        raise UserError("a sweep needs a model: SPEC.toml, or --model zoo:llama-3-8b,seq=1,past=2048")
    for flag, table in (("sets", "set"), ("links", "link")):
        given = o.once(f"--{table}", [_pair(table, text, parse_set) for text in flags[flag]])
        if given:
            values[table] = {**values.get(table, {}), **given}
    for flag in ("constraints", "objectives"):
        if flags[flag]:
            values[flag] = list(flags[flag])
    derived = (f.name for kind in (Machines, Options) for f, _ in declared(kind, "sweep"))
    plain = ("method", "points", *derived)
    values |= {key: flags[key] for key in plain if flags[key] is not None}
    return values


def _pair(table: str, text: str, parse_set: Any) -> tuple[str, Any]:
    if table == "set":
        key, values = parse_set(text)
        return key, values
    key, equals, expression = (part.strip() for part in text.partition("="))
    if not (key and equals and expression):
        raise UserError(f"--link {text!r}: not KEY=EXPR (right: --link pe.matrix.cols=pe.matrix.rows)")
    return key, expression


@contextmanager
def _progress(objective: str) -> Iterator[Progress | None]:
    """Give a function that shows rate, time left and the best so far on a terminal; None in a pipe."""
    screen = console(err=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..sweeps.spec import ALL_OBJECTIVES

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[best]}"),
        console=screen,
    )
    started, first, best = time.monotonic(), -1, None
    with bar:
        task = bar.add_task("", total=None, rate="", best="")

        def tick(done: int, total: int, row: Any) -> None:
            nonlocal first, best
            first = done if first < 0 else first
            value = row.metrics.get(objective) if row is not None else None
            if value is not None and (
                best is None or (value > best if ALL_OBJECTIVES[objective] else value < best)
            ):
                best = value
            rate = (done - first) / max(time.monotonic() - started, 1e-9)
            shown = "" if best is None else f"best {objective} {best:.4g}"
            bar.update(task, completed=done, total=total, rate=f"{rate:.2f} points/s", best=shown)

        yield tick


def _summary(store: Store) -> None:
    """Print what a sweep came to: how many points, and the best of each objective."""
    from ..sweeps.row import STATUSES, record
    from ..sweeps.study import Study
    from ..view.terminal import print_table
    from ..view.units import many

    study = Study.of(store)
    counts = ", ".join(f"{study.counts[status]:,} {status}" for status in STATUSES if study.counts[status])
    say(f"{store.path}: {many(sum(study.counts.values()), 'point')}: {counts or 'none'}")
    best = study.best()
    if best:
        columns = {"base": study.base, **best}
        names = [*study.parameters, *study.spec.objectives]
        records = [record(row, study.spec) for row in columns.values()]
        rows = [["point", "-", *(str(row.index) for row in best.values())]]
        rows += [[name, *(_cell(values[name]) for values in records)] for name in names]
        print_table("best in each objective", ["", *columns], rows, console())
        say("the best points again:")
        for row in {row.index: row for row in best.values()}.values():
            _commands(study.spec, row)
    _moves(study)
    if study.failures:
        print_table(
            "failed",
            ["points", "reason"],
            [[str(n), why] for why, n in study.failures[:BEST_SHOWN]],
            console(),
        )


def _commands(spec: Spec, row: Row) -> None:
    """Print the commands that do a point again, a line each."""
    from ..sweeps.again import commands

    for name, text in commands(spec, row).items():
        say(f"{row.index} {name}: {text}")


def _moves(study: Study) -> None:
    """Print what each parameter does to net present value, where that is asked for."""
    from ..view.terminal import print_table

    moves = study.moves("npv_usd") if "npv_usd" in study.spec.objectives else []
    if moves:
        title = "net present value, M$: mean of all points at a parameter's least value and at its greatest"
        rows = [
            [x.parameter, _cell(x.least), _cell(x.most), *(f"{usd / 1e6:,.0f}" for usd in (
                x.at_least, x.at_most, x.at_most - x.at_least))]
            for x in moves
        ]  # fmt: skip
        print_table(title, ["parameter", "least", "greatest", "M$", "to M$", "apart"], rows, console())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


@click.command(short_help="Show a sweep: a page, pictures, tables.")
@click.argument("store", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE.html|svg|png",
    callback=o.target,
    help="Page with all plots, or one picture.",
)
@click.option(
    "--picture",
    type=click.Choice(PICTURES),
    default="pareto",
    show_default=True,
    help="What to draw as .svg or .png.",
)
@click.option(
    "--x", "x", metavar="COLUMN", help="Column across, of a Pareto picture.  [default: the first objective]"
)
@click.option("--y", "y", metavar="COLUMN", help="Column upwards.  [default: the second objective]")
@click.option(
    "--point",
    type=click.IntRange(-1),
    metavar="INT",
    default=-1,
    show_default=True,
    help="Point of a roofline; -1 is the base chip.",
)
@click.option("--model", metavar="NAME", help="Model of a roofline.  [default: the first]")
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    callback=o.target,
    help="Write all rows as CSV; texts that look like formulas get an apostrophe.",
)
@click.option(
    "--commands", "again", is_flag=True, help="Print the command that does each point again, a line a model."
)
@click.option(
    "--parquet", "parquet_file", metavar="FILE", callback=o.target, help="Write all rows as Parquet."
)
def report(store: str, **flags: Any) -> None:
    """Show the rows of a sweep's STORE.

    \b
    Examples:
      mtia-emu report sweep.db
      mtia-emu report sweep.db -o report.html
      mtia-emu report sweep.db -o front.svg --x area_mm2 --y decode.seconds
      mtia-emu report sweep.db -o roofline.png --picture roofline --point 12
      mtia-emu report sweep.db --csv rows.csv --parquet rows.parquet
      mtia-emu report sweep.db --commands
    """
    from ..sweeps.export import write_csv, write_parquet
    from ..sweeps.store import read

    target = flags["output"]
    if target is not None and not target.endswith(SUFFIXES):
        raise UserError(f"-o {target!r}: a report is .html, a picture .svg or .png")
    with read(store) as opened:
        if flags["csv_file"]:
            write_csv(opened, flags["csv_file"])
        if flags["parquet_file"]:
            write_parquet(opened, flags["parquet_file"])
        if target is not None:
            _draw(opened, target, flags)
        if flags["again"]:
            for row in opened.rows():
                _commands(opened.spec, row)
        if not (flags["again"] or target or flags["csv_file"] or flags["parquet_file"]):
            _summary(opened)


def _draw(store: Store, target: str, flags: dict[str, Any]) -> None:
    from ..sweeps.study import Study

    study = Study.of(store, layers=True)
    if target.endswith(".html"):
        from ..sweeps.page import write_page

        write_page(study, target)
        return
    from ..sweeps import pictures

    if flags["picture"] == "pareto":
        pictures.pareto(study, target, flags["x"], flags["y"])
    elif flags["picture"] == "roofline":
        pictures.roofline(study, target, flags["point"], flags["model"])
    else:
        getattr(pictures, flags["picture"])(study, target)
