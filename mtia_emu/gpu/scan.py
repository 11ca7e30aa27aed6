"""Loops that a library runs as one kernel: recurrent layers (cuDNN) and selective scans (Mamba)."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import ScanWork
from .facts import Facts, Rate
from .kernel import Board, BytesMoved, GpuKernel, KernelDemand

HELD_BYTES = 128 * 1024
"""Weights that an SM keeps from step to step. Estimate: half of its registers, 64 K of 32 bits (CUDA C
programming guide, 7.0 to 9.0); sums and states take the rest. Persistent RNNs (Diamos et al., 2016) do so."""
TRIPS = 2
"""Trips to memory between two steps: each SM adds to a counter, then sees that all have. Estimate: a barrier
of the whole grid is about two dependent reads, 1.4 us on an H100."""
FEWEST_ROWS = 8  # the narrowest side of a tensor core's tile (PTX ISA, mma.m16n8k16)
ALU_CYCLES = 4  # from an operation to the next that needs its result (Jia et al., 2018: Volta; 4 since)
KERNELS_A_STEP = 2  # a product, and the elementwise work on it, where no kernel holds the weights
VECTOR_HALF = 2  # an operation that is no multiply-add takes the slot of one


@dataclass(frozen=True)
class _Loop:
    """A loop on a GPU: what nothing hides, what overlaps, and bytes of L2."""

    text: str
    latency: float
    parts: dict[str, float]
    l2_bytes: float


def scan(board: Board, rate: Rate, work: ScanWork) -> GpuKernel:
    """Return a loop as its library runs it.

    With a weight it is held in the SMs, loaded once, if it fits there: a step is a barrier, then the longest
    of the product and of the states from L2 to each SM. If it does not fit, each step is launched, and reads
    the weight from L2, or from DRAM. Without a weight an element of a state stays in a thread: nothing is
    launched or waited for between steps. Operands and results pass through once.
    """
    facts = board.facts
    loop = _recurrent(facts, rate, work) if work.macs else _elementwise(facts, work)
    stream = float(work.read_bytes + work.write_bytes)
    loop.parts["dram"] = loop.parts.get("dram", 0.0) + stream / facts.stream_bytes_per_s
    weights = loop.parts["dram"] * facts.stream_bytes_per_s - stream
    moved = BytesMoved(work.read_bytes + weights, work.write_bytes, loop.l2_bytes + stream, work.write_bytes)
    joules = 2 * rate.j_per_flop * work.macs + facts.vector_j_per_flop * work.flops
    return board.finished(KernelDemand(loop.text, loop.latency, loop.parts, moved, joules))


def _elementwise(facts: Facts, work: ScanWork) -> _Loop:
    """Return a loop whose elements go their own ways: operations of a thread wait for one another."""
    waits = work.steps * work.depth * ALU_CYCLES / facts.max_clock_hz
    busy = work.flops * VECTOR_HALF / facts.vector_flops_per_s
    start = facts.launch_graph_s + facts.dram_latency_s
    return _Loop("selective scan", start, {"occupancy": max(waits, busy)}, 0.0)


def _recurrent(facts: Facts, rate: Rate, work: ScanWork) -> _Loop:
    """Return a loop with a product a step."""
    weight = work.k * work.n * work.dtype.bytes
    speed = rate.flops_per_s * rate.efficiency * facts.max_clock_hz / facts.clock_hz
    product = 2.0 * max(work.rows, FEWEST_ROWS) * work.k * work.n / speed
    start, steps = facts.launch_graph_s + facts.dram_latency_s, work.steps
    if weight <= facts.sms * HELD_BYTES:
        states = facts.sms * work.rows * work.k * work.dtype.bytes
        barriers = steps * TRIPS * facts.dram_latency_s
        parts = {"tensor": steps * product, "l2": steps * states / facts.l2_bytes_per_s}
        return _Loop("persistent rnn", start + barriers, parts, float(steps * states))
    launches = steps * KERNELS_A_STEP * (facts.launch_graph_s + facts.dram_latency_s)
    parts, again = {"tensor": steps * product}, float(weight * steps)
    if weight <= facts.l2_usable * facts.l2_bytes:
        parts["l2"] = again / facts.l2_bytes_per_s
    else:  # the first reading is among the operands
        parts["dram"] = weight * (steps - 1) / facts.stream_bytes_per_s
    return _Loop("rnn step by step", start + launches, parts, again)
