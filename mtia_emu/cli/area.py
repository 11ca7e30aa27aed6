"""The command `mtia-emu area`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..options import DEFAULT_CHIP
from . import options as o
from .output import console, say

if TYPE_CHECKING:
    from ..silicon.estimate import Estimate


@click.command(short_help="Print a chip's die area and cost to make.")
@o.options(o.CHIP, o.SET, o.JSON)
def area(chip: str | None, settings: tuple[str, ...], json_file: str | None) -> None:
    """Print the die area of a chip by component, and what it costs to make, from its parameters.

    Where sources differ or prices move, each amount is printed from low to high; sweeps take the middle. Says
    what a chip has of its own in place of what its memory technology brings.

    \b
    Examples:
      mtia-emu area
      mtia-emu area --chip mtia-1 --set sram.bytes=268435456
      mtia-emu area --chip mtia-2i --set dram.device=hbm3
    """
    from ..files.writing import json_text, write_json
    from ..silicon.estimate import as_json, estimate

    found = estimate(chip or DEFAULT_CHIP, o.parse_settings(settings))
    if json_file == "-":
        say(json_text(as_json(found)), nl=False)
        return
    if json_file is not None:
        write_json(json_file, as_json(found))
    _print(found)


def _print(found: Estimate) -> None:
    from ..silicon.estimate import as_json
    from ..view.terminal import print_table

    value, name = as_json(found), found.chip.name
    whole = value["area_mm2"]["total"]["mid"]
    rows = [
        [
            "whole die" if part == "total" else part,
            *(f"{x:.1f}" for x in mm2.values()),
            f"{mm2['mid'] / whole:.1%}",
        ]
        for part, mm2 in value["area_mm2"].items()
    ]
    rows.append(["as written", "", f"{found.die_mm2:.1f}", "", ""])
    dies = found.chip.package.compute_dies
    title = f"{name}: die area, mm2" if dies == 1 else f"{name}: area of {dies} compute dies together, mm2"
    print_table(title, ["component", "low", "mid", "high", "share"], rows, console())
    dollars = [
        [part.removesuffix("_usd").replace("_", " "), *(f"{x:,.0f}" for x in usd.values())]
        for part, usd in value["cost"].items()
        if part.endswith("_usd") and any(usd.values())
    ]
    good, on_wafer = value["cost"]["yield_share"], value["cost"]["dies_per_wafer"]
    dollars.append(["good dies", *(f"{x:.1%}" for x in good.values())])
    dollars.append(["dies a wafer", *(f"{x:.0f}" for x in on_wafer.values())])
    print_table("cost to make, $", ["part", "low", "mid", "high"], dollars, console())
    packages = f"{found.packages} package{'s' * (found.packages > 1)}"
    memory = f"memory: {found.memory}, {packages}" if found.packages else "memory: ideal"
    own = [[x.key, f"{x.value:g}" if _number(x.value) else str(x.value),
            f"{x.brought:g}" if _number(x.brought) else str(x.brought)] for x in found.own]  # fmt: skip
    print_table(memory, ["the chip's own number", "is", "in place of"], own or [["none", "", ""]], console())
    for note in found.notes:
        say(f"note: {note}")


def _number(value: object) -> bool:
    return isinstance(value, int | float)
