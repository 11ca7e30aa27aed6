"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave is wrong: the message says what, where, the value seen and what would be right.

    The command line prints it without a traceback and exits with 2. Any other exception is a fault of ours.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word most like `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def refuse_unknown(what: str, word: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among `known`."""
    names = sorted(known)
    known_ones = f"known: {', '.join(names)}" if names else "there is none"
    return UserError(f"unknown {what} '{word}'{nearest(word, names)} ({known_ones})")
