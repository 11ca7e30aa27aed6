"""A step table from measured kernel times of a decoder: a CSV of times by layer and sizes.

Columns: `layer`, `tokens_or_chunk`, `kv_prefill`, `n_decode`, `kv_decode`, `time_us`. A row `attention` is
one kernel that serves a chunk after `kv_prefill` tokens together with `n_decode` sequences of `kv_decode`
keys, 0 for none of either. All others go by `tokens_or_chunk` alone: sequences for `BY_SEQUENCES`, tokens for
the rest.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .step_table import GroupedSteps, TableFacts
from .surfaces import Curve, Floats, MixedRatio, Surface

COLUMNS = ("layer", "tokens_or_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
ONCE = {"embedding": 1, "final_layernorm": 1}  # in a step, not in each layer
EACH_LAYER = {
    "layernorm": 2, "qkv_proj": 1, "rotary_emb": 1, "o_proj": 1,
    "gate_up_proj": 1, "act_fn": 1, "down_proj": 1,
}  # fmt: skip
BY_SEQUENCES = {"lm_head": 1, "sampler": 1}
ATTENTION = "attention"
MAX_FILE_BYTES = 1 << 24
MOST_SIZE = 1 << 30
MOST_US = 1e9

_Point = tuple[int, int, int, int]
_Times = Mapping[str, Mapping[_Point, float]]


def read_kernels(path: str | Path, facts: TableFacts, layers: int) -> GroupedSteps:
    """Return the step table of measured kernels of a decoder of so many layers; its joules are not known.

    Where anchors of a grid are missing the largest full grid that holds the least corner is taken. Raises
    `UserError` for a file of another form, or without one of the kernels of a step.
    """
    where = str(path)
    times = _times(_text(path), where)
    for name in (*ONCE, *EACH_LAYER, *BY_SEQUENCES, ATTENTION):
        if name not in times:
            raise UserError(
                f"{where}: no time of the kernel {name!r} (right: one for each of a step's kernels)"
            )
    linear = ONCE | {name: layers * count for name, count in EACH_LAYER.items()}
    prefill = _surface(times[ATTENTION], (0, 1), layers, where)
    decode = _surface(times[ATTENTION], (2, 3), layers, where)
    mixed = _mixed(times[ATTENTION], prefill, decode, layers)
    return GroupedSteps(
        *(facts, _curve(times, linear, where), _curve(times, BY_SEQUENCES, where)), prefill, decode, mixed
    )


def _curve(times: _Times, counts: Mapping[str, int], where: str) -> Curve:
    """Return the seconds of kernels, each so often, by their one size; at sizes that all were measured at."""
    common = sorted(set.intersection(*({k[0] for k in times[name]} for name in counts)))
    if not common:
        raise UserError(f"{where}: no size at which {', '.join(counts)} were all measured")
    seconds = [sum(n * times[name][size, 0, 0, 0] for name, n in counts.items()) for size in common]
    return Curve(np.asarray(common, float), _columns(np.asarray(seconds) * 1e-6))


def _surface(times: Mapping[_Point, float], axes: tuple[int, int], layers: int, where: str) -> Surface:
    """Return attention's seconds by two of its sizes, where the two others are 0."""
    others = [i for i in range(4) if i not in axes]
    known = {
        (k[axes[0]], k[axes[1]]): t for k, t in times.items() if k[axes[0]] and not any(k[i] for i in others)
    }
    x, y = _full_grid(known)
    if not x or not y:
        raise UserError(
            f"{where}: attention has no grid of {COLUMNS[1 + axes[0]]} and {COLUMNS[1 + axes[1]]}"
        )
    seconds = np.array([[known[a, b] for b in y] for a in x]) * (layers * 1e-6)
    return Surface(np.asarray(x, float), np.asarray(y, float), _columns(seconds))


def _mixed(
    times: Mapping[_Point, float], prefill: Surface, decode: Surface, layers: int
) -> MixedRatio | None:
    """Return how the time of one kernel for both compares with the sum of each alone; None where none was."""
    known = {k: t for k, t in times.items() if k[0] and k[2]}
    axes = _full_grid(known)
    if not all(axes):
        return None
    chunks, pasts, decodes, contexts = (np.asarray(a, float) for a in axes)
    both = np.array(
        [[[[known[c, p, n, k] for k in axes[3]] for n in axes[2]] for p in axes[1]] for c in axes[0]]
    )
    alone = _grid(prefill, chunks, pasts)[:, :, None, None] + _grid(decode, decodes, contexts)
    return MixedRatio((chunks, pasts, decodes, contexts), both * (layers * 1e-6) / alone)


def _grid(surface: Surface, x: Floats, y: Floats) -> Floats:
    at_x, at_y = np.meshgrid(x, y, indexing="ij")
    return surface.each(at_x.ravel(), at_y.ravel())[:, 0].reshape(at_x.shape)


def _full_grid(known: Mapping[Any, float]) -> tuple[list[int], ...]:
    """Return axes of a grid of which each point is known: from the least corner, the worst values dropped."""
    if not known:
        return ([],)
    width = len(next(iter(known)))
    least = [min(k[i] for k in known) for i in range(width)]
    axes = [
        sorted({k[i] for k in known if all(k[j] == least[j] for j in range(width) if j != i)})
        for i in range(width)
    ]
    while all(axes):
        inside = [k for k in known if all(x in axis for x, axis in zip(k, axes, strict=True))]
        if len(inside) == math.prod(map(len, axes)):
            return tuple(axes)
        counts = [
            (sum(k[i] == x for k in inside) * len(axis), i, x) for i, axis in enumerate(axes) for x in axis
        ]
        _, i, x = min(counts)
        axes[i].remove(x)
    return tuple(axes)


def _columns(seconds: Floats) -> Floats:
    """Return the columns of measured seconds: joules not known, and no error of their own at anchors."""
    return np.stack([seconds, np.full_like(seconds, math.nan), np.zeros_like(seconds)], axis=-1)


def _times(text: str, where: str) -> _Times:
    rows = csv.reader(StringIO(text))
    if tuple(next(rows, ())) != COLUMNS:
        raise UserError(f"{where}: its first line is not {','.join(COLUMNS)}")
    out: dict[str, dict[_Point, float]] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(COLUMNS):
            raise UserError(f"{where}: line {number} has {len(row)} fields (right: {len(COLUMNS)})")
        size, past, decodes, context = (
            _size(x, name, f"{where}: line {number}") for name, x in zip(COLUMNS[1:5], row[1:5], strict=True)
        )
        out.setdefault(row[0], {})[size, past, decodes, context] = _time(row[5], f"{where}: line {number}")
    return out


def _size(text: str, name: str, where: str) -> int:
    """Return a size; one that a kernel does not have is 0."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MOST_SIZE):
        raise UserError(f"{where}: {name} is {text[:40]!r} (right: a whole number up to {MOST_SIZE})")
    return int(text)


def _time(text: str, where: str) -> float:
    try:
        value = float(text[:40])
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_US:
        raise UserError(
            f"{where}: time_us is {text[:40]!r} (right: microseconds above 0, at most {MOST_US:g})"
        )
    return value


def _text(path: str | Path) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error} (right: a CSV of kernel times)") from None
    if len(text) > MAX_FILE_BYTES:
        raise UserError(f"{path}: more than {MAX_FILE_BYTES} letters; a table of kernels has no more")
    return text
