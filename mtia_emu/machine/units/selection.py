"""The k first of a row in order: which they are, and how many steps a heap takes to keep them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def first_places(x: Array, k: int, largest: bool, nan_least: bool) -> Array:
    """Return the places int64[..,k] of the k largest, or least, along the last axis of x, in their order.

    Of equal elements the first comes first. NaN is the largest, or the least.
    """
    keys = x if x.dtype.kind in "iub" or x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    if largest:  # backwards, and equal elements back in their own order
        order = x.shape[-1] - 1 - np.flip(_ascending(np.flip(keys, -1), nan_least), -1)
    else:
        order = _ascending(keys, nan_least)
    return np.ascontiguousarray(order[..., :k], dtype=np.int64)


def _ascending(keys: Array, nan_least: bool) -> Array:
    """Return the places of keys along the last axis, from the least on and equal ones in order."""
    if not nan_least:
        return np.argsort(keys, axis=-1, kind="stable")
    return np.lexsort((keys, ~np.isnan(keys)), axis=-1)


def heap_steps(cols: Array | int, k: Array | int) -> Array:
    """Return the steps in which a heap keeps the k first of `cols` elements in random order.

    Element n enters with probability k / n once there are k: k (1 + ln(cols / k)) do, on average (the record
    values of Renyi, 1962). Each passes the levels of the heap. A row sorted the other way takes up to cols
    times that.
    """
    entering = np.maximum(np.asarray(k, np.float64), 1)
    longer = np.log(np.maximum(np.asarray(cols, np.float64) / entering, 1))
    return entering * (1 + longer) * np.ceil(np.log2(entering) + 1)
