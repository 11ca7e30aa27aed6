"""The command `mtia-emu train`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import options as o
from .output import EXIT_CHECK_FAILED, console, progress, say

if TYPE_CHECKING:
    from ..results.training import Training

RECIPE = (
    click.option(
        "--loss",
        required=True,
        metavar="NAME",
        help="What is made small: cross-entropy, bce, bce-with-logits or mse.",
    ),
    click.option(
        "--output",
        default="",
        metavar="NAME",
        help="The model's output that the loss is of.  [default: the first of floats]",
    ),
    click.option(
        "--optimizer",
        default="sgd",
        show_default=True,
        metavar="NAME{OPTIONS}",
        help="sgd, adam, adamw, adagrad or muon, with options as in adamw{lr=3e-4,weight_decay=0.1}.",
    ),
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        metavar="fp32|bf16|fp16|fp8",
        help="Of forward and backward; below fp32 the optimizer keeps weights in fp32 beside it. With fp8 "
        "products of layers are in 8 bits, e4m3 forward and e5m2 of gradients, the rest in bf16.",
    ),
    click.option(
        "--rounding",
        default="nearest",
        show_default=True,
        metavar="nearest|stochastic",
        help="Of weights in bf16: to the nearest, with weights in fp32 beside them, or at random and right "
        "in the mean, without.",
    ),
    click.option(
        "--clip",
        type=float,
        default=0.0,
        metavar="NORM",
        help="Most that the norm of all gradients may be; 0: any.",
    ),
    click.option(
        "--keep",
        type=float,
        default=float("inf"),
        metavar="BYTES",
        help="Most bytes of the forward pass that are kept for the way back, as in 2e9; what is more is "
        "computed again, what takes least time a byte first.",
    ),
    click.option(
        "--accumulate",
        type=click.IntRange(1, 1 << 16),
        default=1,
        show_default=True,
        metavar="INT",
        help="Micro-batches of a step, each as large as the model's batch; gradients are averaged. Over "
        "chips they are summed before they are exchanged; stages of a pipeline take turns with them.",
    ),
    click.option(
        "--embeddings",
        default="rows",
        show_default=True,
        metavar="rows|tables",
        help="Gradients of tables of which rows are looked up: of those rows, which alone are changed, or of "
        "whole tables.",
    ),
    click.option(
        "--train", multiple=True, metavar="PATTERN", help="Train these stored floats too; may be repeated."
    ),
    click.option("--freeze", multiple=True, metavar="PATTERN", help="Do not train these; may be repeated."),
)
SPREAD = (
    click.option(
        "--system",
        metavar="NAME|FILE.toml",
        help="Train on a system of many chips (`mtia-emu systems`).  [default: one --chip]",
    ),
    click.option(
        "--parallel",
        metavar="AXES",
        help="How its chips share a step: dp=8 (the batch; gradients are summed), tp=2 (weights and heads; "
        "with sp norms and residuals over the sequence), "
        "pp=4 (layers, in stages of a pipeline), or several. With pp: schedule=1f1b (the default) or gpipe, "
        "vp=2 (stages a chip, interleaved), stages=time. tables=column cuts embedding tables into columns. "
        "bucket=25MiB exchanges together.  [default: all of its chips in dp]",
    ),
    click.option(
        "--zero",
        type=click.IntRange(0, 3),
        default=0,
        show_default=True,
        metavar="STAGE",
        help="Share out over dp, as stages of ZeRO do: 1 what the optimizer keeps (moments, masters), 2 "
        "gradients too, 3 weights too, which are gathered before each use (FSDP).",
    ),
)
GOAL = (
    click.option(
        "--until",
        type=float,
        metavar="ITEMS",
        help="Tokens or samples to learn from, as in 15e12: prints how long the whole training takes.",
    ),
    click.option(
        "--failures",
        metavar="OPTIONS",
        help="Chips fail and training goes on from checkpoints: default, or options as in "
        "mtbf_h=5e4,restart_s=300,checkpoint_s=30,every_s=1800,chips=16384,write_mb_per_s=122. The interval "
        "is the best one where it is not given.",
    ),
)
EXECUTION = (
    click.option(
        "--steps",
        type=click.IntRange(0, 1 << 20),
        default=0,
        show_default=True,
        metavar="INT",
        help="Steps to execute; without them a step is timed and priced only.",
    ),
    click.option(
        "--schedule",
        metavar="NAME{OPTIONS}",
        help="Learning rates of executed steps, as shares of the optimizer's: constant, cosine, linear, "
        "polynomial, step or exponential, as in cosine{total=1000,warmup=100,floor=0.1} or "
        "step{every=30,gamma=0.1}; warmup= goes with each.",
    ),
    click.option(
        "--data",
        metavar="FILE.npz",
        help="Batches: an array for each input and `target`, one batch or several along a first axis.",
    ),
    click.option(
        "--check",
        is_flag=True,
        help="Hold the losses to those of the same steps in fp32, executed by onnxruntime; exit 1 beyond "
        "tolerance.",
    ),
    click.option(
        "--emit",
        metavar="FILE.ir",
        callback=o.target,
        help="Write the step as a graph's text, and do no more.",
    ),
)


AS_GIVEN = ("system", "parallel", "zero", "until", "failures", "steps", "schedule", "check", "seed")


@click.command("train", short_help="Time, price and execute training steps of a model.")
@o.MODEL
@o.options(
    o.CHIP,
    o.SET,
    o.DIM,
    *RECIPE,
    *SPREAD,
    *GOAL,
    *EXECUTION,
    o.SEED,
    *o.flags("run", o.Machines),
    o.JSON,
    o.HTML,
    o.LAYERS,
)
def train(model: str, **flags: Any) -> None:
    """Train MODEL: an ONNX file or zoo:NAME. Forward, backward and optimizer are one graph.

    Prints time, energy, memory by kind and the longest layers of a step. MFU is three times the
    multiply-adds of the forward pass, as a share of what the peak rate allows in that time; HFU counts all
    that is multiplied, recomputation included. Scores that a causal mask hides are in MFU, and in HFU only
    where they are multiplied.

    \b
    Examples:
      mtia-emu train zoo:dlrm-small --loss bce --optimizer 'adagrad{lr=0.01}' --steps 5 --check
      mtia-emu train zoo:llama-3-8b --dim seq=2048 --chip mtia-300 --precision bf16 \\
          --loss cross-entropy --optimizer adamw
      mtia-emu train zoo:llama-tiny --dim batch=4 --loss cross-entropy --optimizer adamw \\
          --system mtia-2i-server --parallel dp=2,tp=2 --zero 3 --steps 3 --check
      mtia-emu train zoo:llama-tiny --dim batch=4 --loss cross-entropy --optimizer adamw \\
          --system mtia-2i-server --parallel dp=2,pp=4,schedule=1f1b --accumulate 8 --clip 1
      mtia-emu train zoo:llama-3-8b --dim seq=2048 --chip mtia-300 --precision bf16 \\
          --loss cross-entropy --optimizer adamw --until 15e12 --failures chips=1024
      mtia-emu train zoo:gpt-tiny --loss cross-entropy --optimizer adamw --steps 20 \\
          --schedule 'cosine{total=20,warmup=4}' --html train.html
      mtia-emu train model.onnx --loss mse --emit step.ir
    """
    if flags["emit"]:
        _emit(model, flags)
        return
    from ..program.inputs import read_inputs
    from ..study.training import train as train_model

    with progress() as tick:
        training = train_model(
            model,
            flags["chip"],
            **{name: flags[name] for name in AS_GIVEN},
            data=read_inputs(flags["data"]),
            settings=o.parse_settings(flags["settings"]),
            gpu=None if flags["gpu"] == "none" else flags["gpu"],
            progress=tick,
            **_recipe(flags),
        )
    _deliver(training, flags)


def _recipe(flags: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("loss", "output", "optimizer", "precision", "clip", "keep", "accumulate", "embeddings"),
        *("train", "freeze", "rounding"),
    )
    return {name: flags[name] for name in names} | {"dims": o.parse_dims(flags["dims"])}


def _emit(model: str, flags: dict[str, Any]) -> None:
    words = "system parallel zero until failures steps schedule data check json_file html_file"
    for name in words.split():
        if flags[name]:
            flag = name.removesuffix("_file")
            raise UserError(
                f"--emit writes the graph of a step and does no more (right: no --{flag} with it)"
            )
    from mtia_emu.compiler.graph_file import write_graph

    from ..machine.chip import load_chip
    from ..study.training import training_step

    chip = load_chip(flags["chip"] or DEFAULT_CHIP, o.parse_settings(flags["settings"]))
    write_graph(flags["emit"], training_step(model, chip=chip, **_recipe(flags)).graph)


def _deliver(training: Training, flags: dict[str, Any]) -> None:
    from ..files.writing import json_text, write_json
    from ..view.training import print_training, training_json

    to = flags["json_file"]
    if to == "-":
        say(json_text(training_json(training)), nl=False)
    elif to is not None:
        write_json(to, training_json(training))
    if flags["html_file"] is not None:
        from .pages import write_training

        write_training(training, flags["html_file"])
    if to != "-":
        print_training(training, console(), layers=flags["layers"])
    if training.losses is not None and training.losses.expected and not training.losses.passed:
        sys.stdout.flush()
        sys.exit(EXIT_CHECK_FAILED)
