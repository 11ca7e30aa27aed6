"""Embedding bags on a stream of their own, beside the kernels that neither feed them nor wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..sums import add_up
from ..types import BagWork, Work
from .facts import Facts
from .kernel import GpuKernel, throttled

Placed = tuple[tuple[int, ...], Work]


@dataclass(frozen=True)
class KernelTime:
    """When a kernel runs, in seconds from the start; what of the time is its own where it is not alone."""

    start: float
    end: float
    own: float | None = None


def stretches(works: Sequence[Placed]) -> list[tuple[int, int]]:
    """Return the runs [first, behind) of kernels that may go on two streams: bags, and others beside them.

    They follow one another, and each of them lies within what the first bag of the run may run beside.
    """
    found: list[tuple[int, int]] = []
    for at, (parts, work) in enumerate(works):
        if not isinstance(work, BagWork) or (found and at < found[-1][1]):
            continue
        low, high = parts[0] - work.before, parts[-1] + work.behind
        first, end = at, at + 1
        while first > (found[-1][1] if found else 0) and _within(works[first - 1], low, high):
            first -= 1
        while end < len(works) and _within(works[end], low, high):
            end += 1
        if any(not isinstance(w, BagWork) for _, w in works[first:end]):
            found.append((first, end))
    return found


def _within(kernel: Placed, low: int, high: int) -> bool:
    return all(low <= part <= high for part in kernel[0])


def overlapped(
    facts: Facts, works: Sequence[Placed], kernels: Sequence[GpuKernel], waits: float
) -> tuple[list[GpuKernel], list[KernelTime]]:
    """Return the kernels with the energy that they take so, and when each runs.

    Both streams together take as long as the longer, and as DRAM and L2 take for the bytes of both; the
    board idles and is active once for both, and keeps its power limit. Where the host must launch each kernel
    and they wait so many seconds more (`waits`), they go one after another.
    """
    done, slots, now, at = list(kernels), list[KernelTime](), 0.0, 0
    runs = {} if waits else dict(stretches(works))
    while at < len(done):
        end = runs.get(at, at + 1)
        if end == at + 1:
            slots.append(KernelTime(now, now + done[at].seconds + waits))
        else:
            bags = [isinstance(work, BagWork) for _, work in works[at:end]]
            done[at:end], found = _together(facts, done[at:end], bags)
            slots += [KernelTime(now + x.start, now + x.end, x.own) for x in found]
        at, now = end, max(now, *(x.end for x in slots[at:end]))
    return done, slots


def _together(
    facts: Facts, kernels: Sequence[GpuKernel], bags: Sequence[bool]
) -> tuple[list[GpuKernel], list[KernelTime]]:
    """Return kernels of two streams with the energy that they take, and when each runs, from 0.

    Each takes its share of the time of both, longer than by itself where DRAM, L2 or power holds both.
    """
    each = [add_up(k.seconds for k, b in zip(kernels, bags, strict=True) if b is s) for s in (True, False)]
    alone = each[0] + each[1]
    dram = add_up(k.dram_read_bytes + k.dram_write_bytes for k in kernels) / facts.stream_bytes_per_s
    l2 = add_up(k.l2_read_bytes + k.l2_write_bytes for k in kernels) / facts.l2_bytes_per_s
    free = min(alone, max(*each, dram, l2))
    joules = add_up(k.active * free / alone + k.compute + k.dram for k in kernels)
    seconds = min(alone, float(throttled(facts, free, joules)))
    power = min(1.0, (facts.tdp_w - facts.idle_w) * seconds / joules) if joules else 1.0
    part = [
        replace(
            k, static=k.static * seconds / alone, active=k.active * free / alone * power,
            compute=k.compute * power, dram=k.dram * power,
        )
        for k in kernels
    ]  # fmt: skip
    slower, starts, slots = seconds / max(each), {True: 0.0, False: 0.0}, []
    for bag, k in zip(bags, kernels, strict=True):
        end = starts[bag] + k.seconds * slower
        slots.append(KernelTime(starts[bag], end, k.seconds * seconds / alone))
        starts[bag] = end
    return part, slots
