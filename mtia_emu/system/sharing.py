"""Max-min fair sharing: how fast flows run that take bytes from common resources, and when the last ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SAME = 1e-9  # relative: rates and ends this close are one


@dataclass(frozen=True)
class Use:
    """Who uses what: in entry i, `flow[i]` takes `weight[i]` bytes of `resource[i]` for each of its own."""

    flow: Array
    resource: Array
    weight: Array


def fair_rates(use: Use, flows: int, capacity: Array) -> Array:
    """Return each flow's rate in bytes a second, max-min fair: none can gain without a slower one losing.

    All flows rise together; where a resource is full, its flows stay, and the others go on (progressive
    filling; Bertsekas and Gallager, Data Networks, 6.5). A flow that uses nothing is infinitely fast.
    """
    rates = np.full(flows, np.inf)
    open_, left = np.zeros(flows, bool), np.asarray(capacity, float).copy()
    open_[use.flow] = True
    while open_.any():
        live = open_[use.flow]
        asked = np.bincount(use.resource[live], use.weight[live], len(left))
        share = np.full(len(left), np.inf)
        np.divide(left, asked, out=share, where=asked > 0)
        least = share.min()
        full = share <= least * (1 + SAME)
        stuck = np.zeros(flows, bool)
        stuck[use.flow[live & full[use.resource]]] = True
        rates[stuck] = least
        taken = live & stuck[use.flow]
        left -= np.bincount(use.resource[taken], use.weight[taken] * least, len(left))
        np.maximum(left, 0.0, out=left)
        open_ &= ~stuck
    return rates


def last_end_s(use: Use, bytes_: Array, capacity: Array) -> float:
    """Return when the last of flows of so many bytes ends, in seconds; all start at once.

    A flow that ends leaves its share to the others.
    """
    left = np.asarray(bytes_, float).copy()
    now = 0.0
    live = left > 0
    while live.any():
        entries = live[use.flow]
        part = Use(use.flow[entries], use.resource[entries], use.weight[entries])
        rates = fair_rates(part, len(left), capacity)
        ends = np.where(live, left / rates, np.inf)
        step = float(ends.min())
        now += step
        done = live & (ends <= step * (1 + SAME))
        left[live] -= rates[live] * step if np.isfinite(rates[live]).all() else 0.0
        left[done] = 0.0
        live &= ~done
    return now
