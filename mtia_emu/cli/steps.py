"""The command `mtia-emu steps`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import options as o
from .output import console, progress, say

if TYPE_CHECKING:
    from ..results.machine import Machine
    from ..serving.step_table import GroupedSteps, ServingStep
    from ..study.step_anchors import ServedModel
    from ..study.step_check import CheckedStep

HULL = {  # the least, the default and the meaning of each
    "tokens": (16, 2048, "Most tokens of a step, and of one prompt's chunk in it."),
    "decodes": (1, 256, "Most sequences that decode in a step."),
    "context": (16, 8192, "Most keys of a sequence."),
}


def _hull(name: str) -> o.Decorator:
    least, default, text = HULL[name]
    kind = click.IntRange(least, 1 << 20)
    return click.option(f"--{name}", type=kind, metavar="INT", default=default, show_default=True, help=text)


@click.command(short_help="Make or print a table of what serving steps take.")
@o.MODEL
@o.options(o.CHIP, o.SET)
@click.option("--gpu", metavar="NAME|FILE.toml", help="Make the table of a GPU instead of a chip.")
@click.option("--system", metavar="NAME|FILE.toml", help="Make it of a system, split by --parallel.")
@click.option(
    "--parallel",
    metavar="TEXT",
    default="tp=2",
    show_default=True,
    help="With --system: how the model is split, as in tp=4; not into stages.",
)
@click.option(
    "--dtype", metavar="TYPE", default="fp16", show_default=True, help="Number format to compile for."
)
@o.options(*map(_hull, HULL))
@click.option("-o", "--output", metavar="FILE.json", callback=o.target, help="Write the table.")
@click.option(
    "--check",
    type=click.IntRange(0, 1000),
    metavar="INT",
    default=0,
    help="Also compile so many random steps, and print how far the table is from them.",
)
@o.SEED
@o.JSON
def steps(model: str, **flags: Any) -> None:
    """Print what steps of a server of MODEL take: a decoder zoo:NAME or hf:FOLDER, or a table FILE.json.

    A step holds chunks of prompts and sequences that decode. Its anchors are compiled and timed in steady
    state; each cost between them says how far off it may be. Tables are kept on disk and read again.

    \b
    Examples:
      mtia-emu steps zoo:llama-3-8b -o llama.json
      mtia-emu steps zoo:llama-3-8b --gpu h100-sxm --tokens 1024
      mtia-emu steps zoo:llama-3-8b --system mtia-2i-server --parallel tp=4
      mtia-emu steps hf:Qwen3-8B --gpu h100-sxm
      mtia-emu steps llama.json
      mtia-emu steps zoo:llama-tiny --tokens 128 --decodes 16 --context 256 --check 6
    """
    _refuse_what_is_lost(model, flags)
    table, served = _table(model, flags)
    if flags["output"]:
        from ..serving.step_table_file import write_table

        write_table(flags["output"], table)
    if flags["json_file"]:
        _write_json(table, flags["json_file"])
    if flags["json_file"] == "-":
        return
    _print(table)
    if flags["check"] and served is not None:
        _print_checks(_checked(served, table, flags))


def _refuse_what_is_lost(model: str, flags: dict[str, Any]) -> None:
    """Refuse flags that say nothing of what is asked, before anything is made or written."""
    from ..sources import HF, ZOO

    if flags["check"] and flags["json_file"] == "-":
        raise UserError("--check prints tables, --json - the step table alone (right: one of them)")
    if model.startswith(ZOO):
        return
    if flags["check"]:
        raise UserError(
            "--check compiles steps of the zoo's decoders, not of a file or checkpoint (right: zoo:NAME)"
        )
    if model.startswith(HF):
        return
    for name in ("chip", "settings", "gpu", "system"):
        if flags[name]:
            flag = "--set" if name == "settings" else f"--{name}"
            raise UserError(f"{flag} is given with a step table, which has its machine (right: zoo:NAME)")


def _table(model: str, flags: dict[str, Any]) -> tuple[GroupedSteps, ServedModel | None]:
    from ..serving.step_table_file import read_table
    from ..sources import WRITTEN, ZOO

    if not model.startswith(WRITTEN):
        return read_table(model), None
    from ..options import Options
    from ..study.kept_tables import kept_table
    from ..study.step_anchors import ServedModel
    from ..study.step_tables import Hull, silent

    served = ServedModel(model.removeprefix(ZOO), machine_of(flags), Options(dtype=flags["dtype"]))
    hull = Hull(flags["tokens"], flags["decodes"], flags["context"])
    with progress() as tick:
        table = kept_table(
            served.asked, served.machine, hull, options=served.options, progress=tick or silent
        )
    return table, served


def machine_of(flags: dict[str, Any]) -> Machine:
    """Return the machine that --chip and --set, --gpu, or --system and --parallel say."""
    from ..gpu import load_gpu
    from ..machine.chip import load_chip
    from ..study.accelerator import Accelerator

    settings = o.parse_settings(flags["settings"])
    given = [f"--{name}" for name in ("chip", "gpu", "system") if flags[name] is not None]
    if len(given) > 1 or (settings and flags["gpu"] is not None):
        raise UserError(
            f"{' and '.join([*given, *['--set'] * bool(settings)])} are given (right: one machine)"
        )
    if flags["system"] is not None:
        return _system(flags["system"], flags["parallel"], settings)
    if flags["gpu"] is not None:
        return load_gpu(flags["gpu"])
    return Accelerator(load_chip(flags["chip"] or DEFAULT_CHIP, settings))


def _system(name: str, parallel: str, settings: dict[str, object]) -> Machine:
    from mtia_emu.compiler.partition.mesh import parse_parallel

    from ..study.system_machine import SystemMachine
    from ..system.load import changed_system

    return SystemMachine(changed_system(name, settings), parse_parallel(parallel), settings)


def _checked(served: ServedModel, table: GroupedSteps, flags: dict[str, Any]) -> list[CheckedStep]:
    from ..study.step_check import check_steps

    with progress() as tick:
        found = []
        for i, one in enumerate(check_steps(served, table, flags["check"], flags["seed"])):
            found.append(one)
            if tick:
                tick("checked", i + 1, flags["check"])
    return found


def _write_json(table: GroupedSteps, to: str) -> None:
    from ..files.writing import json_text, write_json
    from ..serving.step_table_file import as_json

    if to == "-":
        say(json_text(as_json(table)), nl=False)
    else:
        write_json(to, as_json(table))


def _print(table: GroupedSteps) -> None:
    from ..view import units
    from ..view.terminal import print_table

    f, most = table.facts, table.limits
    rows = [
        ["memory", units.size(f.memory_bytes)],
        ["weights", units.size(f.weight_bytes)],
        ["activations of a step, in DRAM", units.size(f.activation_bytes)],
        ["keys and values of a token", units.size(f.kv_bytes_per_token)],
        ["between steps", _known(f.idle_w, units.watts)],
        ["most tokens of a step", f"{most.tokens:,}"],
        ["most sequences", f"{most.sequences:,}"],
        ["longest context", f"{most.context:,}"],
    ]
    print_table(f"{f.model} on {f.machine}, {f.dtype}: {f.source}", ["", ""], rows, console())
    columns = ["prompts", "decodes", "time", "energy", "power", "error up to"]
    print_table("Steps", columns, [_row(table, step) for step in _examples(table)], console())


def _examples(table: GroupedSteps) -> list[ServingStep]:
    """Return steps from the table's inside: decodes, prompts, and both together."""
    from ..serving.step_table import ServingStep

    most = table.limits
    context, few, many = max(most.context // 8, 1), max(most.decodes // 4, 1), most.decodes
    chunk, whole = max(most.chunk_tokens // 4, 1), most.chunk_tokens
    return [
        ServingStep((), (context,)),
        ServingStep((), (context,) * few),
        ServingStep((), (context,) * many),
        ServingStep(((chunk, 0),)),
        ServingStep(((whole, 0),)),
        ServingStep(((whole, most.past_tokens // 2),)),
        ServingStep(((chunk, 0),), (context,) * few),
    ]


def _row(table: GroupedSteps, step: ServingStep) -> list[str]:
    from ..view import units

    cost = table.step(step)
    prompts = ", ".join(f"{chunk:,} after {past:,}" for chunk, past in step.prefills)
    decodes = f"{len(step.contexts)} of {step.contexts[0]:,}" if step.contexts else ""
    watts = _known(cost.joules / cost.seconds, units.watts)
    joules = _known(cost.joules, units.joules)
    return [prompts, decodes, units.seconds(cost.seconds), joules, watts, f"{cost.error_share:.1%}"]


def _known(value: float, shown: Callable[[float], str]) -> str:
    return "not known" if math.isnan(value) else shown(value)


def _print_checks(found: list[CheckedStep]) -> None:
    from ..view import units
    from ..view.terminal import print_table

    rows = []
    for x in found:
        prompts = ", ".join(f"{chunk:,} after {past:,}" for chunk, past in x.step.prefills)
        groups = Counter(x.step.contexts).items()
        decodes = ", ".join(f"{n} of {context:,}" for context, n in groups)
        times = [units.seconds(x.predicted.seconds), units.seconds(x.seconds)]
        rows.append([prompts, decodes, *times, f"{x.error:+.1%}", f"{x.joules_error:+.1%}"])
    columns = ["prompts", "decodes", "predicted", "compiled", "time off", "energy off"]
    print_table("Steps compiled as one graph", columns, rows, console())
    kinds = []
    for kind in dict.fromkeys(x.kind for x in found):
        off, joules = (
            sorted(abs(getattr(x, name)) for x in found if x.kind == kind)
            for name in ("error", "joules_error")
        )
        kinds.append([kind, f"{len(off)}", *(f"{x:.2%}" for e in (off, joules) for x in (median(e), e[-1]))])
    columns = ["kind", "steps", "time: median", "worst", "energy: median", "worst"]
    print_table("How far off", columns, kinds, console())
