"""Code of other people's that we run: what it raises becomes an error that names it and its line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from mtia_emu import settings
from mtia_emu.errors import UserError

from .graph import Graph, RuleOutcome
from .passes import Pass, Rules

OURS = "mtia_emu."
IN_FILE = "mtia_emu_own_"  # how the modules begin that `plugins.execute` makes of a file


@contextmanager
def blamed(step: Pass) -> Iterator[None]:
    """Raise `UserError` for whatever somebody else's pass raises meanwhile, with its file and line.

    A `UserError` that it raises keeps its words. What a pass of ours raises is a fault of ours.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # somebody's pass: whatever it raises
        if type(step).__module__.startswith(OURS):
            raise
        raise UserError(f"{label(step)}: {raised(error, type(step))}") from error


def apply(step: Pass, graph: Graph) -> tuple[Graph, list[RuleOutcome]]:
    """Return the graph after a pass, unchecked, and what its rules did, where it is made of rules."""
    after, outcomes = step.apply(graph) if isinstance(step, Rules) else (step(graph), [])
    if not isinstance(after, Graph):
        raise UserError(f"{label(step)}: gives {type(after).__name__} (right: a Graph)")
    return after, outcomes


def label(step: Pass) -> str:
    """Return what messages call a pass: `pass NAME`, of one in a file `pass FILE.py:NAME`."""
    module = type(step).__module__
    file = f"{_shown(_file_of(module))}:" if module.startswith(IN_FILE) else ""
    return f"pass {file}{step.name}"


def raised(error: BaseException, owner: type[Any]) -> str:
    """Return `raises ValueError: why (FILE.py:LINE)`: the last line of the owner's file on the way there.

    `MTIA_EMU_DEBUG=1` prints the whole way to standard error.
    """
    if settings.integer(settings.DEBUG):
        traceback.print_exception(error)
    place = place_of(error.__traceback__, _file_of(owner.__module__))
    why = ": ".join(filter(None, (type(error).__name__, (str(error).splitlines() or [""])[0])))
    return f"raises {why}" + (f" ({place})" if place else "")


def place_of(trace: TracebackType | None, file: str) -> str:
    """Return FILE:LINE of the last frame in a file; of the last frame of all, where none is in it."""
    frames = traceback.extract_tb(trace)
    in_file = [f for f in frames if file and os.path.abspath(f.filename) == os.path.abspath(file)]
    last = (in_file or frames)[-1:]
    return f"{_shown(last[0].filename)}:{last[0].lineno}" if last else ""


def _file_of(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _shown(file: str) -> str:
    """Return a file by its path from the current folder, where it lies in it."""
    here = os.path.join(os.path.abspath(os.curdir), "")
    return file.removeprefix(here)
