"""The command line. Heavy imports happen inside commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from .api import Outcome
    from .chip import Chip

EXIT_CHECK_FAILED = 1
EXIT_USER_ERROR = 2
DTYPES = "fp16, bf16, fp32"


class Commands(click.Group):
    """The command group: a `UserError` ends as one line and exit code 2, never as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_USER_ERROR)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(0)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="mtia-emu")
def main() -> None:
    """Compile ONNX models for an MTIA-like accelerator, run the program, read cycles, traffic and joules.

    \b
    Examples:
      mtia-emu run zoo:llama-3-8b --dim seq=2048 --chip mtia-2i
      mtia-emu run model.onnx --inputs io.npz --check
      mtia-emu run model.onnx --set pe.matrix.rows=64 --set dram.channels=32 --json -
      mtia-emu gemm 2048 2048 2048 --dtype int8 --place sram

    \b
    Shell completion: eval "$(_MTIA_EMU_COMPLETE=bash_source mtia-emu)"   (or zsh_source, fish_source)
    """


def _complete(kind: str) -> Callable[..., list[str]]:
    """Return a shell completion function for a kind of name."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in _names(kind) if name.startswith(incomplete)]

    return complete


def _names(kind: str) -> list[str]:
    if kind == "chip":
        from .chip import chip_names

        return chip_names()
    if kind == "gpu":
        from .gpu import gpu_names

        return [*gpu_names(), "none"]
    if kind == "key":
        from .chip import known_keys

        return [f"{key}=" for key in known_keys()]
    from .zoo import zoo_names

    return [f"zoo:{name}" for name in zoo_names()]


def _options(*names: str) -> Callable[[Any], Any]:
    """Return a decorator that adds the named options, spelt once here for all commands."""
    table = {
        "chip": click.option("--chip", metavar="NAME|FILE.toml", shell_complete=_complete("chip"),
                             help="Chip to run on (see `mtia-emu chips`).  [default: mtia-2i]"),
        "set": click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", shell_complete=_complete("key"),
                            help="Change a chip parameter; may be repeated."),
        "dim": click.option("--dim", "dims", multiple=True, metavar="NAME=INT",
                            help="Bind a symbolic dimension; may be repeated."),
        "dtype": click.option("--dtype", metavar="TYPE", help=f"Run in this type ({DTYPES}) instead of the nearest that the chip has."),
        "inputs": click.option("--inputs", metavar="IO.npz", help="Execute on these arrays (keys `name` or `in:name`)."),
        "outputs": click.option("--outputs", metavar="OUT.npz", help="Write the outputs (keys `out:name`)."),
        "check": click.option("--check", is_flag=True, help="Execute, and compare each output with onnxruntime; exit 1 beyond tolerance."),
        "gpu": click.option("--gpu", metavar="NAME", default="h100-sxm", show_default=True, shell_complete=_complete("gpu"),
                            help="GPU to stand beside; `none` for none."),
        "json": click.option("--json", "json_file", metavar="FILE|-", help="Write the report as JSON; `-` writes only that to stdout."),
        "trace": click.option("--trace", metavar="FILE", help="Write a trace for ui.perfetto.dev."),
        "roofline": click.option("--roofline", metavar="FILE.svg|png", help="Draw every layer on the roofline."),
        "seed": click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random weights and inputs."),
        "layers": click.option("--layers", type=click.IntRange(0), default=12, show_default=True, help="Rows of the table of slowest layers."),
    }

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = table[name](command)
        return command

    return decorate


RUN_OPTIONS = ("chip", "set", "dim", "dtype", "inputs", "outputs", "check", "gpu", "json", "trace", "roofline", "seed", "layers")


@main.command()
@click.argument("model", shell_complete=_complete("zoo"))
@_options(*RUN_OPTIONS)
def run(model: str, dims: tuple[str, ...], **options: Any) -> None:
    """Run MODEL: an ONNX file, a compiled program, or zoo:NAME.

    Time and energy always; with --inputs or --check the program is executed as well.

    \b
    Examples:
      mtia-emu run zoo:dlrm-small --check
      mtia-emu run zoo:llama-3-8b --dim seq=1 --dim past=2048 --gpu a100-sxm-80gb
      mtia-emu run model.onnx --inputs io.npz --outputs out.npz --trace trace.json
    """
    from . import api

    inputs = _read_arrays(options["inputs"])
    with _progress(options["json_file"]) as progress:
        outcome = api.run(
            model, options["chip"], settings=_settings(options["settings"]), dims=_dims(dims), dtype=options["dtype"],
            inputs=inputs, check=options["check"], gpu=_gpu(options["gpu"]), seed=options["seed"], progress=progress,
        )
    _deliver(outcome, options)


@main.command()
@click.argument("m", type=click.IntRange(1, 1 << 24))
@click.argument("k", type=click.IntRange(1, 1 << 24))
@click.argument("n", type=click.IntRange(1, 1 << 24))
@click.option("--place", type=click.Choice(["sram", "dram"]), default="dram", show_default=True, help="Where operands start and the result ends.")
@_options(*(o for o in RUN_OPTIONS if o not in ("dim", "inputs")))
def gemm(m: int, k: int, n: int, **options: Any) -> None:
    """Run one product of an M x K matrix by a K x N weight (--dtype fp16, bf16, fp32 or int8).

    \b
    Examples:
      mtia-emu gemm 2048 2048 2048 --place sram
      mtia-emu gemm 512 26592 2048 --chip mtia-2i --dtype fp16
      mtia-emu gemm 1024 1024 1024 --chip systolic --set pe.matrix.rows=128 --set pe.matrix.cols=128 --gpu none
    """
    from .zoo.operators import Gemm

    kind = options.pop("dtype") or "fp16"
    _operator(Gemm(m, k, n, kind), None if kind == "int8" else kind, options)


@main.command()
@click.option("--tables", type=click.IntRange(1, 1 << 16), required=True, help="Embedding tables.")
@click.option("--rows", type=click.IntRange(1, 1 << 31), required=True, help="Rows of each table.")
@click.option("--dim", "dim", type=click.IntRange(1, 1 << 16), required=True, help="Elements of a row.")
@click.option("--pooling", type=click.IntRange(1, 1 << 20), required=True, help="Look-ups of each bag (pooling factor).")
@click.option("--batch", type=click.IntRange(1, 1 << 24), required=True, help="Bags of each table.")
@click.option("--skew", metavar="uniform|zipf:A", default="uniform", show_default=True, help="How look-ups spread over rows where executed.")
@click.option("--place", type=click.Choice(["sram", "dram"]), default="dram", show_default=True, help="Where tables and indices start.")
@_options(*(o for o in RUN_OPTIONS if o not in ("dim", "inputs")))
def tbe(tables: int, rows: int, dim: int, pooling: int, batch: int, skew: str, **options: Any) -> None:
    """Run one batched embedding bag (--dtype fp16, bf16, fp32, or int8: rows with a scale and an offset each).

    \b
    Example:
      mtia-emu tbe --tables 8 --rows 1000000 --dim 128 --pooling 20 --batch 2048 --dtype int8
    """
    from .zoo.operators import Tbe

    kind = options.pop("dtype") or "fp16"
    _operator(Tbe(tables, rows, dim, pooling, batch, kind, skew), None if kind == "int8" else kind, options)


def _operator(operator: Any, dtype: str | None, options: dict[str, Any]) -> None:
    """Write a one-operator model, then run it like any other."""
    import tempfile
    from pathlib import Path

    from . import api
    from .chip import load_chip

    execute = options["check"] or options["outputs"]
    with tempfile.TemporaryDirectory(prefix="mtia-emu-") as folder, _progress(options["json_file"]) as progress:
        path = operator.build(Path(folder), options["seed"] if execute else None)
        source = api.Source(path, operator.name, operator.dims, operator.example_inputs)
        inputs = operator.example_inputs(options["seed"]) if execute else None
        outcome = api.run_source(
            source, load_chip(options["chip"] or "mtia-2i", _settings(options["settings"])), dtype=dtype, inputs=inputs,
            check=options["check"], gpu=_gpu(options["gpu"]), seed=options["seed"], place=options["place"], progress=progress,
        )
    _deliver(outcome, options)


@main.command("compile")
@click.argument("model", shell_complete=_complete("zoo"))
@click.option("-o", "--output", required=True, metavar="FILE", help="Program file to write.")
@_options("chip", "set", "dim", "dtype")
def compile_(model: str, output: str, chip: str | None, settings: tuple[str, ...], dims: tuple[str, ...], dtype: str | None) -> None:
    """Compile MODEL to a program file that `run` takes.

    \b
    Example:
      mtia-emu compile zoo:llama-3-8b --dim seq=512 -o llama.mtia && mtia-emu run llama.mtia
    """
    from . import api

    with _progress(None) as progress, api.open_model(model, _dims(dims)) as source:
        machine = _chip(chip, settings)
        program = api.compile_stages(source, machine, dtype=dtype, progress=progress).program
        api.save_program(program, output)
    commands = sum(len(b.commands) for b in program.blocks)
    click.echo(f"{output}: {len(program.launches)} launches of {len(program.blocks)} blocks, {commands} commands")


STAGES = ("onnx", "graph", "schedule", "program")


@main.command()
@click.argument("model", shell_complete=_complete("zoo"))
@click.option("--at", "stage", type=click.Choice(STAGES), default="graph", show_default=True,
              help="onnx: as imported; graph: after all passes; schedule: kernels and buffers; program: commands.")
@click.option("--commands", type=click.IntRange(0), default=40, show_default=True, help="Commands shown of each block.")
@_options("chip", "set", "dim", "dtype")
def show(model: str, stage: str, commands: int, chip: str | None, settings: tuple[str, ...], dims: tuple[str, ...], dtype: str | None) -> None:
    """Print MODEL at a stage of lowering, as text.

    \b
    Examples:
      mtia-emu show zoo:llama-tiny --at graph
      mtia-emu show zoo:dlrm-small --at program --commands 5
    """
    from pathlib import Path

    from . import api, isa, program_file

    if not model.startswith(api.ZOO) and program_file.is_program(Path(model)):
        if stage != "program":
            raise UserError(f"{model} is a compiled program: it has no {stage} (right: --at program)")
        click.echo(isa.dump(api.load_program(model), commands=commands), nl=False)
        return
    from .compiler import text

    with api.open_model(model, _dims(dims)) as source:
        compiled = api.compile_stages(source, _chip(chip, settings), dtype=dtype)
    texts = {"onnx": lambda: text.dump(compiled.imported), "graph": lambda: text.dump(compiled.lowered),
             "schedule": lambda: str(compiled.schedule), "program": lambda: isa.dump(compiled.program, commands=commands)}
    click.echo(texts[stage](), nl=False)


@main.command()
@click.argument("name", required=False, shell_complete=_complete("chip"))
def chips(name: str | None) -> None:
    """List the chips; with NAME (or a .toml file), every parameter with its unit, value and source."""
    from .chip import chip_names, load_chip
    from .listing import chip_parameters
    from .view.terminal import print_table
    from .view.units import hertz, size, watts

    if name is not None:
        rows = [[p.key, str(p.value), p.unit, p.text, p.source] for p in chip_parameters(name)]
        print_table(f"chip {name}", ["parameter", "value", "unit", "meaning", "source"], rows, _console())
        return
    rows = []
    for each in chip_names():
        c = load_chip(each)
        rows.append([each, hertz(c.clock_hz), f"{c.grid.rows} x {c.grid.cols}", size(c.sram.bytes),
                     size(c.dram.bytes_per_s) + "/s", watts(c.tdp_w)])
    print_table("chips", ["name", "clock", "PEs", "SRAM", "DRAM bandwidth", "TDP"], rows, _console())


@main.command()
@click.argument("name", required=False, shell_complete=_complete("gpu"))
def gpus(name: str | None) -> None:
    """List the GPUs; with NAME (or a .toml file), every parameter with its unit, value and source."""
    from .gpu import gpu_names, load_gpu
    from .listing import gpu_parameters
    from .view.terminal import print_table
    from .view.units import hertz, size, watts

    if name is not None:
        rows = [[p.key, str(p.value), p.unit, p.text, p.source] for p in gpu_parameters(name)]
        print_table(f"GPU {name}", ["parameter", "value", "unit", "meaning", "source"], rows, _console())
        return
    rows = []
    for each in gpu_names():
        g = load_gpu(each)
        rows.append([each, hertz(g.clock_hz), str(g.sms), size(g.dram_bytes_per_s) + "/s", watts(g.tdp_w)])
    print_table("GPUs", ["name", "clock", "SMs", "DRAM bandwidth", "TDP"], rows, _console())


@main.command("zoo")
@click.argument("name", required=False, shell_complete=_complete("zoo"))
def zoo_(name: str | None) -> None:
    """List the built-in models; with NAME, every parameter with its unit, value and source."""
    from . import zoo
    from .view.terminal import print_table

    if name is None:
        rows = [[f"zoo:{n}", " ".join(f"{k}={v}" for k, v in zoo.dims(n).items())] for n in zoo.zoo_names()]
        print_table("models", ["name", "dimensions (--dim) and their defaults"], rows, _console())
        return
    facts = zoo.describe(name.removeprefix("zoo:"))
    rows = [[key, str(f["value"]), f["unit"], f["source"]] for key, f in facts.items()]
    print_table(name, ["parameter", "value", "unit", "source"], rows, _console())


def _chip(name: str | None, settings: tuple[str, ...]) -> Chip:
    from .chip import load_chip

    return load_chip(name or "mtia-2i", _settings(settings))


def _settings(texts: tuple[str, ...]) -> dict[str, object]:
    if not texts:
        return {}
    from .chip import parse_setting

    return dict(parse_setting(text) for text in texts)


def _dims(texts: tuple[str, ...]) -> dict[str, int]:
    out = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name.strip() or not value.strip().isdigit() or len(value) > 18:
            raise UserError(f"--dim {text!r}: not NAME=INT with an integer of at least 1 (right: --dim batch=1)")
        out[name.strip()] = int(value)
    return out


def _gpu(name: str) -> str | None:
    return None if name == "none" else name


def _console(*, err: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=err, highlight=False, soft_wrap=False)


@contextmanager
def _progress(json_file: str | None) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that shows progress on a terminal; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console(err=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield tick


def _read_arrays(path: str | None) -> dict[str, Any] | None:
    """Return the arrays of an .npz file, never unpickling; raise `UserError` for other files."""
    if path is None:
        return None
    from .arrays import read_npz

    return read_npz(path)


def _deliver(outcome: Outcome, options: dict[str, Any]) -> None:
    """Print the report and write the files that were asked for; exit 1 where the check failed."""
    from .report import as_json
    from .view.terminal import print_report

    _write_files(outcome, options)
    if options["json_file"] is not None:
        from .view.files import write_json

        write_json("/dev/stdout" if options["json_file"] == "-" else options["json_file"],
                   as_json(outcome.report, outcome.gpu, outcome.check))
    if options["json_file"] != "-":
        print_report(outcome.report, outcome.gpu, outcome.check, _console(), layers=options["layers"])
    if outcome.check is not None and not outcome.check.passed:
        sys.exit(EXIT_CHECK_FAILED)


def _write_files(outcome: Outcome, options: dict[str, Any]) -> None:
    if options["outputs"] is not None:
        if not outcome.outputs:
            raise UserError("--outputs needs an execution: give --inputs or --check")
        from .arrays import write_npz

        write_npz(options["outputs"], {f"out:{name}": x for name, x in outcome.outputs.items()})
    if options["trace"] is not None:
        from .engine.trace import trace_events
        from .view.trace import write_trace

        write_trace(options["trace"], trace_events(outcome.program, outcome.chip), outcome.report)
    if options["roofline"] is not None:
        from .types import dtype
        from .view.plot import roofline

        chip = outcome.chip
        peak = chip.peak_macs_per_cycle(dtype(outcome.report.dtype)) * chip.clock_hz
        roofline(outcome.report, peak, chip.dram.bytes_per_s, chip.sram.bytes_per_s, options["roofline"])


if __name__ == "__main__":
    main()
