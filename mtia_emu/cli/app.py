"""The command line. Heavy imports happen inside commands, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from mtia_emu.compiler.stages import STAGES

from .. import __version__
from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import area as cli_area
from . import collective as cli_collective
from . import options as o
from . import sweep as cli_sweep
from .chips import chips
from .completion import completion
from .conformance import conformance
from .diff import diff
from .draw import timeline
from .explain import explain
from .fleet import fleet
from .fuzz import fuzz
from .groups import GREETING
from .import_ import import_
from .lists import gpus, zoo
from .opt import opt
from .output import CommandGroup, deliver, progress, say, say_notes
from .plan import plan
from .rank import rank
from .reduce import reduce
from .serve import serve
from .shard import shard
from .steps import steps
from .train import train

if TYPE_CHECKING:
    from mtia_emu.compiler.graph import Graph
    from mtia_emu.compiler.lower.steps import Schedule

    from ..machine.chip import Chip
    from ..program.isa import Program

SHOWN = {stage.at: stage.shown for stage in STAGES if stage.at}
MAPPINGS = "mappings"  # what `show --at` prints besides


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="mtia-emu")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Compile ONNX models for an MTIA-like accelerator; run the program; read cycles, traffic and joules.

    \b
    Examples:
      mtia-emu run zoo:llama-3-8b --dim seq=2048 --chip mtia-2i
      mtia-emu run model.onnx --inputs io.npz --check
      mtia-emu run model.onnx --set dram.channels=32 --json -
      mtia-emu gemm 2048 2048 2048 --dtype int8 --place sram

    \b
    Exit codes: 0 done, 1 the check failed, 2 something given is wrong.
    Shell completion: mtia-emu completion --install
    """
    if ctx.invoked_subcommand is None:
        say(GREETING, nl=False)


@main.command(short_help="Time, price and execute a model.")
@o.MODEL
@o.options(*o.RUN)
def run(model: str, **flags: Any) -> None:
    """Run MODEL: an ONNX file, hf:FOLDER, a graph's text FILE.ir, a compiled program, or zoo:NAME.

    hf:FOLDER is a transformers checkpoint, or its config.json alone; hf:FILE.gguf one of llama.cpp.

    Time and energy always; with --inputs or --check the program is executed as well. Weights that are not
    there are no obstacle to timing, only to execution.

    \b
    Examples:
      mtia-emu run zoo:dlrm-small --check
      mtia-emu run zoo:llama-3-8b --dim seq=1 --dim past=2048 --json -
      mtia-emu run hf:Qwen3-8B --dim seq=512
      mtia-emu run model.onnx --inputs io.npz --outputs out.npz
      mtia-emu run model.onnx --dim batch=8 --gpu none --trace trace.json
      mtia-emu run zoo:llama-3-8b --dim seq=1 --dim past=2048 --html run.html
      mtia-emu run zoo:llama-3-8b --system mtia-2i-server --parallel tp=4
    """
    from .. import api
    from ..program.inputs import read_inputs

    if flags["outputs"] and not (flags["check"] or flags["inputs"]):
        raise UserError("--outputs needs an execution: give --inputs IO.npz, or --check for random inputs")
    options = o.chosen(flags)
    over = options.of_many
    if over:
        _refuse_chip(model, flags["chip"])
    with progress() as tick:
        given: Any = {
            "settings": o.parse_settings(flags["settings"]),
            "dims": o.parse_dims(flags["dims"]),
            "inputs": read_inputs(flags["inputs"]),
            "gpu": _gpu(flags["gpu"]),
            "progress": tick,
            "options": options,
        }
        outcome = api.run_over(model, **given) if over else api.run(model, flags["chip"], **given)
    deliver(outcome, flags)


