"""The command `mtia-emu diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options as o
from .output import console, say

if TYPE_CHECKING:
    from ..results.difference import Difference, Side

SORTS = {"time": "seconds", "energy": "joules", "dram": "dram_bytes", "sram": "sram_bytes", "macs": "macs"}


@click.command("diff", short_help="Show what differs between two runs, layer by layer.")
@click.argument("a")
@click.argument("b")
@o.options(o.JSON, o.LAYERS)
@click.option(
    "--sort",
    type=click.Choice([*SORTS]),
    default="time",
    show_default=True,
    help="Layers whose amount of this changes most come first.",
)
def diff(a: str, b: str, json_file: str | None, layers: int, sort: str) -> None:
    """Compare A with B: each a JSON report (`mtia-emu run --json`) or a compiled program.

    A program is timed on the chip that it was compiled for. Layers are the same by name and op, else by op
    and size; those that only one has are shown too.

    \b
    Examples:
      mtia-emu diff before.json after.json
      mtia-emu diff before.json after.json --sort energy --layers 40
      mtia-emu diff model-fast.mtia model-full.mtia
      mtia-emu diff before.json after.mtia --json -
    """
    from ..results.difference import compare

    difference = compare(_side(a), _side(b), SORTS[sort])
    if json_file is not None:
        _write(difference, json_file)
    if json_file != "-":
        from ..view.difference import print_difference

        print_difference(difference, console(), rows=layers)


def _side(file: str) -> Side:
    from .. import api
    from ..results.report_file import of_report, read_report

    if not api.is_program(file):
        return read_report(file)
    outcome = api.run(file, gpu=None)
    return of_report(file, outcome.report, outcome.program)


def _write(difference: Difference, to: str) -> None:
    from ..files.writing import json_text, write_json
    from ..results.difference import as_json

    if to == "-":
        say(json_text(as_json(difference)), nl=False)
    else:
        write_json(to, as_json(difference))
