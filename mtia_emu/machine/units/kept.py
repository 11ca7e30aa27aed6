"""Arrays that take long to make, kept on disk by all that they come from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...files import disk_cache

Array = np.ndarray[Any, Any]
MOST_FILES = 4096  # of a folder: the oldest go, once in a while
ONCE = 32  # writes, about, before the folder is looked at
MOST_BYTES = 1 << 20  # of a file that is looked at


def kept(name: str, source: str, shape: tuple[int, ...], make: Callable[[], Array]) -> Array:
    """Return make(), finite fp64 numbers of that shape, or what was kept of an equal `source`.

    `source` tells all that the numbers come from, the code that makes them included. What is kept lies in the
    folder `name` of the cache (`disk_cache`). A file of another form is written anew; where none can be
    written, nothing is kept.
    """
    digest = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
    folder = disk_cache.folder(name)
    if folder is None:
        return make()
    file = folder / f"{digest}.numbers"
    numbers = _numbers(disk_cache.read(file, MOST_BYTES), shape)
    if numbers is None:
        numbers = make()
        disk_cache.write(file, np.ascontiguousarray(numbers, "<f8").tobytes())
        if int(digest, 16) % ONCE == 0:
            disk_cache.trim(folder, MOST_FILES)
    return numbers


def _numbers(data: bytes | None, shape: tuple[int, ...]) -> Array | None:
    """Return the numbers that a file holds, in that shape; None where it is not there or holds others."""
    if data is None or len(data) != 8 * math.prod(shape):
        return None
    numbers = np.frombuffer(data, "<f8").reshape(shape).astype(np.float64)
    return numbers if np.isfinite(numbers).all() else None