@main.command(short_help="Run one matrix product.")
@click.argument("m", type=click.IntRange(1, 1 << 24))
@click.argument("k", type=click.IntRange(1, 1 << 24))
@click.argument("n", type=click.IntRange(1, 1 << 24))
@o.options(*o.OPERATOR)
def gemm(m: int, k: int, n: int, **flags: Any) -> None:
    """Run one product of an M x K matrix by a K x N weight.

    \b
    Examples:
      mtia-emu gemm 2048 2048 2048 --place sram
      mtia-emu gemm 512 26592 2048 --dtype int8 --check
      mtia-emu gemm 1024 1024 1024 --chip systolic --gpu none \\
          --set pe.matrix.rows=128 --set pe.matrix.cols=128
    """
    from ..zoo.operators import Gemm

    _operator(lambda kind: Gemm(m, k, n, kind), flags)


def _refuse_chip(model: str, chip: str | None) -> None:
    """Refuse what has no meaning for a model that is split over a system."""
    from .. import api

    if chip is not None:
        raise UserError(f"--chip {chip}: a system says what its chips are (right: without --chip)")
    if api.is_program(model):
        raise UserError(f"{model} is compiled for one chip (right: the ONNX model with --system)")


SIZES = {  # of an embedding bag: the most of each, and what it is
    "tables": (1 << 16, "Embedding tables."),
    "rows": (1 << 31, "Rows of each table."),
    "dim": (1 << 16, "Elements of a row."),
    "pooling": (1 << 20, "Look-ups of each bag."),
    "batch": (1 << 24, "Bags of each table."),
}


def _size(name: str) -> o.Decorator:
    most, text = SIZES[name]
    return click.option(f"--{name}", type=click.IntRange(1, most), metavar="INT", required=True, help=text)


@main.command(short_help="Run one batched embedding bag.")
@o.options(*map(_size, SIZES))
@click.option(
    "--skew",
    metavar="uniform|zipf:A|histogram:NAME|FILE.csv",
    default="uniform",
    show_default=True,
    help="How look-ups spread over rows, where executed; histograms: dlrm-2021, dlrm-2022.",
)
@o.options(*o.OPERATOR)
def tbe(skew: str, **flags: Any) -> None:
    """Run one batched embedding bag, rows summed; int8 rows have a scale and an offset each.

    \b
    Examples:
      mtia-emu tbe --tables 8 --rows 1000000 --dim 128 --pooling 20 \\
          --batch 2048 --dtype int8
      mtia-emu tbe --tables 8 --rows 5000 --dim 64 --pooling 20 --batch 256 \\
          --skew zipf:1.05 --check
      mtia-emu tbe --tables 8 --rows 5000 --dim 64 --pooling 20 --batch 256 \\
          --skew histogram:dlrm-2022 --check
    """
    from ..zoo.operators import Tbe

    sizes = {name: flags[name] for name in SIZES}
    _operator(lambda kind: Tbe(**sizes, kind=kind, skew=skew), flags)


def _operator(of: Callable[[str], Any], flags: dict[str, Any]) -> None:
    """Write a model of one operator, `of` a type, then run it like any other."""
    from .. import api
    from ..sources import operator_source
    from ..types import FP16

    execute = bool(flags["check"] or flags["outputs"])
    chip, options = _chip(flags), o.chosen(flags)
    operator = of(options.dtype or FP16.name)  # what the chip does not multiply runs as the nearest
    if options.dtype == "int8":  # the model itself is in int8, and not to be quantised
        options = replace(options, dtype=None)
    seed = options.seed if execute else None
    with operator_source(operator, seed) as source, progress() as tick:
        outcome = api.run_source(
            source,
            chip,
            sample=execute,
            gpu=_gpu(flags["gpu"]),
            progress=tick,
            options=options,
        )
    deliver(outcome, flags)


