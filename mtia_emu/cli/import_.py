"""Commands that write a chip and a model of what other simulators read."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UserError
from .output import say


@click.group("import", short_help="Write a chip and a model from another simulator's files.")
def import_() -> None:
    """Write a chip's file and a model of what another simulator reads."""


@import_.command("scale-sim", short_help="From a SCALE-Sim configuration and topology.")
@click.argument("config", metavar="CONFIG.cfg", type=click.Path())
@click.argument("topology", metavar="TOPOLOGY.csv", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    default=".",
    show_default=True,
    help="Folder to write the two files to.",
)
def scale_sim(config: str, topology: str, output: str) -> None:
    """Write the array of CONFIG.cfg as a chip, and products or convolutions of TOPOLOGY.csv as ONNX.

    Layers do not depend on each other, and weights are absent: the model is to be timed.

    \b
    Example:
      mtia-emu import scale-sim scale.cfg alexnet.csv
    """
    from ..files.writing import write_atomic
    from ..imports.scale_sim import chip_text, read_array, read_topology, write_model
    from ..machine.chip import load_chip
    from ..view.units import count

    array, layers = read_array(Path(config)), read_topology(Path(topology))
    folder = Path(output)
    if not folder.is_dir():
        raise UserError(f"-o {output!r}: is no folder")
    chip, model = folder / f"{Path(config).stem}.toml", folder / f"{Path(topology).stem}.onnx"
    for path in (chip, model):
        if path.exists():
            raise UserError(f"{path}: is there already (right: -o with another folder)")
    write_atomic(chip, chip_text(array).encode())
    load_chip(str(chip))  # it is one
    write_model(layers, model)
    macs, cycles = sum(x.macs for x in layers), sum(x.array_cycles(array) for x in layers)
    say(f"{chip}: an array of {array.rows} x {array.cols}, {array.dataflow}")
    say(f"{model}: {len(layers)} layers, {count(macs)} multiply-adds")
    if simd := sum(x.on_simd for x in layers):
        say(f"Depthwise layers that a run has on the SIMD engine, which is ideal here, in no time: {simd}")
    say(f"The array alone takes {cycles:,} cycles. Next: mtia-emu run {model} --chip {chip} --gpu none")
