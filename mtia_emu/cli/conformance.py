"""The command `mtia-emu conformance`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import EXIT_CHECK_FAILED, console, progress, say

if TYPE_CHECKING:
    from ..conformance.cases import Verdict
    from ..conformance.models import ModelVerdict


@click.command(short_help="Run ONNX's operator tests, and a folder of models, on the emulator.")
@click.option(
    "--op", "operators", multiple=True, metavar="NAME", help="Only tests of this operator; may be repeated."
)
@click.option("--case", "names", multiple=True, metavar="NAME", help="Only this test; may be repeated.")
@click.option("--models", "folder", metavar="FOLDER", help="Run NAME/model.onnx on NAME/io.npz as well.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that run them."
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write every verdict as JSON; - for standard output."
)
def conformance(
    operators: tuple[str, ...],
    names: tuple[str, ...],
    folder: str | None,
    workers: int,
    json_file: str | None,
) -> None:
    """Compile and execute the tests that the installed onnx has for its operators; compare the answers.

    An operand that must be known when a program is compiled (a shape, axes, a trip count) is bound to the
    test's value; nothing else is. Exit code 1 where an answer is wrong.

    \b
    Examples:
      mtia-emu conformance --workers 2
      mtia-emu conformance --op Resize --op Attention
      mtia-emu conformance --models exported/ --json verdicts.json
    """
    from ..conformance import cases, models

    with progress() as tick:
        wanted = [*names, *(cases.of_operators(operators) if operators else ())]
        verdicts = cases.run(wanted or None, workers, tick)
        ran = models.run(Path(folder), tick) if folder else []
    if json_file is not None:
        _write(json_file, verdicts, ran)
    if json_file != "-":
        _print(verdicts, ran)
    if any(v.status == "failed" for v in verdicts):
        sys.stdout.flush()
        sys.exit(EXIT_CHECK_FAILED)


def _write(to: str, verdicts: list[Verdict], ran: list[ModelVerdict]) -> None:
    from ..conformance.tables import as_json
    from ..files.writing import json_text, write_json

    value = as_json(verdicts, ran)
    if to == "-":
        say(json_text(value), nl=False)
    else:
        write_json(to, value)


def _print(verdicts: list[Verdict], ran: list[ModelVerdict]) -> None:
    from rich.table import Table

    from ..conformance import tables

    parts = [(tables.OPERATOR_COLUMNS, tables.operator_rows(verdicts))]
    if ran:
        parts.append((tables.MODEL_COLUMNS, tables.model_rows(ran)))
    for columns, rows in parts:
        table = Table(*columns, box=None)
        for row in rows:
            table.add_row(*row)
        console().print(table)
    count = tables.totals(verdicts)
    say(
        f"{count['passed']} of {count['cases']} cases pass, {count['failed']} fail, "
        f"{count['unsupported']} are unsupported; {count['bound']} passed with operands bound when compiled, "
        f"{count['folded']} with nothing left to execute"
    )
