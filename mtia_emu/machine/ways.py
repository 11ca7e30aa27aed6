"""The ways of bytes between memories and PEs: what a transfer takes of each resource, and how late it is.

Each way is written once. The timing reading asks for those of a block's commands, kernels' estimates for
those of the transfers that a mapping implies. What a transfer takes of SRAM and of DRAM, which caches and
whole bursts decide, is `Chip.sram_cycles` and `Chip.dram_cycles` of its bytes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .chip import Chip

Array = np.ndarray[Any, Any]
NOWHERE = 0.0  # cycles of a link that is not taken


class Way(NamedTuple):
    """What transfers take, in cycles: of the queue that they are in, of their link, and until they arrive.

    `latency` counts from when the last byte has left, on the slowest resource, until it is there.
    """

    busy: Array
    latency: Array
    on_link: Array | float


@dataclass(frozen=True)
class Transfer:
    """Transfers between a memory and local memories, an element each; arrays that broadcast.

    `bytes` are payload, a multicast's once, in `runs` of consecutive ones; `hops` is the number of links to
    the furthest PE; `by_col` tells the transfers over columns' links. `missed` is the share of reads that
    comes from DRAM, `turned` the bytes that the layout unit turns, `rows` counts rows asked for one by one.
    """

    bytes: ArrayLike
    runs: ArrayLike
    hops: ArrayLike
    by_col: ArrayLike = False
    missed: ArrayLike = 0.0
    turned: ArrayLike = 0.0
    rows: ArrayLike = 0.0


def load(t: Transfer, chip: Chip) -> Way:
    """Return the way from a memory into local memories."""
    on_link, _ = chip.noc.cost(t.bytes, t.by_col, t.hops)
    return Way(_queued(t, chip), read_latency(t.hops, t.missed, chip), on_link)


def store(t: Transfer, chip: Chip) -> Way:
    """Return the way from a local memory into a memory, over the link out of the PE's row."""
    on_link, _ = chip.noc.cost(t.bytes, False, t.hops)
    return Way(_queued(t, chip), write_latency(t.hops, chip), on_link)


def stage(t: Transfer, chip: Chip) -> Way:
    """Return the way from DRAM into SRAM, by the chip's own DMA: it has no port to a PE and takes no link."""
    turned, _ = chip.pe.layout.cost(t.turned)
    return Way(turned, read_latency(t.hops, t.missed, chip), NOWHERE)


def gather(t: Transfer, chip: Chip) -> Way:
    """Return the way of indexed rows: each is asked for, and so many requests may be on their way."""
    way = load(t, chip)
    waited = np.asarray(t.rows) * way.latency / chip.pe.dma.outstanding_rows
    asked = np.maximum(waited, np.asarray(t.rows) * chip.pe.core.row_issue_cycles)
    return way._replace(busy=np.maximum(way.busy, asked))


def read_latency(hops: ArrayLike, missed: ArrayLike, chip: Chip) -> Array:
    """Return the cycles, in any shape, until what is read from SRAM, or missed there, is in the PE."""
    return np.asarray(chip.read_latency(missed) + chip.noc.latency(hops) + chip.pe.dma.startup_cycles)


def write_latency(hops: ArrayLike, chip: Chip) -> Array:
    """Return the cycles, in any shape, until what leaves a PE is in its memory."""
    return np.asarray(chip.noc.latency(hops) + chip.pe.dma.startup_cycles)


def _queued(t: Transfer, chip: Chip) -> Array:
    """Return the cycles [transfer] of a PE's queue: of its port or, if that is slower, its layout unit."""
    port, _ = chip.pe.dma.cost(t.bytes, t.runs)
    turned, _ = chip.pe.layout.cost(t.turned)
    return np.maximum(port, turned)


@dataclass(frozen=True)
class Pooled:
    """Embedding bags pooled on their way in, an element a command of some `bags`.

    Each bag looks up `rows` rows of `row_bytes`, whose elements pass the SIMD lanes `passed` times a row.
    """

    bags: Array
    rows: Array
    row_bytes: Array
    passed: Array


def pool(t: Transfer, p: Pooled, chip: Chip) -> Way:
    """Return the way of pooled rows: of each bag the indices come first, then the rows, then their sum.

    A bag's rows come in chunks of one accumulate command; the next chunk comes while one is summed. Of
    `bags_in_flight` bags at once, each resource serves all; one alone waits for every answer.

    An example: 4 bags of 20 rows; a row takes 4 cycles to fetch and 3 to add, 8 rows a chunk, and an answer
    comes after 100. A bag alone: its first chunk 8 * 4 = 32; the second is fetched while the first is summed,
    8 * max(4, 3) = 32; the last 4 rows are there before the second chunk is summed, 8 * 3 = 24, and are
    summed in 12. That is 100, and 2 * 100 for the indices and the first row: 300 a bag. With one bag in
    flight the four take 1,200. With four in flight they take 300 by their own waits, but the DMA fetches 80
    rows, one in 4 cycles: 320. The offsets come first, 100 more: 420.
    """
    way = gather(t, chip)
    core = chip.pe.core
    port, _ = chip.pe.dma.cost(p.row_bytes, 0.0)
    fetch = np.maximum(core.row_issue_cycles, port)
    add, late = chip.pe.simd.row_cost(p.passed)
    alone = p.bags * (2 * way.latency + _summed(p.rows, fetch, add, core.rows_per_accumulate))
    pooling = np.maximum(alone / chip.kernels.bags_in_flight, np.maximum(fetch, add) * t.rows)
    return way._replace(busy=np.maximum(way.busy, way.latency + pooling), latency=way.latency + late)


def _summed(rows: Array, fetch: Array, add: Array, most: int) -> Array:
    """Return the cycles [command] in which rows of a bag come, `fetch` each, and are summed, `add` each."""
    chunk = float(most)
    first = np.minimum(rows, chunk)
    whole = np.floor((rows - first) / chunk)
    last = rows - first - whole * chunk
    end = np.where(last > 0, np.maximum(add * chunk, fetch * last) + add * last, add * first)
    return fetch * first + whole * chunk * np.maximum(fetch, add) + end


def pass_on(bytes_: ArrayLike, chip: Chip) -> Way:
    """Return the way of sums to the next PE of a row or a column, over the reduction network."""
    busy, hop = chip.pe.reduce.cost(bytes_, chip.noc.hop_cycles)
    return Way(busy, np.asarray(hop), NOWHERE)