@main.command("compile", short_help="Compile a model to a program file.")
@o.MODEL
@click.option(
    "-o", "--output", required=True, metavar="FILE", callback=o.target, help="Program file to write."
)
@o.options(*o.COMPILE, o.COMPILED_FOR)
def compile_(model: str, output: str, **flags: Any) -> None:
    """Compile MODEL to a program file, which holds the chip and the weights that there are.

    \b
    Example:
      mtia-emu compile zoo:llama-3-8b --dim seq=512 -o llama.mtia
      mtia-emu run llama.mtia
    """
    from .. import api
    from ..program.inputs import read_inputs

    with progress() as tick, api.open_model(model, o.parse_dims(flags["dims"])) as source:
        options, inputs = o.chosen(flags), read_inputs(flags["inputs"])
        compiled = api.compile_stages(source, _chip(flags), inputs=inputs, progress=tick, options=options)
        api.save_program(program := compiled.program, output)
    say_notes(compiled.onnx.notes)
    commands = sum(b.size for b in program.blocks)
    say(f"{output}: {len(program.launches)} launches of {len(program.blocks)} blocks, {commands} commands")


@main.command(short_help="Print a model at a stage of lowering.")
@o.MODEL
@click.option(
    "--at",
    "stage",
    type=click.Choice([*SHOWN, MAPPINGS]),
    default="graph",
    show_default=True,
    help=f"{'; '.join(f'{at}: {text}' for at, text in SHOWN.items())}; {MAPPINGS}: that of each layer, its "
    "runner-up and its least cycles, as a file for --mapping.",
)
@click.option(
    "--commands",
    type=click.IntRange(0),
    metavar="INT",
    default=40,
    show_default=True,
    help="Commands shown of each block.",
)
@o.options(*o.COMPILE)
def show(model: str, stage: str, commands: int, **flags: Any) -> None:
    """Print MODEL at a stage of lowering, as text; of a compiled program only the stage "program" is left.

    \b
    Examples:
      mtia-emu show zoo:llama-tiny --at graph
      mtia-emu show zoo:dlrm-small --at program --commands 5
      mtia-emu show zoo:dlrm-small --at mappings
    """
    from .. import api
    from ..program.text import dump

    if api.is_program(model):
        if stage != "program":
            noun = next((x.noun for x in STAGES if x.at == stage), "choice of mappings")
            raise UserError(f"{model} is a compiled program: it has no {noun} (right: --at program)")
        dims, chip = o.parse_dims(flags["dims"]), flags["chip"] or flags["settings"]
        api.refuse_compiled(dims, o.chosen(flags), chip=bool(chip))
        say(dump(api.load_program(model), commands=commands), nl=False)
        return
    with api.open_model(model, o.parse_dims(flags["dims"])) as source:
        chip = _chip(flags)
        compiled = api.compile_stages(source, chip, options=o.chosen(flags))
        say_notes(compiled.onnx.notes)
        if stage == MAPPINGS:
            from ..study.mappings import as_toml, layer_mappings

            say(as_toml(layer_mappings(compiled, chip), source.name, chip), nl=False)
        else:
            say(_text(compiled.at(stage), commands), nl=False)


def _text(form: Graph | Schedule | Program, commands: int) -> str:
    """Return a model at a stage as text, with the first so many commands of each block."""
    from mtia_emu.compiler import text
    from mtia_emu.compiler.graph import Graph

    from ..program.isa import Program
    from ..program.text import dump

    if isinstance(form, Program):
        return dump(form, commands=commands)
    return text.dump(form) if isinstance(form, Graph) else str(form)


main.add_command(cli_sweep.sweep)
main.add_command(cli_sweep.report)
main.add_command(cli_area.area)
main.add_command(steps)
main.add_command(rank)
main.add_command(cli_collective.systems)
main.add_command(cli_collective.collective)
main.add_command(shard)


main.add_command(opt)
main.add_command(reduce)


def _chip(flags: dict[str, Any]) -> Chip:
    from ..machine.chip import load_chip

    return load_chip(flags["chip"] or DEFAULT_CHIP, o.parse_settings(flags["settings"]))


def _gpu(name: str) -> str | None:
    return None if name == "none" else name


main.add_command(chips)
main.add_command(gpus)
main.add_command(import_)
main.add_command(zoo)
main.add_command(explain)
main.add_command(diff)
main.add_command(conformance)
main.add_command(timeline)
main.add_command(fuzz)
main.add_command(train)
main.add_command(fleet)
main.add_command(plan)
main.add_command(serve)
main.add_command(completion)


if __name__ == "__main__":
    main()
