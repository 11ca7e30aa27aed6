"""Kernels that memory binds: elementwise and move streams, rows of norms, embedding bags."""

from __future__ import annotations

import math

from ..sums import add_up
from ..types import Work
from .facts import Facts
from .kernel import GpuKernel, priced, throttled

WARP_BYTES = 512  # one load of a warp: 32 lanes of 16 bytes (CUDA C programming guide)
INDEX_BYTES = 12  # at most, each look-up: an int64 index and an fp32 weight
OFFSET_BYTES = 8  # at most, each bag: an int64
BLOCK = 1024  # threads of a block: the elements of a row that one step takes (CUDA C programming guide)
WARP = 32  # threads of a warp, and the most blocks that an SM holds (CUDA C programming guide, 8.0 and 9.0)
NARROW = ("rotary",)
"""Operators whose kernels give a row to a block whose threads move one 16-bit element at a time (vLLM,
csrc/pos_encoding_kernels.cu): too few bytes are on their way to fill a stream."""


def finish(
    facts: Facts,
    text: str,
    parts: dict[str, float],
    latency: float,
    traffic: tuple[float, float, float, float],
    flops_joules: float,
    sustained: bool,
) -> GpuKernel:
    """Return the kernel whose parts overlap: its latency, then its longest part, under the power limit."""
    longest = max(parts, key=lambda name: parts[name])
    free = latency + parts[longest]
    joules = (
        (facts.active_w - facts.idle_w) * free,
        float(facts.heat(free, sustained)) * flops_joules,
        facts.dram_j_per_byte * (traffic[0] + traffic[1]),
    )
    seconds = float(throttled(facts, free, add_up(joules)))
    bound = "launch" if latency > parts[longest] else "power" if seconds > 1.01 * free else longest
    return priced(facts, text, seconds, traffic, joules, bound)


def stream(facts: Facts, work: Work, sustained: bool = False, narrow: bool = False) -> GpuKernel:
    """Return an elementwise, reduction or copy kernel; `narrow` is one like those of `NARROW`.

    Its operands are fresh activations: what L2 keeps of them (`l2_resident`) never reaches DRAM, so small
    tensors move at L2 bandwidth. An operation that is no multiply-add takes the slot of one: half of
    `vector_flops_per_s`. A norm or softmax adds `_rows_s` to the time of its bytes. A narrow kernel goes
    through a row once: its steps, or all bytes at its share of bandwidth, whichever takes longer.
    """
    total = float(work.read_bytes + work.write_bytes)
    share = 1.0 - facts.resident_bytes(total) / total if total else 0.0
    elements = max(1, math.prod(work.shape))
    parts = {
        "dram": total * share / facts.stream_bytes_per_s,
        "l2": total / facts.l2_bytes_per_s,
        "occupancy": (2.0 * work.macs + work.flops) / (facts.vector_flops_per_s / 2),
    }
    latency = facts.launch_graph_s + facts.dram_latency_s
    if narrow:
        bytes_s = total / (facts.stream_bytes_per_s * facts.narrow_efficiency)
        steps_s = math.ceil(work.row / BLOCK) * facts.narrow_step_s
        parts["occupancy"] = max(parts["occupancy"], bytes_s, steps_s)
    elif work.row:
        rows_s = _rows_s(facts, elements / work.row, work.row)
        parts = {name: part + rows_s for name, part in parts.items()}
    traffic = (
        work.read_bytes * share,
        work.write_bytes * share,
        float(work.read_bytes),
        float(work.write_bytes),
    )
    joules = facts.vector_j_per_flop * (2.0 * work.macs + work.flops)
    return finish(facts, work.kind, parts, latency, traffic, joules, sustained)


def _rows_s(facts: Facts, rows: float, row: int) -> float:
    """Return the seconds that norms or softmaxes of `rows` rows wait for their own reductions.

    A block of threads takes a row, `BLOCK` elements a step, each step as long as a round trip; short rows
    take small blocks, so that an SM works on more of them.
    """
    threads = min(BLOCK, WARP * math.ceil(row / WARP))
    in_flight = min(WARP, facts.rows_in_flight * BLOCK // threads)
    return math.ceil(rows / (facts.sms * in_flight)) * math.ceil(row / BLOCK) * facts.row_step_s


def embedding_bag(facts: Facts, work: Work, sustained: bool = False) -> GpuKernel:
    """Return a pooled look-up kernel: random reads of whole rows, uniform over the table.

    A row moves in whole sectors and costs an activate on top. A read hits L2 with the share of the table
    that L2 holds, after its first read. Row requests, a warp's load each, are served `sms *
    lookups_in_flight` at a time, one latency each round (Little's law). Pooled sums and indices are
    streams; indices are what `read_bytes` has beyond the distinct rows.
    """
    lookups, bags, dim, rows = work.shape
    row = math.ceil(dim * work.dtype.bytes / facts.dram_sector_bytes) * facts.dram_sector_bytes
    first = rows * -math.expm1(-lookups / rows) if rows else 0.0
    hit = min(1.0, facts.l2_bytes / 2 / (rows * row)) if rows else 0.0
    misses = first + (lookups - first) * (1.0 - hit)
    most = INDEX_BYTES * lookups + OFFSET_BYTES * (bags + 1)
    indices = min(most, max(0.0, work.read_bytes - min(lookups, rows) * dim * work.dtype.bytes))
    fetched = lookups * row + indices
    slots = facts.sms * facts.lookups_in_flight
    rounds = math.ceil(lookups * math.ceil(row / WARP_BYTES) / slots)
    busy_bytes = misses * (row + facts.dram_activate_bytes) + indices + work.write_bytes
    parts = {
        "dram": busy_bytes / facts.stream_bytes_per_s,
        "l2": (fetched + work.write_bytes) / facts.l2_bytes_per_s,
        "occupancy": rounds * facts.dram_latency_s,
    }
    traffic = (misses * row + indices, float(work.write_bytes), fetched, float(work.write_bytes))
    latency = facts.launch_graph_s + facts.dram_latency_s
    joules = facts.vector_j_per_flop * float(work.flops)
    return finish(facts, work.kind, parts, latency, traffic, joules, sustained)
