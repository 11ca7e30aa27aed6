"""The flags of the command line, each spelt once, and the texts that they take turned into values.

Those that say how a model is compiled and run come from the fields of `options.Options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any

import click

from ..errors import UserError
from ..options import Machines, Mode, Options, Spelling, declared, flag_of, spelled

Decorator = Callable[[Any], Any]
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names(kind: str) -> list[str]:
    """Return what a kind of argument may be: "chip", "gpu", "system", "key" (of --set) or "model"."""
    if kind == "chip":
        from ..machine.chip import chip_names

        return chip_names()
    if kind == "gpu":
        from ..gpu import gpu_names

        return [*gpu_names(), "none"]
    if kind == "system":
        from ..system.load import system_names

        return system_names()
    if kind == "key":
        from ..machine.chip import known_keys

        return [f"{key}=" for key in known_keys()]
    from ..zoo import zoo_names

    return [f"zoo:{name}" for name in zoo_names()]


def complete(kind: str, *, files: Sequence[str] = ()) -> Complete:
    """Return a shell completion for a kind of name, and for files that end in one of `files`."""

    def find(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        matches = [name for name in names(kind) if name.startswith(incomplete)]
        return matches + list(_paths(incomplete, tuple(files))) if files else matches

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


def _page(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.endswith(".html"):
        raise UserError(f"--html {value!r}: a page is .html (right: --html run.html)")
    return target(ctx, param, value)


def _kernels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    """Compile with kernels of the user's own for as long as the command runs."""
    if values and not ctx.resilient_parsing:
        from ..plugins.kernels import use_kernels

        ctx.with_resource(use_kernels(*values))


def _passes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from mtia_emu.compiler.passes import PASSES
    from mtia_emu.compiler.plugins import foreign_names

    before, comma, last = incomplete.rpartition(",")
    sign = last[:1] if last[:1] in ("+", "-") else ""
    known = ("default", *PASSES, *foreign_names())
    return [before + comma + sign + name for name in known if name.startswith(last[len(sign) :])]


COMPLETE = {  # how the shell completes options
    "system": complete("system", files=(".toml",)),
    "passes": _passes,
    "chip": complete("chip", files=(".toml",)),
    "gpu": complete("gpu", files=(".toml",)),
}
MODEL = click.argument("model", shell_complete=complete("model", files=(".onnx", ".mtia", ".ir")))
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
HTML = click.option(
    "--html",
    "html_file",
    metavar="FILE.html",
    callback=_page,
    help="Write all of it as one page for a browser: timeline, roofline, where time and joules go.",
)
LAYERS = click.option(
    "--layers",
    type=click.IntRange(0),
    metavar="INT",
    default=12,
    show_default=True,
    help="Rows of the tables of layers.",
)


def flag(f: Field[Any], use: str = "", *, unset: bool = False) -> Decorator:
    """Return the flag of an option in a use; `unset` is for commands that must know whether it was given."""
    told: Spelling = f.metadata["flag"]
    name, words = spelled(f), _metavar(f)
    default, text = told.variant(use, f.default)
    if isinstance(f.default, bool):
        words |= {"is_flag": True, "default": f.default != told.negated}
    elif isinstance(f.default, int):
        words |= {"type": click.IntRange(0), "default": default}
    else:
        words |= {"default": default}
    words["show_default"] = "/" in name or (not isinstance(f.default, bool) and default is not None)
    if unset:
        shown = name.partition("/")[0][2:] if isinstance(f.default, bool) else default
        words |= {"default": None, "show_default": False}
        text = text if shown is None else f"{text}  [default: {shown}]"
    return click.option(name, _parameter(f), help=text, shell_complete=COMPLETE.get(f.name), **words)


def _metavar(f: Field[Any]) -> dict[str, Any]:
    told: Spelling = f.metadata["flag"]
    return {"type": click.Choice(told.choices)} if told.choices else {"metavar": told.metavar or None}


def _parameter(f: Field[Any]) -> str:
    """Return the name under which click hands on an option."""
    return flag_of(f)[2:].replace("-", "_")


def flags(use: str, kind: type = Options, *, unset: bool = False) -> tuple[Decorator, ...]:
    """Return the flags of the options that a use has, in order."""
    return tuple(flag(f, use, unset=unset) for f, _ in declared(kind, use))


def assignments(use: str) -> str:
    """Return how the options of a use are given as NAME=VALUE."""
    words = ((f.name, told.metavar or "|".join(told.choices) or "VALUE") for f, told in declared(use=use))
    return ", ".join(f"{name}={value}" for name, value in words)


def chosen(given: Mapping[str, Any]) -> Options:
    """Return the options that a command's flags say; those that it has no flag for are as by default."""
    mode = Mode(**_values(Mode, given))
    return Options(**_values(Options, given), gpu_mode=mode)


def _values(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f.name: given[_parameter(f)] != told.negated if told.negated else given[_parameter(f)]
        for f, told in declared(kind)
        if _parameter(f) in given
    }


SEED = next(flag(f) for f, _ in declared() if f.name == "seed")
(CHIP,) = flags("compile", Machines)
COMPILE = (CHIP, SET, DIM, KERNEL, *flags("compile"))
DELIVER = (JSON, TRACE, ROOFLINE, HTML, LAYERS)
EXECUTE = (*flags("run"), *flags("run", Machines), *flags("run", Mode))
RUN = (*COMPILE, *flags("system"), INPUTS, OUTPUTS, *EXECUTE, *DELIVER)
OPERATOR = (CHIP, SET, *flags("operator"), OUTPUTS, *EXECUTE, *DELIVER)


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
    from ..machine.chip import parse_setting

    return once("--set", [parse_setting(text) for text in texts])


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """Return sizes by dimension, from texts `NAME=INT`."""
    return once("--dim", [_dim(text) for text in texts])


def _dim(text: str) -> tuple[str, int]:
    name, equals, value = (part.strip() for part in text.rpartition("="))
    if not (equals and name and value.isascii() and value.isdigit() and len(value) <= 18):
        raise UserError(f"--dim {text!r}: not NAME=INT with an integer of at least 0 (right: --dim batch=1)")
    return name, int(value)


def once(flag: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs as a dictionary; refuse a key that is given two values."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out and out[key] != value:
            raise UserError(f"{flag} gives '{key}' twice, as {out[key]!r} and as {value!r} (right: once)")
        out[key] = value
    return out
