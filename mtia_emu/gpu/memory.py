"""Kernels that memory binds: elementwise and move streams, rows of norms, embedding bags."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..sums import add_up
from ..types import FP32, BagWork, CopyWork, ElementwiseWork, ProductWork, RotaryWork, RowUpdateWork, RowWork
from . import caching
from .facts import Facts
from .kernel import Board, BytesMoved, GpuKernel, KernelDemand

WARP_BYTES = 512  # one load of a warp: 32 lanes of 16 bytes (CUDA C programming guide)
INDEX_BYTES = 12  # at most, each look-up: an int64 index and an fp32 weight
OFFSET_BYTES = 8  # at most, each bag: an int64
KEY_BYTES = 16  # at most, each key of a sort: an int64 row and the int64 that says where it comes from
RADIX_BITS = 8  # that a pass of CUB's sort goes by (cub::DeviceRadixSort, one sweep)
UPDATE_LAUNCHES = (
    6  # estimate: linearise, histogram, encode runs, scan, long runs, short runs (FBGEMM's backward)
)
LONG_RUN = 32  # look-ups of a row that one warp adds up (FBGEMM, max_segment_length_per_warp)
ROWS_A_WARP = 2  # estimate: rows that the warp of a bag has on their way
BLOCK = 1024  # threads of a block: the elements of a row that one step takes (CUDA C programming guide)
WARP = 32  # threads of a warp, and the most blocks that an SM holds (CUDA C programming guide, 8.0 and 9.0)


@dataclass(frozen=True)
class Stream:
    """A kernel whose operands pass through once: what it is called, its operations and its bytes."""

    text: str
    flops: float
    read: int
    write: int

    @property
    def bytes(self) -> float:
        """Return the bytes in both directions."""
        return float(self.read + self.write)

    def parts(self, facts: Facts) -> dict[str, float]:
        """Return the seconds of each resource.

        Operands are fresh activations: what L2 keeps of them (`l2_resident`) never reaches DRAM, so small
        tensors move at L2 bandwidth. An operation that is no multiply-add takes the slot of one: half of
        `vector_flops_per_s`.
        """
        return {
            "dram": self.bytes * self._share(facts) / facts.stream_bytes_per_s,
            "l2": self.bytes / facts.l2_bytes_per_s,
            "occupancy": self.flops / (facts.vector_flops_per_s / 2),
        }

    def _share(self, facts: Facts) -> float:
        """Return the share of the bytes that reaches DRAM."""
        return 1.0 - facts.resident_bytes(self.bytes) / self.bytes if self.bytes else 0.0

    def kernel(self, board: Board, parts: dict[str, float]) -> GpuKernel:
        """Return the kernel whose resources take so long."""
        facts, share = board.facts, self._share(board.facts)
        moved = BytesMoved(self.read * share, self.write * share, float(self.read), float(self.write))
        joules = facts.vector_j_per_flop * self.flops
        return board.finished(KernelDemand(self.text, _latency(facts), parts, moved, joules))


def _latency(facts: Facts) -> float:
    """Return the seconds of a launch and the first read."""
    return facts.launch_graph_s + facts.dram_latency_s


def _stream(work: ProductWork | ElementwiseWork | RowWork | RotaryWork | CopyWork) -> Stream:
    return Stream(work.kind, 2.0 * work.macs + work.flops, work.read_bytes, work.write_bytes)


def streamed(board: Board, work: ProductWork | ElementwiseWork | CopyWork) -> GpuKernel:
    """Return an elementwise, reduction or copy kernel, or a product of nothing."""
    stream = _stream(work)
    return stream.kernel(board, stream.parts(board.facts))


def rowwise(board: Board, work: RowWork) -> GpuKernel:
    """Return a norm, softmax or quantising kernel: the wait for its rows adds to the time of its bytes."""
    stream = _stream(work)
    parts = stream.parts(board.facts)
    if work.row:
        wait = _rows_s(board.facts, max(1, work.elements) / work.row, work.row)
        parts = {name: part + wait for name, part in parts.items()}
    return stream.kernel(board, parts)


def rotary(board: Board, work: RotaryWork) -> GpuKernel:
    """Return a kernel that gives a row to a block whose threads move one 16-bit element at a time.

    Too few bytes are on their way to fill a stream (vLLM, csrc/pos_encoding_kernels.cu). It goes through a
    row once: its steps, or all bytes at its share of bandwidth, whichever takes longer.
    """
    stream, facts = _stream(work), board.facts
    parts = stream.parts(facts)
    bytes_s = stream.bytes / (facts.stream_bytes_per_s * facts.narrow_efficiency)
    steps_s = math.ceil(work.row / BLOCK) * facts.narrow_step_s
    parts["occupancy"] = max(parts["occupancy"], bytes_s, steps_s)
    return stream.kernel(board, parts)


def _rows_s(facts: Facts, rows: float, row: int) -> float:
    """Return the seconds that norms or softmaxes of `rows` rows wait for their own reductions.

    A block of threads takes a row, `BLOCK` elements a step, each step as long as a round trip; short rows
    take small blocks, so that an SM works on more of them.
    """
    threads = min(BLOCK, WARP * math.ceil(row / WARP))
    in_flight = min(WARP, facts.rows_in_flight * BLOCK // threads)
    return math.ceil(rows / (facts.sms * in_flight)) * math.ceil(row / BLOCK) * facts.row_step_s


def embedding_bag(board: Board, work: BagWork) -> GpuKernel:
    """Return a pooled look-up kernel: random reads of whole rows, by the law of each table.

    A row moves in whole sectors and costs an activate on top, or is found in L2 (`caching.misses`). Row
    requests, a warp's load each, are on their way so many at a time, one latency each round (Little's law):
    an SM has `lookups_in_flight`, the warp of a bag `ROWS_A_WARP`. SMs issue the instructions of bags, rows
    and elements meanwhile. Pooled sums and indices are streams; indices are what `read_bytes` has beyond the
    distinct rows.
    """
    facts, lookups, rows = board.facts, work.lookups, work.rows
    row_bytes, row = work.dim * work.dtype.bytes, caching.row_bytes(facts, work)
    misses = add_up(caching.misses(table, board.kept) for table in caching.tables(work))
    most = INDEX_BYTES * lookups + OFFSET_BYTES * (work.bags + 1)
    indices = min(most, max(0.0, work.read_bytes - min(lookups, rows) * row_bytes))
    fetched = lookups * row + indices
    in_flight = min(facts.sms * facts.lookups_in_flight, ROWS_A_WARP * max(1, work.bags))
    waits = math.ceil(lookups * math.ceil(row / WARP_BYTES) / in_flight) * facts.dram_latency_s
    busy_bytes = misses * (row + facts.dram_activate_bytes) + indices + work.write_bytes
    parts = {
        "dram": busy_bytes / facts.stream_bytes_per_s,
        "l2": (fetched + work.write_bytes) / facts.l2_bytes_per_s,
        "occupancy": max(waits, _bag_issue_s(facts, work)),
    }
    written = float(work.write_bytes)
    moved = BytesMoved(misses * row + indices, written, fetched, written)
    joules = facts.vector_j_per_flop * float(work.flops)
    return board.finished(KernelDemand(work.kind, _latency(facts), parts, moved, joules))


def _bag_issue_s(facts: Facts, work: BagWork) -> float:
    """Return the seconds in which the SMs issue the instructions of look-ups; a bag is one SM's."""
    row = facts.lookup_clocks + work.dim * facts.element_clocks
    clocks = work.bags * facts.bag_clocks + work.lookups * row
    return clocks / (min(facts.sms, max(1, work.bags)) * facts.max_clock_hz)


