"""Arrays that take long to make, kept on disk by all that they come from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import settings

Array = np.ndarray[Any, Any]
MOST_FILES = 4096  # of a folder: the oldest go, once in a while
ONCE = 32  # writes, about, before the folder is looked at
MOST_BYTES = 1 << 20  # of a file that is looked at


def kept(name: str, source: str, shape: tuple[int, ...], make: Callable[[], Array]) -> Array:
    """Return make(), finite fp64 numbers of that shape, or what was kept of an equal `source`.

    `source` tells all that the numbers come from, the code that makes them included. What is kept lies in the
    folder `name` of `settings.cache_folder()`. A file of another form is written anew; where none can be
    written, nothing is kept.
    """
    digest = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
    try:
        folder = settings.cache_folder() / name
        folder.mkdir(exist_ok=True)
    except OSError:
        return make()
    file = folder / f"{digest}.npy"
    found = _read(file, shape)
    if found is None:
        found = make()
        with suppress(OSError):
            _write(file, found)
    return found


def _read(file: Path, shape: tuple[int, ...]) -> Array | None:
    """Return the numbers in a file, None where it is not there or holds something else."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        found: Any = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(found, np.ndarray) and found.dtype == np.float64 and found.shape == shape
    return found if whole and np.isfinite(found).all() else None


def _write(file: Path, numbers: Array) -> None:
    """Write a file in one step, so that no other process reads half of it, and remove the oldest."""
    draft = file.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as out:
        np.save(out, numbers)
    draft.replace(file)
    if int(file.stem, 16) % ONCE == 0:
        others = sorted(file.parent.iterdir(), key=lambda x: x.stat().st_mtime)
        for old in others[:-MOST_FILES]:
            old.unlink(missing_ok=True)
