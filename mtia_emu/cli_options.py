"""The options of the command line, each spelt once, and the texts that they take turned into values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .errors import UserError

DEFAULT_CHIP = "mtia-2i"
Decorator = Callable[[Any], Any]
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names(kind: str) -> list[str]:
    """Return what a kind of argument may be: "chip", "gpu", "key" (of --set) or "model"."""
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


def complete(kind: str, *, files: Sequence[str] = ()) -> Complete:
    """Return a shell completion for a kind of name, and for files that end in one of `files`."""

    def find(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        found = [name for name in names(kind) if name.startswith(incomplete)]
        return found + list(_paths(incomplete, tuple(files))) if files else found

    return find


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    folder = os.path.dirname(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = os.path.join(folder, entry.name)
        if path.startswith(incomplete) and (entry.is_dir() or entry.name.endswith(suffixes)):
            yield path + ("/" if entry.is_dir() else "")


def target(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the name of a file to write; refuse one in no folder before long work, not after it."""
    if value is not None and value != "-" and not Path(value).absolute().parent.is_dir():
        flag = param.opts[-1]
        raise UserError(
            f"{flag} {value!r}: the folder {str(Path(value).parent)!r} does not exist; create it or "
            "choose another path"
        )
    return value


def _picture(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.endswith((".svg", ".png")):
        raise UserError(f"--roofline {value!r}: pictures are .svg or .png (right: --roofline roofline.svg)")
    return target(ctx, param, value)


def _kernels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    """Compile with kernels of the user's own for as long as the command runs."""
    if values and not ctx.resilient_parsing:
        from .kernel_files import use_kernels

        ctx.with_resource(use_kernels(*values))


MODEL = click.argument("model", shell_complete=complete("model", files=(".onnx", ".mtia")))
CHIP = click.option(
    "--chip",
    metavar="NAME|FILE.toml",
    shell_complete=complete("chip", files=(".toml",)),
    help=f"Chip: a name (`mtia-emu chips`) or a file.  [default: {DEFAULT_CHIP}, or a program's own]",
)
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete("key"),
    help="Change a chip parameter, as in --set dram.channels=32; may be repeated.",
)
DIM = click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=INT",
    help="Bind a symbolic dimension, as in --dim seq=512; may be repeated.",
)
DTYPE = click.option(
    "--dtype",
    metavar="TYPE",
    help="Run in fp16, bf16, fp32; with weights quantised in int8, fp8 or int4, or as the text of a quantise "
    "pass says.  [default: the model's own type, or the nearest that the chip multiplies]",
)
CALIBRATE = click.option(
    "--calibrate",
    metavar="INT|IO.npz",
    help="Scale activations of --dtype int8 or fp8 by their range over so many seeded samples, or over these "
    "inputs, not row by row at run time.",
)
KERNEL = click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="FILE.py|NAME",
    expose_value=False,
    callback=_kernels,
    help="Run an op by a kernel of your own: a file, or a name that a package brings; may be repeated. The "
    "file is executed, and its kernels are held to their references first.",
)
KIND = click.option(
    "--dtype",
    "kind",
    metavar="TYPE",
    default="fp16",
    show_default=True,
    help="Type of the operands: fp16, bf16, fp32, int8; of a product also fp8_e4m3, fp8_e5m2.",
)
INPUTS = click.option(
    "--inputs", metavar="IO.npz", help="Execute on these arrays (keys `name` or `in:name`)."
)
COMPILED_FOR = click.option(
    "--inputs",
    metavar="IO.npz",
    help="Compile for arrays like these: their shapes bind dimensions; where the model has a default for "
    "one, the program takes it as an input.",
)
OUTPUTS = click.option(
    "--outputs",
    metavar="OUT.npz",
    callback=target,
    help="Write the outputs of the execution (keys `out:name`).",
)
CHECK = click.option(
    "--check",
    is_flag=True,
    help="Execute (on seeded random inputs without --inputs), compare each "
    "output with onnxruntime, exit 1 beyond tolerance.",
)
GPU = click.option(
    "--gpu",
    metavar="NAME|FILE.toml|none",
    default="h100-sxm",
    show_default=True,
    shell_complete=complete("gpu", files=(".toml",)),
    help="GPU to stand beside (`mtia-emu gpus`).",
)
GPU_LAUNCH = click.option(
    "--gpu-launch",
    type=click.Choice(["graph", "stream", "host"]),
    default="graph",
    show_default=True,
    help="How its kernels are launched: from a CUDA graph, on a stream, or each by a host that waits.",
)
GPU_UNFUSED = click.option(
    "--gpu-unfused", is_flag=True, help="Run it operator by operator, not fused as a serving runtime does."
)
GPU_SUSTAINED = click.option(
    "--gpu-sustained", is_flag=True, help="Time and price it in steady state, not in a short burst."
)
GPUS = (GPU, GPU_LAUNCH, GPU_UNFUSED, GPU_SUSTAINED)
JSON = click.option(
    "--json",
    "json_file",
    metavar="FILE|-",
    callback=target,
    help="Write the report as JSON; `-` prints only that.",
)
TRACE = click.option(
    "--trace",
    metavar="FILE",
    callback=target,
    help="Write a trace for ui.perfetto.dev; compressed where FILE ends in .gz.",
)
ROOFLINE = click.option(
    "--roofline", metavar="FILE.svg|png", callback=_picture, help="Draw every layer on the roofline."
)
SEED = click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="INT",
    default=0,
    show_default=True,
    help="Seed of random weights and inputs.",
)
LAYERS = click.option(
    "--layers",
    type=click.IntRange(0),
    metavar="INT",
    default=12,
    show_default=True,
    help="Rows of the tables of layers.",
)
PLACE = click.option(
    "--place",
    type=click.Choice(["sram", "dram", "weights-dram"]),
    default="dram",
    show_default=True,
    help="Memory that operands start in and the result ends in; weights-dram: the others in SRAM.",
)

