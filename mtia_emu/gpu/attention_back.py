"""The way back through attention on a GPU: five products over the same blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .attention import HeadShape, finished, parts
from .facts import Rate
from .kernel import Board, GpuKernel

BACK_EFFICIENCY = 0.695
"""Rate of the way back over that of the way there: the geometric mean of 124.57 / 169.28 and 99.23 / 151.19
TFLOP/s, FlashAttention-2 on an RTX 4090 at head size 128 (apache/tvm tl_doc/flash_perf.md); at head size 64,
which was left out, 0.739 and 0.679.
"""


def attention_back(board: Board, rate: Rate, h: HeadShape) -> GpuKernel:
    """Return the kernel of the way back through one attention operator, as FlashAttention has it.

    Five products instead of two (2.5 times the work), at BACK_EFFICIENCY of the forward pass's rate; each
    block of keys goes through all queries. Results and their gradients are read too, and gradients of queries
    are added up in fp32 and cast, by a kernel before and one behind.
    """
    p = parts(board.facts, rate, h)
    work = float((3 * h.key_size + 2 * h.value_size) / (h.key_size + h.value_size))
    results = float(h.rows * h.value_size * h.element)
    read = float(h.kv_bytes + h.io_bytes / 2) + 2 * results
    write = float(h.rows * h.key_size * (h.element + 4) + h.kv_bytes)
    stream = board.facts.dram_bytes_per_s * board.facts.attention.prefill_dram_efficiency
    p = replace(
        p,
        start=p.start + 2 * board.facts.launch_graph_s,
        rounds=p.rounds * work / BACK_EFFICIENCY,
        tensor=p.tensor * work / BACK_EFFICIENCY,
        dram=np.asarray((read + write) / stream),
        l2=np.asarray((read + write) / board.facts.l2_bytes_per_s),
    )
    return finished(board, rate, h, p, ("attention back", read, write, float(h.macs) * work))
