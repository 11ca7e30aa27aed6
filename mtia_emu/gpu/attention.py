"""Fused attention on a GPU: a flash kernel over blocks of queries, the KV cache read once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .facts import Facts, Rate
from .kernel import Board, BytesMoved, GpuKernel, KernelDemand

Array = np.ndarray
MMA_ROWS = 64  # rows of a tensor instruction: fewer are padded
MOST_SPLITS = 64  # estimate: one head's long cache keeps no more blocks busy (aiconfigurator, batch 1 and 2)
LEAST_SPLIT = 256  # keys from which a cache is split (aiconfigurator: a step in time there)
QUERY_BLOCK = 128  # rows of queries that one block of threads holds (FlashAttention-2 and -3, head size 128)


@dataclass(frozen=True)
class HeadShape:
    """Attention of `batch` sequences: `kv_heads` key heads, each with `group` query heads.

    Each of `queries` rows of a head sees `keys` keys; where `causal`, the last query sees all of them, the
    one before it one less, and so on. `key_size` and `value_size` are head sizes, `element` the bytes of an
    element; `warm` is the share of keys and values that L2 holds already (0 in a model; more in a benchmark
    that repeats one small call); `scattered` says where the query heads that share keys do not lie together,
    because there are several sequences and several key heads; `latent` elements of a value are part of its
    key, and are read once. Fields are numbers, or vectors [op] of one
    length, an element an operator; what is worked out of them is as long.
    """

    batch: Array
    kv_heads: Array
    group: Array
    queries: Array
    keys: Array
    key_size: Array
    value_size: Array
    element: float
    causal: bool
    warm: Array | float = 0.0
    scattered: Array | bool = False
    latent: Array | float = 0.0

    @property
    def rows(self) -> Array:
        """Return rows of queries in all heads, [op]."""
        return self.batch * self.kv_heads * self.group * self.queries

    @property
    def kv_bytes(self) -> Array:
        """Return the bytes of the keys and values that are read, [op]."""
        each = self.key_size + self.value_size - self.latent
        return self.batch * self.kv_heads * self.keys * each * self.element

    @property
    def new_bytes(self) -> Array:
        """Return the bytes of the keys and values of the queries' own positions, [op]."""
        return self.kv_bytes / self.keys * np.minimum(self.queries, self.keys)

    @property
    def io_bytes(self) -> Array:
        """Return the bytes of queries and results, and of new keys and values put into the cache, [op]."""
        return self.rows * (self.key_size + self.value_size) * self.element + 2 * self.new_bytes

    @property
    def pairs(self) -> Array:
        """Return computed pairs of query and key, [op]: each block of queries as far as its last one sees."""
        later = self.queries - np.minimum(self.queries, QUERY_BLOCK) if self.causal else 0
        return self.rows * (self.keys - later / 2)

    @property
    def macs(self) -> Array:
        """Return multiply-adds of both products over `pairs`, [op]."""
        return self.pairs * (self.key_size + self.value_size)

    def decodes(self, packed: bool) -> Array:
        """Return whether query heads that share keys are rows of one block, which reads them once, [op]."""
        rows = self.group * self.queries
        return (rows <= QUERY_BLOCK) & (np.asarray(self.queries) == 1 if not packed else True)

    def reads(self, most: int) -> Array:
        """Return how often a decode reads a key, [op]: once, or for each head where over `most` share it."""
        return np.where(np.asarray(self.group) <= most, 1.0, self.group)

    def blocks(self, packed: bool, most: int) -> Array:
        """Return blocks of queries, [op]."""
        each = self.group * np.ceil(self.queries / QUERY_BLOCK)
        return self.batch * self.kv_heads * np.where(self.decodes(packed), self.reads(most), each)