TUNE = click.option(
    "--tune",
    type=click.Choice(["fast", "full"]),
    default="fast",
    show_default=True,
    help="How mappings of kernels are chosen: by estimate, or the best of them by time; full keeps what it "
    "finds on disk (MTIA_EMU_TUNE_CACHE=0: not).",
)
PREFETCH = click.option(
    "--prefetch/--no-prefetch",
    default=True,
    show_default=True,
    help="Let kernels read weights of later ones into SRAM while they leave DRAM idle.",
)

BESIDE = click.option(
    "--beside/--no-beside",
    default=True,
    show_default=True,
    help="Run independent layers side by side in one launch, each on rows of PEs, where that is faster.",
)

COMPILE = (CHIP, SET, DIM, DTYPE, KERNEL, TUNE, BESIDE, PREFETCH)
DELIVER = (JSON, TRACE, ROOFLINE, SEED, LAYERS)
RUN = (*COMPILE, CALIBRATE, INPUTS, OUTPUTS, CHECK, *GPUS, *DELIVER)
OPERATOR = (CHIP, SET, KIND, PLACE, TUNE, PREFETCH, OUTPUTS, CHECK, *GPUS, *DELIVER)


def options(*each: Decorator) -> Decorator:
    """Return a decorator that adds options to a command, the first to stand first in its help."""

    def decorate(command: Any) -> Any:
        for option in reversed(each):
            command = option(command)
        return command

    return decorate


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """Return chip parameters by dotted key, from texts `KEY=VALUE`."""
    if not texts:
        return {}
    from .chip import parse_setting

    return once("--set", [parse_setting(text) for text in texts])


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """Return sizes by dimension, from texts `NAME=INT`."""
    return once("--dim", [_dim(text) for text in texts])


def _dim(text: str) -> tuple[str, int]:
    name, equals, value = (part.strip() for part in text.rpartition("="))
    if not (equals and name and value.isascii() and value.isdigit() and len(value) <= 18):
        raise UserError(f"--dim {text!r}: not NAME=INT with an integer of at least 0 (right: --dim batch=1)")
    return name, int(value)


def calibrated(wanted: str | None, samples: str | None) -> str | None:
    """Return a number format with activations scaled by samples, where there are any."""
    if samples is None:
        return wanted
    from dataclasses import replace

    from .compiler.pipeline import quantised

    few = quantised(wanted)
    if few is None or few.mode == "none":
        raise UserError(f"--calibrate {samples}: needs activations in few bits (right: --dtype int8 or fp8)")
    if set(samples) & set(",{}"):
        raise UserError(f"--calibrate {samples!r}: a path with none of , {{ }}")
    return replace(few, activations="static", calibrate=samples).spelling


def once(flag: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs as a dictionary; refuse a key that is given two values."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out and out[key] != value:
            raise UserError(f"{flag} gives '{key}' twice, as {out[key]!r} and as {value!r} (right: once)")
        out[key] = value
    return out
