"""Folders that are gone when their work is done, or when its process is: by name, by owner, by lock.

A process that is killed outright leaves its folder behind. The lock on a file in it goes with the process, so
the next one that makes such a folder can tell and removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX = "mtia-emu-tmp-"
OWNER = ".owner"  # the file that its process keeps locked
YOUNG_SECONDS = 60.0  # not looked at: it may be about to be locked


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a new folder, which goes at the end with all that is in it; those of dead processes go first."""
    remove_stale(Path(tempfile.gettempdir()))
    temporary = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with temporary as name, _kept_locked(Path(name, OWNER)):
        yield Path(name)


def remove_stale(place: Path) -> None:
    """Remove the folders that processes of this user made in a place and did not live to remove."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            if entry.name.startswith(PREFIX) and _is_stale(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder is ours and no process keeps it locked; False where that cannot be told."""
    try:
        return entry.is_dir(follow_symlinks=False) and _is_left(entry, os.path.join(entry.path, OWNER))
    except OSError:
        return False


def remove_drafts(place: str, start: str, end: str) -> None:
    """Remove files with such names that processes of this user kept locked and did not live to remove."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            if entry.name.startswith(start) and entry.name.endswith(end) and _is_left(entry, entry.path):
                os.unlink(entry.path)


def _is_left(entry: os.DirEntry[str], owner: str) -> bool:
    """Return whether something old is ours and no process keeps the file `owner` locked."""
    try:
        import fcntl

        status = entry.stat(follow_symlinks=False)
        if time.time() - status.st_mtime < YOUNG_SECONDS or status.st_uid != os.geteuid():
            return False
        with open(os.open(owner, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (ImportError, OSError):
        return False


def keep_locked(file: IO[bytes]) -> None:
    """Lock an open file until it is closed, where there are locks."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _kept_locked(path: Path) -> Iterator[None]:
    """Keep a new file locked, where there are locks."""
    with open(path, "xb") as file:
        keep_locked(file)
        yield