@dataclass(frozen=True)
class Parts:
    """Seconds, [op]: of the operator's start, of rounds of blocks, of tensor cores, of DRAM and of L2."""

    start: Array
    rounds: Array
    tensor: Array
    dram: Array
    l2: Array
    decodes: Array

    @property
    def seconds(self) -> Array:
        """Return the time at full clock, in seconds [op].

        A block of prefill loads its queries before, and stores its results after, it computes: its parts
        add. A block that decodes streams keys and values while it computes; rounds and bytes overlap in part.
        """
        memory = np.maximum(self.dram, self.l2)
        decode = np.hypot(self.rounds, np.maximum(self.tensor, memory))
        return self.start + np.where(self.decodes, decode, self.rounds + self.tensor + memory)


def parts(facts: Facts, rate: Rate, h: HeadShape) -> Parts:
    """Return what attention asks of each resource, [op]."""
    a = facts.attention
    decodes, blocks = h.decodes(a.packed), h.blocks(a.packed, a.shared_heads)
    streamed = np.where(decodes, h.kv_bytes * h.reads(a.shared_heads), 0.0)
    share = np.where(decodes, a.decode_dram_efficiency, a.prefill_dram_efficiency)
    moved = h.kv_bytes + h.io_bytes
    splits = np.minimum(np.ceil(h.keys / QUERY_BLOCK), MOST_SPLITS)
    busy = np.where(
        decodes, np.minimum(np.maximum(blocks, np.minimum(blocks * splits, facts.sms)), facts.sms), facts.sms
    )
    split = decodes & (blocks < facts.sms) & (np.asarray(h.keys) >= LEAST_SPLIT)
    copies = decodes & a.copies_heads & (h.group > 1) & np.asarray(h.scattered)
    copy_s = 2 * (facts.launch_graph_s + facts.dram_latency_s)
    start = np.where(decodes, a.decode_s, a.prefill_s) + np.where(split, a.split_s, 0.0)
    return Parts(
        start=start + np.where(copies, copy_s, 0.0),
        rounds=blocks / facts.sms * np.where(decodes, a.block_s, a.query_block_s),
        tensor=_tensor(facts, rate, h, decodes),
        dram=moved * (1 - np.asarray(h.warm)) / (facts.dram_bytes_per_s * share),
        l2=np.maximum(
            np.maximum(moved, streamed) / facts.l2_bytes_per_s, streamed / (busy * a.sm_bytes_per_s)
        ),
        decodes=decodes,
    )


def _tensor(facts: Facts, rate: Rate, h: HeadShape, decodes: Array) -> Array:
    """Return the seconds of tensor cores, [op]: of all blocks, or of the one that sees most keys."""
    speed = rate.flops_per_s * facts.max_clock_hz / facts.clock_hz * facts.attention.efficiency
    rows = h.group * h.queries
    total = 2 * h.macs * MMA_ROWS / np.minimum(rows, MMA_ROWS)
    longest = 2 * QUERY_BLOCK * h.keys * (h.key_size + h.value_size) * facts.sms
    return np.where(decodes, total, np.maximum(total, longest)) / speed


def seconds(facts: Facts, rate: Rate, h: HeadShape) -> Array:
    """Return the time of attention at full clock, in seconds [op]."""
    return parts(facts, rate, h).seconds


def attention(board: Board, rate: Rate, h: HeadShape) -> GpuKernel:
    """Return the kernel of one attention operator; all fields of `h` are numbers."""
    p = parts(board.facts, rate, h)
    read, write = float(h.kv_bytes + h.io_bytes / 2), float(h.io_bytes / 2)
    return finished(board, rate, h, p, ("attention", read, write, float(h.macs)))


def finished(
    board: Board, rate: Rate, h: HeadShape, p: Parts, made: tuple[str, float, float, float]
) -> GpuKernel:
    """Return a kernel of some parts: `made` has its name, the bytes read and written, and multiply-adds."""
    name, read, write, macs = made
    each = {"tensor": p.tensor, "dram": p.dram, "l2": p.l2, "occupancy": p.rounds}
    bound = max(each, key=lambda name: float(each[name]))
    joules = 2 * rate.j_per_flop * macs
    body = {bound: float(p.seconds - p.start)}
    cold = 1 - float(np.asarray(h.warm))
    moved = BytesMoved(read * cold, write * cold, read, write)
    return board.finished(KernelDemand(name, float(p.start), body, moved, joules))
