"""`mtia-emu opt`: passes run one by one, looked at, measured and held to what they were given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import options as o
from .output import EXIT_CHECK_FAILED, console, progress, say

if TYPE_CHECKING:
    from mtia_emu.compiler.graph import Graph
    from mtia_emu.compiler.passes import Pass
    from mtia_emu.compiler.watch import PassRun

    from ..machine.chip import Chip
    from ..options import Options
    from ..sources import Source

Examples = Callable[[int], dict[str, Any]]


def _picture(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.endswith((".svg", ".dot")):
        raise UserError(f"--draw {value!r}: a graph's picture is .svg or .dot (right: --draw graph.svg)")
    return o.target(ctx, param, value)


@click.command(short_help="Run passes on a model, and check or measure each.")
@o.MODEL
@click.option("-o", "--output", metavar="FILE.ir", callback=o.target, help="Write the graph to a file.")
@click.option(
    "--draw",
    "picture",
    metavar="FILE.svg|dot",
    callback=_picture,
    help="Draw the graph after the passes; of a large one the first nodes.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not print the graph.")
@click.option(
    "--print-after", "shown", multiple=True, metavar="PASS|all", help="Print the graph after a pass."
)
@click.option("--stats", is_flag=True, help="Print what each pass did to the number of nodes.")
@click.option("--why", is_flag=True, help="Print the rules that did not fire, by rule and op, and why.")
@click.option("--measure", is_flag=True, help="Print cycles with the passes up to each.")
@click.option(
    "--verify-each", is_flag=True, help="Execute before and after each pass; exit 1 where one is off."
)
@click.option("--bisect", is_flag=True, help="As --verify-each, and name the rewrite that is wrong.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    metavar="FLOAT",
    help="What --verify-each allows beyond rounding, of an output's largest magnitude.  "
    "[default: what passes that choose codes give up]",
)
@click.option(
    "--inputs",
    "inputs_file",
    metavar="IO.npz",
    help="Bind dimensions by the shapes of these arrays, and verify on them too (keys `name` or `in:name`).",
)
@o.options(*o.COMPILE, o.SEED)
def opt(model: str, **flags: Any) -> None:
    """Run passes on MODEL (an ONNX file, zoo:NAME, or a graph's text FILE.ir) and print the graph.

    \b
    Examples:
      mtia-emu opt model.onnx --passes "legalise,fold,fuse-maps{max-inputs=4}"
      mtia-emu opt zoo:llama-tiny -q --stats --why
      mtia-emu opt model.ir --passes legalise,mine --verify-each
      mtia-emu opt zoo:llama-tiny -q --measure --chip mtia-2i
      mtia-emu opt model.onnx --passes mine,default --measure
      mtia-emu opt zoo:llama-tiny -q --passes legalise,fold --draw graph.svg
    """
    from ..machine.chip import load_chip

    chip = load_chip(flags["chip"] or DEFAULT_CHIP, o.parse_settings(flags["settings"]))
    if flags["output"] is not None and not flags["output"].endswith(".ir"):
        raise UserError(f"--output {flags['output']!r}: a graph's text is a file FILE.ir")
    verify = flags["verify_each"] or flags["bisect"]
    seed = flags["seed"] if verify else None
    given = opened(model, flags["dims"], seed, flags["inputs_file"])
    with progress() as tick, given as (source, graph, examples):
        options = o.chosen(flags)
        steps = _pipeline(graph, chip, options)
        _refuse_unknown_shown(flags["shown"], steps)
        samples = _verify(graph, steps, examples, flags, tick) if verify else 0
        ran = _watched(graph, steps, flags["shown"])
        if verify:
            say(_verified(ran, samples), err=True)
        last = ran[-1].after if ran else graph
        if flags["picture"] is not None:
            _draw(last, flags["picture"])
        if flags["stats"]:
            _print_stats(ran)
        if flags["why"]:
            _print_why(ran)
        if flags["measure"]:
            _print_measure(source, graph, steps, chip, options, tick)
        _deliver(last, flags)


@contextmanager
def opened(
    model: str, dims: tuple[str, ...], seed: int | None, inputs_file: str | None = None
) -> Iterator[tuple[Source, Graph, Examples]]:
    """Give a model, its graph as imported, and a function that makes inputs for it by number.

    Arrays in `inputs_file` bind dimensions by their shapes, and are the inputs of number `seed`.
    """
    from .. import api

    given = _arrays(inputs_file)
    with api.open_model(model, o.parse_dims(dims), execute_seed=seed) as source:
        graph = source.graph(None if given is None else {name: x.shape for name, x in given.items()})
        yield source, graph, _first(graph, given, seed, partial(source.inputs, graph))


def _arrays(file: str | None) -> dict[str, Any] | None:
    from ..files.npz import read_npz
    from ..program.inputs import input_arrays

    return None if file is None else dict(input_arrays(read_npz(file)))


def _first(graph: Graph, given: dict[str, Any] | None, seed: int | None, others: Examples) -> Examples:
    """Return a function that gives what was given for the first number, and what others give for the rest."""
    if given is None:
        return others
    for name, kind in graph.inputs.items():
        if name not in given or given[name].shape != kind.shape:
            given_shape = f"{list(given[name].shape)}" if name in given else "nothing"
            raise UserError(f"--inputs gives {given_shape} for %{name} : {kind}")
    first = {name: given[name] for name in graph.inputs}
    return lambda number: first if number == (seed or 0) else others(number)


def _pipeline(graph: Graph, chip: Chip, options: Options) -> tuple[Pass, ...]:
    from mtia_emu.compiler.formats import choose_format, format_text
    from mtia_emu.compiler.pass_text import steps_of
    from mtia_emu.compiler.passes.set_precision import own_dtype
    from mtia_emu.compiler.pipeline import default_steps

    own = own_dtype(graph)
    form = choose_format(own, chip, format_text(options))
    return steps_of(default_steps(own, form, chip, options.routing), options.passes).all


def _refuse_unknown_shown(shown: tuple[str, ...], steps: tuple[Pass, ...]) -> None:
    from ..errors import refuse_unknown

    for name in shown:
        if name != "all" and name not in {step.name for step in steps}:
            raise refuse_unknown("pass of --print-after", name, {"all", *(step.name for step in steps)})


def _watched(graph: Graph, steps: tuple[Pass, ...], shown: tuple[str, ...]) -> list[PassRun]:
    """Run the passes; print to stderr the graphs that were asked for."""
    from mtia_emu.compiler import text
    from mtia_emu.compiler.watch import watch

    ran = []
    for record in watch(graph, steps):
        ran.append(record)
        if "all" in shown or record.step.name in shown:
            say(
                f"# after {record.step.spelling}\n{text.dump(record.after, digests=False)}",
                err=True,
                nl=False,
            )
    return ran


def _draw(graph: Graph, path: str) -> None:
    from ..study.drawings import graph_drawing
    from ..view.drawing import draw

    drawing = graph_drawing(graph)
    left_out = draw(drawing, path)
    rest = f"; {left_out} further ones are left out" if left_out else ""
    say(f"{path}: {len(drawing.boxes) - left_out} boxes{rest}", err=True)


def _deliver(graph: Graph, flags: dict[str, Any]) -> None:
    if flags["output"] is not None:
        from mtia_emu.compiler.graph_file import write_graph

        files = write_graph(flags["output"], graph)
        say(f"{' and '.join(files)}: {len(graph.nodes)} nodes", err=True)
    elif not flags["quiet"]:
        from mtia_emu.compiler import text

        say(text.dump(graph), nl=False)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from ..view.terminal import print_table

    print_table(title, columns, rows, console(err=True))


def _print_stats(ran: list[PassRun]) -> None:
    from mtia_emu.compiler.watch import changes

    rows = []
    for index, record in enumerate(ran, 1):
        moved = ", ".join(
            f"{op} {new - old:+d}" for op, (old, new) in changes(record.before, record.after).items()
        )
        nodes = f"{len(record.before.nodes)} -> {len(record.after.nodes)}"
        fired = str(record.fired) if record.outcomes else ""
        rows.append([str(index), record.step.spelling, nodes, fired, f"{record.seconds * 1e3:.0f} ms", moved])
    _table("passes", ["", "pass", "nodes", "rewrites", "time", "change by op"], rows)


def _print_why(ran: list[PassRun]) -> None:
    rows = []
    for index, record in enumerate(ran, 1):
        for x in record.skipped:
            rows.append([str(index), record.step.name, x.rule, x.op, str(x.times), x.reason, x.node])
    columns = ["", "pass", "rule", "op", "times", "why", "first at"]
    _table("rules that did not fire", columns, rows)


def _print_measure(
    source: Source, graph: Graph, steps: tuple[Pass, ...], chip: Chip, options: Options, tick: Any
) -> None:
    from ..api import example_lookups
    from ..study.measure import COLUMNS, measure, rows

    lookups = partial(example_lookups, source)
    table = list(rows(measure(graph, steps, chip, options, lookups=lookups, progress=tick)))
    _table(f"{graph.name} on {chip.name}", COLUMNS, table)


def _verify(
    graph: Graph,
    steps: tuple[Pass, ...],
    examples: Examples,
    flags: dict[str, Any],
    tick: Any,
) -> int:
    """Hold each pass to the graph that it was given, on so many inputs; say which is off, and exit 1."""
    from ..testing.judge import samples_for
    from ..testing.verify import first_fault, with_weights

    full = with_weights(graph, flags["seed"])
    inputs = samples_for(full, flags["seed"], examples)
    fault = first_fault(full, steps, inputs, flags["tolerance"], tick)
    if fault is None:
        return len(inputs)
    message = f"pass {fault.index + 1}, {fault.step.spelling}: {fault.what}"
    say(f"wrong: {message}", err=True)
    if flags["bisect"]:
        from ..testing.verify import narrow

        culprit = narrow(fault, full, inputs, flags["tolerance"])
        say(f"rewrite {culprit.number} of {culprit.rewrites}: {culprit.node or 'the whole pass'}", err=True)
        say(culprit.diff, err=True)
    sys.stdout.flush()
    sys.exit(EXIT_CHECK_FAILED)


def _verified(ran: list[PassRun], samples: int) -> str:
    """Return what to say of passes that are right: also which of them had nothing to do, by `name.number`."""
    names = [record.step.name for record in ran]
    numbered = [
        f"{name}.{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    idle = [name for name, record in zip(numbered, ran, strict=True) if not record.changed]
    passes = f"{len(ran)} passes keep" if len(ran) != 1 else "1 pass keeps"
    rest = f"; {len(idle)} of {len(ran)} changed nothing: {', '.join(idle)}" if idle else ""
    return f"verified: {passes} the results on {samples} random inputs{rest}"
