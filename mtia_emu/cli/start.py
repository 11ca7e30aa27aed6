"""The program `mtia-emu`: from an answer that is kept, or by the command line."""

from __future__ import annotations

import os
import sys

from ..processes import leave_current_folder
from . import answers


def main() -> None:
    """Run the program with the words that it was started with."""
    leave_current_folder()
    key = answers.question(sys.argv[1:])
    answer = None if key is None else answers.find(key)
    if answer is not None:
        _give(answer)
        return
    from .app import main as command

    command()


def _give(answer: answers.Answer) -> None:
    """Print an answer; exit as a command does where standard output takes no more."""
    try:
        sys.stderr.write("".join(answer.notes))
        sys.stderr.flush()
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stdout.write("".join(answer.out))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from .output import ended

        sys.exit(ended(error))
