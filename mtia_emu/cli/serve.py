"""The command `mtia-emu serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UserError
from . import options as o
from .output import console, progress, say

if TYPE_CHECKING:
    from ..serving.load import Load
    from ..serving.served import ServedLoad
    from ..serving.simulate import Service
    from ..serving.step_table import GroupedSteps
    from ..serving.trade import ServingWay

MOST = 1 << 24
REQUESTS = 2000  # made up where no trace is given
ROUTES = ("round-robin", "least-loaded", "prefix-aware")


def _count(name: str, text: str, default: int | None = None, least: int = 1) -> o.Decorator:
    return click.option(
        name, type=click.IntRange(least, MOST), metavar="INT", default=default, help=text,
        show_default=default is not None,
    )  # fmt: skip


def _number(name: str, text: str, default: float | None = None) -> o.Decorator:
    return click.option(
        name, type=float, metavar="FLOAT", default=default, help=text, show_default=default is not None
    )


def _switch(name: str, text: str) -> o.Decorator:
    return click.option(name, is_flag=True, help=text)


SERVER = (
    o.CHIP, o.SET,
    click.option("--gpu", metavar="NAME|FILE.toml", help="Serve on a GPU instead of a chip."),
    click.option("--system", metavar="NAME|FILE.toml",
                 help="Serve on a system, an engine split by --parallel."),
    click.option("--parallel", metavar="TEXT", default="tp=2", show_default=True,
                 help="With --system: how the model is split, as in tp=4; not into stages."),
    click.option("--dtype", metavar="TYPE", default="fp16", show_default=True,
                 help="Number format to compile for."),
    _count("--context", "Longest context that a table of the chip is made for.", 8192, least=16),
    click.option("--table", metavar="FILE.json",
                 help="Serve by this step table, that `mtia-emu steps` or you wrote."),
    _count("--engines", "Engines, each with all of the model.", 1),
    _count("--chips-per-engine", "Chips of an engine; 1, or those of --parallel."),
    click.option(
        "--route",
        type=click.Choice(ROUTES),
        default="least-loaded",
        show_default=True,
        help="Which engine a request goes to.",
    ),
    _count("--prefill-engines", "Engines that only compute prompts; --engines then only decode."),
    _number("--link", "Bytes a second at which such an engine hands caches over; over the links of --system, "
            "or 50e9, if not given."),
    _number("--link-latency", "Seconds before the first byte."),
)  # fmt: skip
ENGINE = (
    _count("--max-sequences", "Most sequences that run; 256, or what the table knows."),
    _count("--token-budget", "Most tokens of a step; 2048, or what the table knows."),
    _count("--block-tokens", "Tokens of a block of the cache.", 16),
    _count("--blocks", "Blocks of the cache, in place of what memory leaves."),
    _number("--memory-share", "Share of memory that may be used.", 0.9),
    _number("--reserve", "Bytes of memory kept free.", 0.0),
    _number("--gap", "Seconds a device waits for its host between steps; as measured of vLLM if not given."),
    _switch("--no-prefix-cache", "Compute every prompt whole."),
    _switch("--no-chunks", "Compute a prompt in one step or not at all."),
    _switch("--reserve-prompt", "Admit a prompt only when all of it has room in the cache."),
    _switch("--not-ahead", "Put a step together when the one before it has ended."),
    _switch("--static", "Batch statically: nobody comes in until all have ended."),
)
LOAD = (
    click.option("--trace", metavar="FILE", help="Trace file: CSV or JSON lines, maybe .gz."),
    click.option("--rate", metavar="FLOAT|max", help="Requests a second; `max` finds the greatest at --slo."),
    click.option(
        "--input-tokens", metavar="INT|FILE.csv", default="512", show_default=True,
        help="Tokens of prompts without a trace: a number, or a histogram.",
    ),
    click.option(
        "--output-tokens", metavar="INT|FILE.csv", default="128", show_default=True,
        help="Tokens of answers without a trace.",
    ),
    _number("--cv", "Coefficient of variation of the gaps between arrivals, 0 for even ones.", 1.0),
    _number("--peak", "Arrivals of a day: the peak's rate, 1 to 2 times the mean."),
    _number("--period", "Seconds of such a day.", 86400.0),
    _count("--concurrency", "Closed loop: so many requests are open at any time."),
    _count("--requests", f"Requests: the first of a trace, or made up ({REQUESTS})."),
    o.SEED,
    click.option("--slo", metavar="ttft=S,tpot=S,...", help="Service level: limits in seconds of ttft, tpot, "
                 "e2e, and the share of requests that must keep them (0.99)."),
)  # fmt: skip
LENGTHS = ("input_tokens", "output_tokens")
MADE_BY = {
    "trace": (),
    "concurrency": LENGTHS,
    "peak": (*LENGTHS, "peak", "period"),
    "rate": (*LENGTHS, "cv"),
}
VARIED = (
    *(
        "chip",
        "gpu",
        "system",
        "parallel",
        "table",
        "dtype",
        "engines",
        "prefill-engines",
        "link",
        "route",
        "max-sequences",
    ),
    *("token-budget", "block-tokens", "blocks", "memory-share", "gap", "trace", "rate", "input-tokens"),
    *("output-tokens", "cv", "concurrency", "seed"),
)
OVER = click.option(
    "--over", multiple=True, metavar="FLAG=V,V",
    help="Serve in several ways and print them side by side: one of each combination of values, as in "
    f"--over engines=1,2 --over rate=4,8; flags: {', '.join(VARIED)}.",
)  # fmt: skip
WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), default=1, show_default=True,
    help="Processes that --over runs on; the answers are the same.",
)  # fmt: skip
SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Run --over on the dask cluster there, as in tcp://host:8786."
)
FILES = (
    _switch("--bounds", "Serve twice more: all steps as fast, and as slow, as their errors allow."),
    o.JSON,
    click.option("-o", "--output", metavar="FILE.html", callback=o.target, help="Write the run as a page."),
    click.option("--trace-out", metavar="FILE", callback=o.target,
                 help="Write every step for ui.perfetto.dev; compressed where FILE ends in .gz."),
)  # fmt: skip


@click.command(short_help="Serve requests over time: latencies, rates, joules.")
@click.argument("model", shell_complete=o.complete("model"))
@o.options(*SERVER, *LOAD, *ENGINE, OVER, WORKERS, SCHEDULER, *FILES)
def serve(model: str, **flags: Any) -> None:
    """Serve requests to MODEL, a decoder zoo:NAME or hf:FOLDER, by the rules of vLLM's scheduler.

    Requests come from a trace file or by a law; each step takes what the step table says. Prints latencies
    with 95% intervals, throughput, energy, and how full the engines were.

    \b
    Examples:
      mtia-emu serve zoo:llama-3-8b --chip mtia-2i --trace examples/requests.csv
      mtia-emu serve zoo:llama-3-8b --gpu h100-sxm --rate max --slo ttft=0.5,tpot=0.05 -o out.html
      mtia-emu serve zoo:llama-3-8b --system mtia-2i-server --parallel tp=4 --rate 4
      mtia-emu serve toy-decoder --table examples/step-table.json --rate 2 --requests 200
      mtia-emu serve toy-decoder --table examples/step-table.json --concurrency 8 --json -
      mtia-emu serve toy-decoder --table examples/step-table.json --over concurrency=1,4,16
    """
    _refuse_unread(flags)
    if not flags["over"]:
        if flags["scheduler"] is not None:
            raise UserError("--scheduler is for --over: one run is one process (right: with --over)")
        _deliver(_served(_table(model, flags), flags), flags)
        return
    from ..serving.trade import ServingWay
    from .served_ways import all_served
    from .ways import ways

    if flags["trace_out"] is not None:
        raise UserError("--trace-out is of one run (right: without --over)")
    if flags["scheduler"] is not None and flags["workers"] > 1:
        raise UserError("--workers and --scheduler are two ways to run (right: one of the two)")
    each = ways(flags["over"], VARIED)
    asked = [flags | changed for _, changed in each]
    where = {name: flags[name] for name in ("workers", "scheduler")}
    found = all_served(_table, _way, model, asked, **where)
    _deliver_ways([ServingWay(chosen, one) for (chosen, _), one in zip(each, found, strict=True)], flags)


def _refuse_unread(flags: dict[str, Any]) -> None:
    """Refuse a flag of made-up requests that the load at hand does not read."""
    load = next((f for f in ("trace", "concurrency", "peak") if flags[f] is not None), "rate")
    source = click.get_current_context().get_parameter_source
    for flag in ("input_tokens", "output_tokens", "cv", "peak", "period"):
        if flag not in MADE_BY[load] and source(flag) is not ParameterSource.DEFAULT:
            right = "with --peak" if flag == "period" else "one of the two"
            raise UserError(f"--{flag.replace('_', '-')} does not go with --{load} (right: {right})")


def _way(table: GroupedSteps, flags: dict[str, Any]) -> dict[str, Any]:
    """Return how one way to serve went, as JSON."""
    from ..serving.answers_json import as_json
    from .served_ways import kept_way

    return kept_way(
        _service(table, flags), _load(flags), flags, compute=lambda: as_json(_served(table, flags))
    )


def _served(table: GroupedSteps, flags: dict[str, Any]) -> ServedLoad:
    from ..serving.served import serve as served_by

    service, load = _service(table, flags), _load(flags)
    rate = _rate(flags) if flags["trace"] or _finds(flags) else None
    with progress() as tick:
        return served_by(service, load, flags["slo"], rate=rate, bounds=flags["bounds"], progress=tick)


def _finds(flags: dict[str, Any]) -> bool:
    return flags["rate"] == "max"


def _rate(flags: dict[str, Any]) -> Any:
    """Return the rate that a flag says: a number, "max" or None."""
    text = flags["rate"]
    if text is None or text == "max":
        return text
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--rate {text[:40]!r}: right is requests a second, or max") from None


def _table(model: str, flags: dict[str, Any]) -> GroupedSteps:
    """Return the step table of a file, or that of the model on the chip or GPU: made, if it is not kept."""
    from ..serving.step_table_file import read_table
    from ..sources import WRITTEN, ZOO

    if flags["table"] is not None:
        if flags["chip"] or flags["gpu"] or flags["system"] or flags["settings"]:
            raise UserError("--table is given with --chip, --set, --gpu or --system (right: one of them)")
        return read_table(flags["table"], model.removeprefix(ZOO))
    if not model.startswith(WRITTEN):
        raise UserError(
            f"{model[:80]}: right is a decoder zoo:NAME or hf:FOLDER, or --table FILE.json of its steps"
        )
    from ..options import Options
    from ..study.kept_tables import kept_table
    from ..study.step_tables import Hull, silent
    from .handover import handover_of
    from .steps import machine_of

    _rate(flags)  # a wrong one is refused before steps are compiled
    handover_of(flags)
    hull = Hull(flags["token_budget"] or 2048, flags["max_sequences"] or 256, flags["context"])
    options = Options(dtype=flags["dtype"])
    with progress() as tick:
        return kept_table(
            model.removeprefix(ZOO), machine_of(flags), hull, options=options, progress=tick or silent
        )


def _service(table: GroupedSteps, flags: dict[str, Any]) -> Service:
    from ..serving.served import fitted
    from ..serving.simulate import Service
    from .handover import handover_of

    given = {"max_sequences": flags["max_sequences"], "token_budget": flags["token_budget"]}
    rules = _rules(flags, {name: value for name, value in given.items() if value is not None})
    if None in given.values():
        small = fitted(rules, table.limits)
        rules = _rules(flags, {n: given[n] or getattr(small, n) for n in given})
    return Service(
        table,
        rules,
        flags["engines"],
        flags["route"],
        flags["chips_per_engine"] or _chips(flags),
        flags["memory_share"],
        _bytes(flags["reserve"]),
        flags["blocks"],
        handover_of(flags),
    )


def _chips(flags: dict[str, Any]) -> int:
    if flags["system"] is None:
        return 1
    from mtia_emu.compiler.partition.mesh import parse_parallel

    return parse_parallel(flags["parallel"]).chips


def _bytes(value: float) -> int:
    if not 0 <= value < 1e18:
        raise UserError(f"--reserve {value}: right is a number of bytes, 0 or more")
    return int(value)


def _rules(flags: dict[str, Any], sizes: dict[str, int]) -> Any:
    from ..serving.rules import EngineRules

    budget = sizes.get("token_budget", EngineRules.token_budget)
    sizes = {"max_sequences": min(256, budget), **sizes}
    return EngineRules(
        **sizes,
        block_tokens=flags["block_tokens"],
        chunked_prefill=not flags["no_chunks"],
        prefix_caching=not flags["no_prefix_cache"],
        reserve_full_prompt=flags["reserve_prompt"],
        ahead=not flags["not_ahead"],
        static=flags["static"],
        gap_s=flags["gap"],
    )


def _load(flags: dict[str, Any]) -> Load:
    """Return the requests: of a trace, or made up."""
    from dataclasses import replace

    from ..serving.traces import read_trace

    if flags["concurrency"] is not None and flags["rate"] is not None:
        raise UserError("--concurrency and --rate: right is one of them; a closed loop has no rate")
    if flags["trace"] is None:
        return _made_up(flags)
    load = replace(read_trace(flags["trace"]), concurrency=flags["concurrency"])
    return load if flags["requests"] is None else load.first(flags["requests"])


def _made_up(flags: dict[str, Any]) -> Load:
    from ..serving.arrivals import closed_loop, diurnal, gamma, synthetic
    from ..serving.length_files import parse_lengths

    count, seed = flags["requests"] or REQUESTS, flags["seed"]
    inputs, outputs = parse_lengths(flags["input_tokens"]), parse_lengths(flags["output_tokens"])
    if flags["concurrency"] is not None:
        return closed_loop(flags["concurrency"], count, inputs, outputs, seed)
    rate = _rate(flags)
    if rate is None:
        raise UserError(
            "there is no load (right: --trace FILE, --rate FLOAT, --rate max or --concurrency INT)"
        )
    mean = 1.0 if rate == "max" else rate
    if flags["peak"] is not None:
        times = diurnal(mean, count, peak_to_mean=flags["peak"], period_s=flags["period"], seed=seed)
        name = f"a day with a peak of {flags['peak']:g} times the mean"
    else:
        times = gamma(mean, count, flags["cv"], seed)
        name = "arrivals without memory" if flags["cv"] == 1 else f"gaps with a variation of {flags['cv']:g}"
    return synthetic(name, times, inputs, outputs, seed)


def _deliver(served: ServedLoad, flags: dict[str, Any]) -> None:
    from ..files.writing import json_text, write_json
    from ..serving.answers_json import as_json

    if flags["output"] is not None:
        from ..serving.report_page import write_report

        write_report(flags["output"], served)
    if flags["trace_out"] is not None:
        from ..serving.engine_trace import write_run

        write_run(flags["trace_out"], served.log)
    if flags["json_file"] == "-":
        say(json_text(as_json(served)), nl=False)
        return
    if flags["json_file"] is not None:
        write_json(flags["json_file"], as_json(served))
    _print(served)


def _deliver_ways(found: list[ServingWay], flags: dict[str, Any]) -> None:
    from ..files.writing import json_text, write_json
    from ..serving.trade import MEANING, columns, rows, ways_json, write_ways
    from ..view.terminal import print_table

    if flags["output"] is not None:
        write_ways(flags["output"], found)
    if flags["json_file"] == "-":
        say(json_text(ways_json(found)), nl=False)
        return
    if flags["json_file"] is not None:
        write_json(flags["json_file"], ways_json(found))
    print_table(f"{found[0].model}: {MEANING}", columns(found), rows(found), console())


def _print(served: ServedLoad) -> None:
    from ..serving.printed import BOUNDS, LATENCY, bounds_rows, flow_rows, latency_rows, verdict
    from ..view.terminal import print_table

    table, found = served.service.table, served.answers
    title = f"{table.model} on {table.machine}: {served.load.name}"
    print_table(title, LATENCY, latency_rows(found), console())
    print_table("throughput, energy, fullness", ["what", "value", "remark"], flow_rows(found), console())
    if served.bounds is not None:
        print_table("between the errors of its steps", BOUNDS, bounds_rows(served), console())
    say(verdict(served))
