"""How attention is mapped onto the grid: who holds which queries, and how much of the keys at a time.

Queries that share keys and values are a group; its heads lie one after another, `queries` rows each. A lane
is a row of PEs that share every load of keys and values by multicast, or one PE where a group has too few
queries to fill a row. Each PE of a lane holds `stack` units, up to `rows` queries of one group each, and
meets the keys a block at a time, `panels` panels of `width` keys: one unit after another takes the whole
block, while the next one is loaded. After a block a unit's running result is scaled to the new maximum.

Where groups are too few to fill the grid, their keys may be taken in parts: a part is walked as a group of
its own, and gives a result of its own, which whoever asked for parts has to weigh. Method: Dao et al.,
Flash-Decoding, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory, memory_named
from mtia_emu.program.isa import MOST_COMMANDS, Cast
from mtia_emu.types import DType

from ..builder import LINE, TooLarge, ceil_div, round_up
from ..matmul.plan import RINGS

Array = np.ndarray[Any, Any]
ALWAYS = 1 << 40  # a diagonal that hides no key
LAG = 5  # panels between powers and the scores that take their slot


@dataclass(frozen=True)
class AttentionProblem:
    """The sizes of softmax(tape(q k^T, extras)) v: groups of heads, each of so many queries.

    Key j is hidden from query i of a head where j > i + diagonal. `extra_bytes` is the local memory that
    extras and registers of the tape take for each score, `passes` the SIMD passes of the tape, in fp32.
    """

    groups: int
    heads: int
    queries: int
    keys: int
    dim: int
    value_dim: int
    kind: DType
    space: Memory
    diagonal: int = ALWAYS
    extra_bytes: int = 0
    passes: int = 1
    parts: int = 1  # in which keys are taken, where the diagonal hides none; none of them is empty

    @property
    def part_keys(self) -> int:
        """Return the keys of a part; the last one may have fewer."""
        return ceil_div(self.keys, self.parts)

    @property
    def streams(self) -> int:
        """Return the parts of keys of all groups: what a lane streams is one of them."""
        return self.groups * self.parts

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", memory_named(self.space))


@dataclass(frozen=True)
class AttentionTiling:
    """How a problem is cut: PEs a lane, queries a unit, keys a panel, panels a block, units a PE."""

    lane: int
    rows: int
    width: int
    panels: int
    stack: int = 1

    def __str__(self) -> str:
        return f"lane={self.lane} rows={self.rows}x{self.stack} keys={self.width}x{self.panels}"


class AttentionPlan:
    """A problem on a grid under a tiling: its units, and the passes in which lanes take them."""

    def __init__(self, problem: AttentionProblem, tiles: AttentionTiling, chip: Chip) -> None:
        self.problem, self.tiles, self.chip = problem, tiles, chip
        self.lanes = chip.pes // tiles.lane
        self.split = max(1, self.lanes // problem.streams)  # lanes of one stream
        self.rounds = ceil_div(problem.streams, self.lanes)  # streams of one lane, one after another

    @property
    def cast(self) -> Cast:
        """Return which PEs a load of keys and values feeds."""
        return Cast.ROW if self.tiles.lane > 1 else Cast.NONE

    @property
    def units(self) -> Array:
        """Return [unit, (first row in its group, rows, panels that it needs, panels seen whole)].

        Units of equal positions in all heads stand together, so that a lane's PEs need about the same keys.
        """
        return _units(self.problem, self.tiles.rows, self.tiles.width)

    @cached_property
    def passes(self) -> int:
        """Return how often a lane streams the keys of one group."""
        return ceil_div(len(self.units), self.tiles.lane * self.tiles.stack * self.split)

    def needs(self) -> Array:
        """Return [pass, lane of a group]: the panels that a lane streams, those that any of its PEs needs."""
        together = self.tiles.lane * self.tiles.stack
        need = np.zeros(self.passes * self.split * together, np.int64)
        need[: len(self.units)] = self.units[:, 2]
        return need.reshape(self.passes, self.split, together).max(axis=2)

    def worked(self) -> int:
        """Return the panels that the busiest PE takes of one group, all of its units together."""
        t, need = self.tiles, self.units[:, 2]
        every = np.zeros(self.passes * self.split * t.stack * t.lane, np.int64)
        every[: len(need)] = need
        return int(every.reshape(self.passes, self.split, t.stack, t.lane).sum(axis=(0, 2)).max())

    @property
    def block(self) -> int:
        """Return the panels of a block of keys that there are."""
        return min(self.tiles.panels, ceil_div(self.problem.part_keys, self.tiles.width))

    @property
    def score_rings(self) -> int:
        """Return the accumulators that scores take in turn."""
        tile = round_up(4 * self.tiles.rows * self.tiles.width, LINE)
        sums = round_up(4 * self.tiles.rows * self.problem.value_dim, LINE)
        return min(RINGS, (self.chip.pe.reduce.bytes - sums) // tile)

    @property
    def logit_rings(self) -> int:
        """Return the slots of scores in local memory: from the product by keys to that by values."""
        return self.tiles.panels + LAG

    @property
    def local_bytes(self) -> int:
        """Return about the local memory that the plan takes."""
        p, t = self.problem, self.tiles
        held = RINGS * t.stack * t.rows * p.dim * p.kind.bytes
        held += RINGS * t.panels * t.width * (p.dim + p.value_dim) * p.kind.bytes
        held += t.rows * t.width * (self.logit_rings * p.kind.bytes + p.extra_bytes)
        held += t.rows * p.value_dim * (4 * t.stack + RINGS * p.kind.bytes)
        slots = 2 * RINGS * t.panels + self.logit_rings + 10 * t.stack + 40
        return held + slots * LINE


@lru_cache(maxsize=32)  # tilings differ in more than these
def _units(p: AttentionProblem, rows: int, width: int) -> Array:
    whole = p.heads * p.queries
    if whole // rows > MOST_COMMANDS:  # each unit takes some
        raise TooLarge(
            f"attention: {whole} rows of scores take more than {MOST_COMMANDS} commands; make the problem "
            "smaller (a smaller batch, say)"
        )
    if p.queries < rows:  # a unit spans heads, and so all positions
        first = np.arange(0, whole, rows)
        low, high = np.zeros_like(first), np.full_like(first, p.queries - 1)
        count = np.minimum(rows, whole - first)
    else:
        at = np.arange(0, p.queries, rows)
        low = np.repeat(at, p.heads)
        first = low + np.tile(np.arange(p.heads) * p.queries, len(at))
        count = np.minimum(rows, p.queries - low)
        high = low + count - 1
    seen = np.clip(high + p.diagonal + 1, 0, p.part_keys)  # keys that some query sees
    bare = np.clip(low + p.diagonal + 1, 0, p.part_keys)  # keys that every query sees
    plain = np.where(bare == p.part_keys, ceil_div(p.part_keys, width), bare // width)
    units = np.stack([first, count, np.maximum(-(-seen // width), 1), plain], axis=1)
    units.flags.writeable = False
    return units
