"""Pieces moved and swapped between chips, as long as the slowest chips get faster by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
STEPS = 400  # moves at most
ENOUGH = 1e-6  # a move must gain this share of the whole
TIE = 1e-3  # what the sum of squares of shares counts beside the slowest: it lets moves lead to others


@dataclass
class Chips:
    """Chips with pieces of some kinds.

    `busy` [times, ranks] is what each takes, `left` [ranks] the memory that it has left, `held`
    [kinds, ranks] how many pieces it holds; a piece takes `seconds` [kinds, times] and `bytes` [kinds].
    """

    busy: Array
    left: Array
    held: Array
    seconds: Array
    bytes: Array

    def total(self) -> float:
        """Return the sum of the slowest chip's times, each time by itself."""
        return float(self.busy.max(axis=1).sum())


def balance(chips: Chips) -> None:
    """Move pieces, or swap one for another, while that makes the sum of the slowest chips' times less.

    Each step takes the best move of all. `chips` is changed; the result is the same each time.
    """
    kinds = len(chips.bytes)
    for _ in range(STEPS if chips.busy.shape[1] > 1 else 0):
        found = [_best(chips, a, b) for a in range(kinds) for b in range(-1, kinds) if a != b]
        gain, a, b, source, target = min(found, default=(0.0, 0, 0, 0, 0))
        if gain >= -ENOUGH * chips.total():
            return
        _move(chips, a, source, target)
        if b >= 0:
            _move(chips, b, target, source)


def _move(chips: Chips, kind: int, source: int, target: int) -> None:
    for rank, sign in ((source, -1), (target, 1)):
        chips.busy[:, rank] += sign * chips.seconds[kind]
        chips.left[rank] -= sign * chips.bytes[kind]
        chips.held[kind, rank] += sign


def _best(chips: Chips, a: int, b: int) -> tuple[float, int, int, int, int]:
    """Return (gain, a, b, source, target) of the best move of a piece `a`, for a piece `b` or none (-1)."""
    n = chips.busy.shape[1]
    delta = chips.seconds[a] - (chips.seconds[b] if b >= 0 else 0.0)
    more = chips.bytes[a] - (chips.bytes[b] if b >= 0 else 0.0)
    able = (chips.held[a] > 0)[:, None] & (chips.left >= more)[None, :] & ~np.eye(n, dtype=bool)
    if b >= 0:
        able &= (chips.held[b] > 0)[None, :] & (chips.left >= -more)[:, None]
    if not able.any():
        return 0.0, a, b, 0, 0
    score = np.zeros((n, n))
    for times, step in zip(chips.busy, delta, strict=True):
        before, after = times[:, None] - step, times[None, :] + step
        score += np.maximum(np.maximum(before, after), _others(times)) - times.max()
        mean = max(float(times.mean()), 1e-30)
        squares = before**2 + after**2 - times[:, None] ** 2 - times[None, :] ** 2
        score += TIE * squares / mean
    score[~able] = np.inf
    source, target = np.unravel_index(int(np.argmin(score)), score.shape)
    return float(score[source, target]), a, b, int(source), int(target)


def _others(times: Array) -> Array:
    """Return the most of all times but two chips' own: [ranks, ranks]."""
    n = len(times)
    order = np.argsort(-times, kind="stable")[:3].tolist()
    out = np.full((n, n), -np.inf)
    for place in reversed(order):
        free = np.ones((n, n), bool)
        free[place, :] = free[:, place] = False
        out[free] = times[place]
    return out
