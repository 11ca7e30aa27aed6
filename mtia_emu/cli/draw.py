"""`mtia-emu timeline`: what the units of a chip do over time, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import options as o
from .output import progress, say

if TYPE_CHECKING:
    from ..machine.chip import Chip
    from ..program.isa import Program


def _picture(ctx: click.Context, param: click.Parameter, value: str) -> str | None:
    if not value.endswith((".svg", ".png")):
        raise UserError(f"--output {value!r}: pictures are .svg or .png (right: -o timeline.svg)")
    return o.target(ctx, param, value)


@click.command(short_help="Draw what each unit does over time.")
@o.MODEL
@click.option(
    "-o", "--output", required=True, metavar="FILE.svg|png", callback=_picture, help="Picture to write."
)
@click.option("--layer", metavar="NAME", help="Draw every command of one layer on one PE.")
@click.option(
    "--pe", type=click.IntRange(0), metavar="INT", default=0, show_default=True, help="PE for --layer."
)
@o.options(*o.COMPILE)
def timeline(model: str, output: str, layer: str | None, pe: int, **flags: Any) -> None:
    """Draw MODEL, or a compiled program, over time: its layers, and how busy each kind of unit is.

    A unit's bar is as dark as the share of the PEs on which it has a command under way. With --layer the
    bars are single commands.

    \b
    Examples:
      mtia-emu timeline zoo:dlrm-small -o timeline.svg
      mtia-emu timeline model.mtia --layer fc1 --pe 3 -o fc1.png
    """
    from ..study.accelerator import Accelerator, ProgramRun
    from ..study.drawings import layer_lanes, program_lanes
    from ..view.gantt import gantt

    with progress() as tick:
        program, asked, lookups = _compiled(model, flags, tick)
    chip = asked.at_clock(Accelerator(asked).report(ProgramRun(program, lookups)).clock_hz)
    if layer is not None:
        lanes, cycles = layer_lanes(program, chip, layer, pe, lookups)
        title = f"{layer} of {program.model} on PE {pe} of {chip.name}"
    else:
        lanes, cycles = program_lanes(program, chip, lookups)
        title = f"{program.model} on {chip.name}"
    gantt(f"{title} ({program.dtype})", lanes, cycles, chip.clock_hz, output)
    bars = sum(len(lane.bars) for lane in lanes)
    say(f"{output}: {len(lanes)} lanes, {bars} bars, {cycles:,.0f} cycles", err=True)


def _compiled(model: str, flags: dict[str, Any], tick: Any) -> tuple[Program, Chip, Any]:
    """Return the program, the chip that it is timed on, and the look-ups that are known of it."""
    from .. import api
    from ..machine.chip import load_chip
    from ..study.lookups import example_lookups, known_lookups

    settings, dims = o.parse_settings(flags["settings"]), o.parse_dims(flags["dims"])
    options = o.chosen(flags)
    if api.is_program(model):
        api.refuse_compiled(dims, options)
        program = api.load_program(model)
        return program, api.chip_of(program, flags["chip"], settings), known_lookups(program)
    chip = load_chip(flags["chip"] or DEFAULT_CHIP, settings)
    with api.open_model(model, dims) as source:
        program = api.compile_stages(source, chip, progress=tick, options=options).program
        return api.keep_weights(program), chip, example_lookups(source, program)
