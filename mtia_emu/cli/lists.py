"""What there is to choose from besides chips: GPUs and models, and the parameters of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from . import options as o
from .output import console

if TYPE_CHECKING:
    from ..study.listing import Parameter

PARAMETER_COLUMNS = ["parameter", "value", "unit", "meaning", "source"]


@click.command(short_help="List the GPUs, or one GPU's parameters.")
@click.argument("name", required=False, shell_complete=o.complete("gpu", files=(".toml",)))
def gpus(name: str | None) -> None:
    """List the GPUs; with NAME (or a .toml file), every parameter with its unit, value and source.

    \b
    Examples:
      mtia-emu gpus
      mtia-emu gpus h100-sxm
    """
    from ..gpu import gpu_names, load_gpu
    from ..study.listing import gpu_parameters
    from ..view.units import hertz, size, watts

    if name is not None:
        print_parameters(f"GPU {name}", gpu_parameters(name))
        return
    each = [load_gpu(n) for n in gpu_names()]
    print_rows(
        "GPUs",
        ["name", "clock", "SMs", "DRAM bandwidth", "TDP"],
        [
            [g.name, hertz(g.clock_hz), str(g.sms), size(g.dram_bytes_per_s) + "/s", watts(g.tdp_w)]
            for g in each
        ],
    )


@click.command("zoo", short_help="List the built-in models, or one model's parameters.")
@click.argument("name", required=False, shell_complete=o.complete("model"))
def zoo(name: str | None) -> None:
    """List the built-in models; with NAME, every parameter with its unit, value and source.

    \b
    Examples:
      mtia-emu zoo
      mtia-emu zoo llama-3-8b
    """
    from .. import zoo as models

    if name is None:
        print_rows(
            "models",
            ["name", "dimensions (--dim) and their defaults"],
            [
                [f"zoo:{n}", " ".join(f"{k}={v}" for k, v in models.dims(n).items())]
                for n in models.zoo_names()
            ],
        )
        return
    facts = models.describe(name.removeprefix("zoo:"))
    rows = [[key, str(f["value"]), f["unit"], f["source"]] for key, f in facts.items()]
    print_rows(name, ["parameter", "value", "unit", "source"], rows)


def print_rows(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a headed table."""
    from ..view.terminal import print_table

    print_table(title, columns, rows, console())


def print_parameters(title: str, parameters: Iterable[Parameter]) -> None:
    """Print parameters, each with its unit, meaning and source."""
    print_rows(
        title, PARAMETER_COLUMNS, [[p.key, str(p.value), p.unit, p.text, p.source] for p in parameters]
    )
