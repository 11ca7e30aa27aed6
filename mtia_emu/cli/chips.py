"""Chips: what there are, all that one is, a new one from ten numbers, two beside each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..options import DEFAULT_CHIP
from . import options as o
from .lists import print_parameters, print_rows
from .output import say

if TYPE_CHECKING:
    from ..machine.chip import Chip

ASKED = (  # what makes a chip another chip, most of all
    "clock_hz",
    "grid.rows",
    "grid.cols",
    "pe.matrix.rows",
    "pe.matrix.cols",
    "pe.local.bytes",
    "sram.bytes",
    "sram.bytes_per_s",
    "dram.device",
    "dram.bytes",
)
LIST = "list"
CHIP = o.complete("chip", files=(".toml",))


class ByName(click.Group):
    """A group of commands whose first word may also be a chip."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word; that of the list, where it is a chip's name."""
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else [LIST, *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the commands and chips that begin so."""
        from click.shell_completion import CompletionItem

        chips = [CompletionItem(name) for name in CHIP(ctx, self.params[0], incomplete)]
        return [*super().shell_complete(ctx, incomplete), *chips]


@click.group(
    cls=ByName,
    invoke_without_command=True,
    short_help="List chips, print one, make one, compare two.",
    subcommand_metavar="[NAME | new NAME | diff FIRST SECOND]",
)
@click.pass_context
def chips(ctx: click.Context) -> None:
    """List the chips; with NAME (or a .toml file), every parameter with its unit, value and source.

    \b
    Examples:
      mtia-emu chips
      mtia-emu chips mtia-2i
    """
    if ctx.invoked_subcommand is None:
        _list()


@chips.command(LIST, short_help="List the chips, or one chip's parameters.")
@click.argument("name", required=False, shell_complete=CHIP)
def list_(name: str | None) -> None:
    """List the chips; with NAME, every parameter, as `mtia-emu chips NAME` does.

    \b
    Example:
      mtia-emu chips list mtia-300
    """
    if name is None:
        _list()
        return
    from ..study.listing import chip_parameters

    print_parameters(f"chip {name}", chip_parameters(name))


def _list() -> None:
    from ..machine.chip import chip_names, load_chip
    from ..view.units import hertz, size, watts

    each = [load_chip(n) for n in chip_names()]
    rows = [
        [
            c.name,
            hertz(c.clock_hz),
            f"{c.grid.rows} x {c.grid.cols}",
            size(c.sram.bytes),
            size(c.dram.bytes_per_s) + "/s",
            watts(c.tdp_w),
        ]
        for c in each
    ]
    print_rows("chips", ["name", "clock", "PEs", "SRAM", "DRAM bandwidth", "TDP"], rows)


@chips.command(short_help="Compare the parameters of two chips.")
@click.argument("first", shell_complete=CHIP)
@click.argument("second", shell_complete=CHIP)
def diff(first: str, second: str) -> None:
    """Print the parameters in which two chips differ, and the ratio of the SECOND to the FIRST.

    \b
    Example:
      mtia-emu chips diff mtia-2i mtia-300
    """
    from ..study.listing import changed

    rows = [
        [
            x.key,
            "" if x.first is None else f"{x.first}",
            "" if x.second is None else f"{x.second}",
            x.unit,
            "" if x.ratio is None else f"{x.ratio:.3g}",
        ]
        for x in changed(first, second)
    ]
    if not rows:
        say(f"{first} and {second} are equal in every parameter")
        return
    heads = [Path(name).stem for name in (first, second)]
    title = f"{second} beside {first}: {len(rows)} parameters"
    print_rows(title, ["parameter", *heads, "unit", "ratio"], rows)


@chips.command(short_help="Write a chip's file from the ten numbers that matter most.")
@click.argument("name")
@click.option(
    "--base",
    default=DEFAULT_CHIP,
    show_default=True,
    metavar="NAME",
    shell_complete=o.complete("chip"),
    help="The chip that it is but for what is given.",
)
@o.SET
@click.option(
    "-o", "--output", metavar="FILE", callback=o.target, help="File to write, NAME.toml where none is given."
)
def new(name: str, base: str, settings: tuple[str, ...], output: str | None) -> None:
    """Write a file for a chip NAME that is another chip but for some numbers.

    On a terminal it asks for the ten numbers that matter most, all but those that --set gives; Enter keeps
    the base's. Then it lists what the new chip takes over as an estimate.

    \b
    Examples:
      mtia-emu chips new my-chip
      mtia-emu chips new big --base mtia-2i --set sram.bytes=512e6 \\
          --set dram.device=hbm3 -o big.toml
    """
    from ..files.writing import write_atomic
    from ..machine.chip import chip_names, load_chip

    if name in chip_names() or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"chips new {name!r}: right: a name of letters, digits and - that no chip has yet")
    path = Path(output or f"{name}.toml")
    if path.exists():
        raise UserError(f"chips new: {str(path)!r} is there already; right: -o with another file")
    asked = o.parse_settings(settings)
    if sys.stdin.isatty():
        asked |= _answers(load_chip(base), asked)
    chip = load_chip(base, {**asked, "name": name})
    write_atomic(path, _text(name, base, asked).encode())
    say(f"{path}: {chip.name} is {base} but for {', '.join(sorted(asked)) or 'its name'}")
    _print_estimates(str(path), asked)


def _answers(base: Chip, given: dict[str, Any]) -> dict[str, Any]:
    """Return what the user types where it is not the base's."""
    from ..machine.chip import parse_setting

    out: dict[str, Any] = {}
    for key in ASKED:
        if key in given:
            continue
        value: Any = base
        for part in key.split("."):
            value = getattr(value, part)
        typed = click.prompt(key, default=str(value))
        if typed != str(value):
            out |= dict([parse_setting(f"{key}={typed}")])
    return out


def _text(name: str, base: str, asked: dict[str, Any]) -> str:
    """Return the text of a chip's file: its base and what differs."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("What is not here is as in the base: `mtia-emu chips FILE` lists all."))
    document.add("name", tomlkit.item(name))
    document.add("base", tomlkit.item(base))
    for key, value in asked.items():
        *path, last = key.split(".")
        table: Any = document
        for part in path:
            table = table.setdefault(part, tomlkit.table())
        table.add(last, tomlkit.item(value).comment("given by hand"))
    return tomlkit.dumps(document)


def _print_estimates(path: str, asked: dict[str, Any]) -> None:
    from ..study.listing import chip_parameters

    rows = [p for p in chip_parameters(path) if p.key not in asked and "estimate" in p.source]
    print_parameters(f"taken over from the base as estimates: {len(rows)}", rows)
