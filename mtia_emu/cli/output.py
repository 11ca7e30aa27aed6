"""What the command line gives back: progress, tables, files; and errors as one line without a traceback."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .. import settings
from ..errors import UserError
from ..processes import end_tidily, leave_current_folder
from . import answers
from .groups import grouped

if TYPE_CHECKING:
    from rich.console import Console

    from ..api import Outcome
    from ..results.report import Report
    from ..study.system_run import SystemOutcome

EXIT_CHECK_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXITS = {  # code: when, as docs/reference/settings.md lists them
    0: "all went well",
    EXIT_CHECK_FAILED: "a check failed: an output beyond tolerance (`--check` of `run`, `gemm`, `tbe` and "
    "`train`), a pass that changes results (`opt`), a fault that was found (`fuzz`), a test that failed "
    "(`conformance`)",
    EXIT_USER_ERROR: "something given is wrong, or a file cannot be written: one line on standard error says "
    "what, where, and what would be right",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C",
    143: "ended by a signal: 128 and its number, 15 of SIGTERM",
}
LONGEST = 10_000  # characters of an error
# Objects that are made between two searches for circles of them: loading code makes many, and few circles.
RARELY = (100_000, 50, 100)
WIDTH, NARROWEST = 80, 20  # columns of what has no width, and of what has too little
Tick = Callable[[str, int, int], None]


class CommandGroup(click.Group):
    """The command group: what is the user's to mend ends as a line and exit code 2, never a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by who uses them."""
        for title, names in grouped(self.list_commands(ctx)).items():
            rows = [(name, self.commands[name].get_short_help_str(80)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; text that the terminal has no letters for is printed as escapes."""
        key = None
        if not (args or kwargs):  # as a program of its own, not called by another
            key = answers.question(sys.argv[1:])
            if key is not None:
                answers.listen()
            open_what_is_closed()
            leave_current_folder()
            end_tidily()
            gc.set_threshold(*RARELY)
            atexit.register(gc.freeze)  # else Python looks through all objects for circles before it ends
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            try:
                return super().main(*args, **kwargs)
            except SystemExit as end:
                if not end.code and key is not None and key == answers.question(sys.argv[1:]):
                    answers.keep(key, answers.PRINTED)
                raise
            finally:
                sys.stdout.flush()  # here, where a full disk can still be told of
        except (UserError, MemoryError, RecursionError, OSError) as error:
            sys.exit(ended(error))


def ended(error: UserError | MemoryError | RecursionError | OSError) -> int:
    """Say what ended the program; return its exit code."""
    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        return _mute(0)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or error
        return _mute(_fail(f"cannot write the output or a temporary file{where}: {reason}"))
    if settings.integer(settings.DEBUG):
        raise error
    if isinstance(error, MemoryError):
        return _fail(
            "out of memory: what is given asks for more than there is (right: something smaller; a model is "
            "only timed without --check and --inputs)"
        )
    return _fail("the input is nested too deeply")


def _fail(message: str) -> int:
    """Print an error, of one that is as long as a file the beginning."""
    if len(message) > LONGEST:
        message = f"{message[:LONGEST]}... ({len(message) - LONGEST} more characters)"
    with contextlib.suppress(OSError):
        say(f"error: {message}", err=True)
    return EXIT_USER_ERROR


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text; control characters, which names in files may hold, are shown, not obeyed.

    The only door by which commands print but for the tables of `console`.
    """
    from ..view.text import printable

    shown = printable(text)
    if err:
        answers.PRINTED.note(shown + "\n" * nl, err=True)
    click.echo(shown, err=err, nl=nl)


def open_what_is_closed() -> None:
    """Open standard streams that whoever started us has closed, on nothing: no file may take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _mute(code: int) -> int:
    """Send what is still to be flushed to standard output nowhere: it has failed once already."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def console(*, err: bool = False) -> Console:
    """Return the console that tables are printed on."""
    from rich.console import Console

    screen = Console(stderr=err, highlight=False, soft_wrap=False)
    screen.width = max(screen.width, NARROWEST) if screen.width > 0 else WIDTH  # COLUMNS=0: of no known width
    return screen


@contextmanager
def progress() -> Iterator[Tick | None]:
    """Give a function that shows progress on a terminal (on stderr); None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(err=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int) -> None:
            for name, task in tasks.items():
                if name != stage:
                    bar.update(task, visible=False)
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total, visible=True)

        yield tick


def say_notes(notes: Iterable[str]) -> None:
    """Say on stderr what the user should hear of a model."""
    for note in notes:
        say(f"note: {note}", err=True)


def deliver(outcome: Outcome | SystemOutcome, flags: dict[str, Any]) -> None:
    """Write the files that were asked for and print the report; exit 1 where the check failed."""
    _write_files(outcome, flags)
    to = flags["json_file"]
    if to is not None:
        _write_report(outcome, to)
    if to != "-":
        from ..view.terminal import print_report

        print_report(
            outcome.report,
            outcome.gpu,
            outcome.check,
            console(),
            layers=flags["layers"],
            basis=outcome.basis,
        )
    if outcome.check is not None and not outcome.check.passed:
        sys.stdout.flush()
        sys.exit(EXIT_CHECK_FAILED)


def _write_report(outcome: Outcome | SystemOutcome, to: str) -> None:
    from ..files.writing import json_text, write_json
    from ..results.report_json import as_json

    value = as_json(outcome.report, outcome.gpu, outcome.check, outcome.basis)
    if to == "-":
        say(json_text(value), nl=False)
    else:
        write_json(to, value)


def _draw_system(report: Report, flags: dict[str, Any]) -> None:
    """Write the trace of a run over many chips: a track for a chip of each stage, and for links."""
    if flags["roofline"] is not None:
        raise UserError("--roofline draws one chip's layers (right: without --system)")
    if flags["trace"] is not None:
        from ..view.trace import launches, write_trace

        write_trace(flags["trace"], launches(report), report)


def _write_files(outcome: Outcome | SystemOutcome, flags: dict[str, Any]) -> None:
    from ..api import Outcome

    if flags["outputs"] is not None:
        from ..files.npz import write_npz

        write_npz(flags["outputs"], {f"out:{name}": x for name, x in outcome.outputs.items()})
    if flags["html_file"] is not None:
        from .pages import write_run

        write_run(outcome, flags["html_file"])
    if not isinstance(outcome, Outcome):
        return _draw_system(outcome.report, flags)
    if flags["trace"] is not None:
        from ..study.trace import trace_events
        from ..view.trace import write_trace

        chip = outcome.chip.at_clock(outcome.report.clock_hz)
        events = trace_events(outcome.program, chip, outcome.lookups)
        write_trace(flags["trace"], events, outcome.report)
    if flags["roofline"] is not None:
        from ..engine.bounds import roofs
        from ..types import dtype
        from ..view.plot import roofline

        roofline(outcome.report, roofs(outcome.chip, dtype(outcome.report.dtype)), flags["roofline"])