def row_update(board: Board, work: RowUpdateWork) -> GpuKernel:
    """Return the backward of an embedding with its optimiser, as FBGEMM runs it: a sort, then a warp a run.

    A radix sort reads and writes each key and its place in each pass, and reads them once before. The warp
    of a run adds its gradients, of which L2 holds a part, and reads and writes the row and its state. Time of
    DRAM and of requests on their way is that of `embedding_bag`, each row twice. Estimate: no measured kernel
    is public; `docs/score_rows.py` prints ratios beside published ones.
    """
    facts, sector = board.facts, board.facts.dram_sector_bytes
    passes = math.ceil(math.log2(max(2, work.rows)) / RADIX_BITS)
    sorting = work.lookups * KEY_BYTES * (2.0 * passes + 1)
    spare = float(work.narrow * (sector - FP32.bytes))
    old, new = work.old_bytes + spare, work.write_bytes + spare
    gradients, fresh = work.lookups * work.dim * FP32.bytes, float(work.read_bytes - work.old_bytes)
    missed = gradients * (1.0 - min(1.0, facts.l2_usable * facts.l2_bytes / fresh)) if fresh else 0.0
    warps = max(work.changed, work.lookups / LONG_RUN)
    in_flight = min(facts.sms * facts.lookups_in_flight, ROWS_A_WARP * max(1.0, warps))
    requests = (work.lookups + 2 * work.pieces) * math.ceil(work.dim * FP32.bytes / WARP_BYTES)
    clocks = work.lookups * (facts.lookup_clocks + work.dim * facts.element_clocks) + warps * facts.bag_clocks
    share = 1.0 - facts.resident_bytes(sorting) / sorting if sorting else 0.0
    activated = 2 * work.pieces * facts.dram_activate_bytes
    parts = {
        "dram": (old + new + activated + missed + sorting * share) / facts.stream_bytes_per_s,
        "l2": (old + new + gradients + sorting) / facts.l2_bytes_per_s,
        "occupancy": max(
            math.ceil(requests / in_flight) * facts.dram_latency_s,
            clocks / (facts.sms * facts.max_clock_hz),
        ),
    }
    sorted_each = sorting * share / 2
    moved = BytesMoved(old + missed + sorted_each, new + sorted_each, old + gradients + sorting, new)
    latency = (UPDATE_LAUNCHES + passes) * facts.launch_graph_s + facts.dram_latency_s
    joules = facts.vector_j_per_flop * float(work.flops)
    return board.finished(KernelDemand("embedding update", latency, parts, moved, joules))
