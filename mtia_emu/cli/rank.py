"""The command `mtia-emu rank`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from . import options as o
from .output import console, progress, say

if TYPE_CHECKING:
    from ..results.machine import Machine
    from ..serving.ranking import RankingJobs, RankingLoad, RankingRun, RankingService


@click.command(short_help="Serve recommendation requests on a server of chips.")
@click.argument("service", metavar="SERVICE.toml")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key; may be repeated.")
@click.option(
    "--rate",
    metavar="FLOAT|max",
    help="Requests a second instead of the file's; max: the most that keep the promise.",
)
@o.JSON
def rank(service: str, **flags: Any) -> None:
    """Serve requests that rank candidates, as SERVICE.toml describes them, and print how long they take.

    Requests are coalesced in windows; a batch is remote jobs on the chips of its shards and one merge job,
    with hops through the host between. Jobs have the times that the file gives, or those of a graph on a
    machine, compiled and run. --set names a key of the file, model.KEY that of every model.

    \b
    Examples:
      mtia-emu rank examples/ranking-2-chips.toml
      mtia-emu rank examples/ranking-2-chips.toml --set model.remote_jobs=1
      mtia-emu rank examples/ranking-2-chips.toml --rate max --json -
      mtia-emu rank examples/ranking-mc2.toml --rate max
      mtia-emu rank examples/ranking-mc2.toml --set 'model.machine="mtia-300"' --set load.rate_per_s=9000
    """
    from ..serving.ranking_form import read_ranking
    from ..serving.ranking_queue import serve_ranking

    what, load = read_ranking(service, _settings(flags["settings"]), _jobs)
    if flags["rate"] == "max":
        load, run = _greatest(what, load)
    else:
        load = replace(load, rate_per_s=_rate(flags["rate"], load.rate_per_s))
        run = serve_ranking(what, load)
    value = _as_json(what, load, run)
    if flags["json_file"] is not None:
        _write(value, flags["json_file"])
    if flags["json_file"] != "-":
        _print(what, value)


def _jobs(graph: str, machine: str, candidates: tuple[int, ...]) -> RankingJobs:
    """Return what the jobs of a graph take on a chip or a GPU."""
    from ..gpu import gpu_names, load_gpu
    from ..machine.chip import load_chip
    from ..study.accelerator import Accelerator
    from ..study.ranking_jobs import ranking_jobs

    what: Machine = load_gpu(machine) if machine in gpu_names() else Accelerator(load_chip(machine))
    return ranking_jobs(graph, what, candidates)


def _settings(texts: tuple[str, ...]) -> dict[str, object]:
    from ..errors import UserError
    from ..files.toml import parse

    found: dict[str, object] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or "\n" in value:
            raise UserError(f"--set is {text[:60]!r} (right: KEY=VALUE, as in model.remote_jobs=1)")
        found[key.strip()] = parse(f"value = {value}", f"--set {text[:60]}")["value"]
    return found


def _rate(text: str | None, default: float) -> float:
    from ..errors import UserError

    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise UserError(f"--rate is {text!r} (right: requests a second above 0, or max)")
    return value


def _greatest(what: RankingService, load: RankingLoad) -> tuple[RankingLoad, RankingRun]:
    from ..serving.ranking_queue import MOST_STEPS, greatest_ranking_rate

    with progress() as tick:

        def tried(runs: int) -> None:
            if tick:
                tick("rates", runs, MOST_STEPS)

        rate, run = greatest_ranking_rate(what, load, tried)
    return replace(load, rate_per_s=rate), run


def _as_json(what: RankingService, load: RankingLoad, run: RankingRun) -> dict[str, Any]:
    models = []
    for i, model in enumerate(what.models):
        own = run.latencies_s[run.model == i]
        quantiles = {f"p{int(q * 100)}_s": run.quantile(q, i) for q in (0.5, 0.9, 0.99)} if len(own) else {}
        models.append({"name": model.name, "requests": len(own), **quantiles})
    return {
        "schema": "mtia-emu.ranking.v1",
        "slo_s": what.slo_s,
        "rate_per_s": load.rate_per_s,
        "requests_per_s": run.requests_per_s,
        "kept": run.quantile(0.99) <= what.slo_s,
        **{f"p{int(q * 100)}_s": run.quantile(q) for q in (0.5, 0.9, 0.99)},
        "models": models,
        "batches": run.batches,
        "fill": run.fill,
        "chips_busy_share": list(run.busy_share),
        "cores_busy_share": run.cores_share,
        "host_memory_busy_share": run.host_share,
        "network_busy_share": run.network_share,
    }


def _print(what: RankingService, value: dict[str, Any]) -> None:
    from ..view import units
    from ..view.terminal import print_table

    kept = "kept" if value["kept"] else "broken"
    rows = [
        ["requests a second, asked", f"{value['rate_per_s']:,.0f}"],
        ["requests a second, answered", f"{value['requests_per_s']:,.0f}"],
        ["promise", f"{units.seconds(what.slo_s)} at P99: {kept}"],
        ["batches", f"{value['batches']:,}, {value['fill']:.0%} full"],
    ]
    busy = [f"{x:.0%}" for x in value["chips_busy_share"]]
    rows.append(["chips busy", ", ".join(busy[:8]) + (", ..." if len(busy) > 8 else "")])
    for name in ("cores", "host_memory", "network"):
        rows.append([f"{name.replace('_', ' ')} busy", f"{value[f'{name}_busy_share']:.0%}"])
    print_table("Service", ["", ""], rows, console())
    each = [{"name": "all", "requests": sum(m["requests"] for m in value["models"]), **value}]
    lines = [
        [m["name"], f"{m['requests']:,}", *(units.seconds(m[f"p{q}_s"]) for q in (50, 90, 99))]
        for m in [*value["models"], *each]
        if m["requests"]
    ]
    print_table("Latency", ["model", "requests", "P50", "P90", "P99"], lines, console())


def _write(value: dict[str, Any], to: str) -> None:
    from ..files.writing import json_text, write_json

    if to == "-":
        say(json_text(value), nl=False)
    else:
        write_json(to, value)
