"""Random numbers by counter: the same for the same element, on any number of chips and however often."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the keys between rounds
LOW = np.uint64(0xFFFFFFFF)
PASSES = 25  # an element: of four words 10 rounds of 2 high and 2 low products, 4 xors, 2 additions to keys
BF16_REST = 16  # bits of fp32 that bf16 has not


def philox4x32(counter: tuple[Array, ...], key: tuple[Array, ...]) -> list[Array]:
    """Return four words of 32 random bits of each counter of four words, by a key of two, as uint64 arrays.

    Philox4x32-10 of Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
    """
    c, k = [np.asarray(x).astype(np.uint64) & LOW for x in counter], [np.asarray(x) for x in key]
    k = [x.astype(np.uint64) & LOW for x in k]
    for _ in range(ROUNDS):
        one, two = c[0] * np.uint64(FACTORS[0]), c[2] * np.uint64(FACTORS[1])
        c = [(two >> np.uint64(32)) ^ c[1] ^ k[0], two & LOW, (one >> np.uint64(32)) ^ c[3] ^ k[1], one & LOW]
        k = [(x + np.uint64(step)) & LOW for x, step in zip(k, STEPS, strict=True)]
    return c


def philox(row: Array, column: Array, draw: Array) -> Array:
    """Return 32 random bits for each place and draw, of the operands' type; they broadcast.

    Four columns share a counter, of which each takes a word.
    """
    kind = np.result_type(row, column, draw)
    row, column, draw = np.broadcast_arrays(*(np.asarray(x) for x in (row, column, draw)))
    place, zero = column.astype(np.uint32), np.zeros((), np.uint64)
    words = philox4x32(
        (place >> np.uint32(2), row.astype(np.uint32), zero, zero), (draw.astype(np.uint32), zero)
    )
    chosen = np.choose(place & np.uint32(3), words)
    return np.asarray(chosen.astype(np.uint32)).astype(kind)


def round_random(x: Array, share: Array) -> Array:
    """Return a neighbour of each x, fp32, that bf16 holds: the one away from 0 where `share` is high enough.

    Of shares that are even from 0 to below 1 the mean is x. What is not finite stays as it is.
    """
    value = np.ascontiguousarray(x, np.float32)
    value, share = np.broadcast_arrays(value, np.asarray(share, np.float32))
    bits = value.copy().view(np.uint32)
    more = np.clip(share * np.float32(1 << BF16_REST), 0, (1 << BF16_REST) - 1).astype(np.uint32)
    near = ((bits + more) >> BF16_REST << BF16_REST).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(value), near, value)
