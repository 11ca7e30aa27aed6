"""Python processes of ours: started so that no file of the folder where the user works runs in them.

Python looks for modules in the current folder when it is started with `-m` or `-c`, and where `PYTHONPATH`
has an empty entry: a file `random.py` that lies there would be run. Every process that the
product starts is started by way of this module.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

SAFE, SEARCH = "PYTHONSAFEPATH", "PYTHONPATH"


def python(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module as a program of its own; give it `environment()` too."""
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    """Return the environment for such a program, and for all that it starts in turn."""
    out = {key: value for key, value in os.environ.items() if key != SEARCH}
    out[SAFE] = "1"
    entries = _named(os.environ.get(SEARCH, ""))
    if entries:
        out[SEARCH] = os.pathsep.join(entries)
    return out


@contextlib.contextmanager
def safe_children() -> Iterator[None]:
    """Give `environment()` to processes that a library starts meanwhile, which asks nobody how."""
    before = {key: os.environ.get(key) for key in (SAFE, SEARCH)}
    new = environment()
    _put({key: new.get(key) for key in before})
    try:
        yield
    finally:
        _put(before)


@contextlib.contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give processes for functions of ours; raise `UserError` where one of them dies."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with safe_children():
        workers_pool = ProcessPoolExecutor(workers, get_context("spawn"), die_with, (os.getpid(),))
        running = workers_pool._processes  # shutdown forgets them, and waits for what they are at
        try:
            yield workers_pool
        except BrokenProcessPool:
            raise UserError(
                f"one of {workers} worker processes died (out of memory?); fewer workers need less, and "
                "--workers 1 shows where"
            ) from None
        except BaseException:  # an interrupt, an exit: nobody waits for their work
            for process in list(running.values()):
                process.kill()
            raise
        finally:
            workers_pool.shutdown(cancel_futures=True)


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, where it can (Linux); raise EOFError where it has."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        raise EOFError


def end_tidily() -> None:
    """Have a signal to end this program end it as an exit does: what it put down for a while goes."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # another one ends it at once
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # not in the main thread
            if number and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)


def leave_current_folder() -> None:
    """Take the current folder off this program's own path, for what it imports from now on.

    It stays where `PYTHONPATH` names it, if only as `.`, and where the product itself lies in it.
    """
    search, here = os.environ.get(SEARCH, ""), _here()
    if here in ("", os.path.realpath(Path(__file__).parents[1])):
        return
    named, nameless = {os.path.realpath(x) for x in _named(search)}, "" in search.split(os.pathsep)

    def stays(at: int, entry: str) -> bool:
        if at and not (search and nameless):
            return True  # Python puts the folder first, for -m and -c, and where an entry is empty
        place = os.path.realpath(entry or os.curdir)
        return place != here or place in named

    sys.path[:] = [entry for at, entry in enumerate(sys.path) if stays(at, entry)]


def _here() -> str:
    """Return the current folder, without links; "" where it has been removed."""
    try:
        return os.path.realpath(os.getcwd())
    except OSError:
        return ""


def _named(search: str) -> list[str]:
    """Return the entries of a search path in full, without empty ones: nobody writes those on purpose."""
    whole = [x for x in search.split(os.pathsep) if x and (os.path.isabs(x) or _here())]
    return [os.path.abspath(x) for x in whole]


def _put(values: dict[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
