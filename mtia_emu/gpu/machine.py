"""`Gpu`: facts that can run work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import types
from ..errors import UserError
from ..options import Mode
from ..results.machine import Computation
from ..results.report import Band as Spread
from ..results.report import Joules, Layer, Report, Stretch, Traffic
from ..results.spans import Track
from ..sums import add_up
from ..types import DType, Work
from .attention import QUERY_BLOCK, HeadShape, attention
from .collectives import collective_seconds
from .facts import ELEMENT_BYTES, Bands, Facts
from .fusion import Fused, fuse
from .kernel import GpuKernel
from .matmul import matmul
from .memory import NARROW, embedding_bag, stream
from .shapes import Shapes, shapes

KINDS = ("matmul", "attention", "embedding_bag", "vector", "move")


class Gpu(Facts):
    """A GPU: its facts, and the time and energy of work on it."""

    def matmul_seconds(
        self, m: int, k: int, n: int, dtype: str | DType, batch: int = 1, *, sustained: bool = False
    ) -> float:
        """Return the device time of one matmul kernel, back to back with others in a graph.

        `[batch, m, k] x [batch, k, n]`, weights in DRAM; `dtype` also "tf32" or "fp4". It includes the
        graph's launch period; it is never below the datasheet roofline (peak rate, peak DRAM bandwidth, each
        operand byte once) and never falls when a size grows. `sustained` is a board that has run for
        seconds, whose power limit holds it lower than a short burst's.
        """
        for name, size in (("m", m), ("k", k), ("n", n), ("batch", batch)):
            if size < 1:
                raise UserError(f"matmul {name} is {size}; sizes are at least 1")
        kind, element = _named(dtype)
        return _matmul(self, kind, element, (batch, m, k, n), None, None, sustained).seconds

    def collective_seconds(self, kind: str, message_bytes: int, gpus: int) -> float:
        """Return the time of an all_reduce, all_gather, reduce_scatter or alltoall between GPUs of a node."""
        return collective_seconds(self, kind, message_bytes, gpus)

    def kernel(self, work: Work, *, sustained: bool = False) -> GpuKernel:
        """Return the kernel that one operator becomes, launched from a graph."""
        return _kernel(
            self, work.kind, work.dtype, work.shape, work.macs, work.flops, work.read_bytes,
            work.write_bytes, work.row, sustained, work.op in NARROW,
        )  # fmt: skip

    def run(
        self, works: Sequence[Work], *, model: str, dtype: str, dims: dict[str, int], mode: Mode | None = None
    ) -> Report:
        """Return the report of the works, in order; one without bytes or operations is no kernel.

        `sram_*` of the traffic is L2. Joules are the board's: `static` idle with clocks up, `control` what
        running kernels add, `compute` operations, `dram` DRAM bytes with caches and network; power never
        exceeds `tdp_w`. `bound_by`: `tensor`, `dram`, `l2`, `launch`, `power`, or `occupancy` (idle SMs,
        padding, too few loads in flight, vector ALUs). Operations fused into a matmul cost nothing.
        """
        how = mode or Mode()
        extra = self._period(how.launch) - self.launch_graph_s
        live = [w for w in works if w.macs or w.flops or w.read_bytes or w.write_bytes]
        items = fuse(live) if how.fused else [Fused(w, (w.name,)) for w in live]
        kernels = [self.kernel(item.work, sustained=how.sustained) for item in items]
        layers, seconds = self._layers(items, kernels, extra)
        macs = sum(layer.macs for layer in layers)
        peak = self.rate(_named(dtype)[0])[1].flops_per_s / 2
        track = Track(self.name, self.clock_hz)
        length = track.exact_seconds(layers[-1].end_cycle if layers else 0)
        return Report(
            model, self.name, dtype, dict(dims), (track,), (Stretch(layers, length),),
            joules_by=_joules(kernels, self.idle_w * extra), traffic=_traffic(kernels),
            macs=macs, peak_macs=seconds * peak, notes=self._notes(live, how),
            seconds_band=_spread(self.bands, items, [x.span_s for x in layers]),
            joules_band=_band(self.bands, "joules"),
        )  # fmt: skip

    def report(self, work: Computation, /, mode: Mode | None = None) -> Report:
        """Return the report of a computation; `run` says what it holds."""
        return self.run(work.works, model=work.model, dtype=work.dtype, dims=dict(work.dims), mode=mode)

    def in_mode(self, mode: Mode) -> GpuInMode:
        """Return the machine that puts work on this GPU in a mode."""
        return GpuInMode(self, mode)

    def _period(self, launch: str) -> float:
        """Return the period of empty kernels under a mode of launching, in seconds."""
        return {"graph": self.launch_graph_s, "stream": self.launch_stream_s, "host": self.launch_host_s}[
            launch
        ]

    def _layers(
        self, items: list[Fused], kernels: list[GpuKernel], extra: float
    ) -> tuple[tuple[Layer, ...], float]:
        """Return a layer for each kernel, and the seconds they take together."""
        layers, now, track = [], 0.0, Track(self.name, self.clock_hz)
        for item, k in zip(items, kernels, strict=True):
            start, now = now, now + k.seconds + extra
            bound = "launch" if extra > k.seconds else k.bound_by
            layers.append(
                Layer(
                    name=item.parts[-1] if len(item.parts) == 1 else item.work.name,
                    op=item.work.op,
                    kernel=k.text,
                    start_cycle=round(start * self.clock_hz),
                    end_cycle=round(now * self.clock_hz),
                    macs=item.work.macs,
                    dram_bytes=k.dram_read_bytes + k.dram_write_bytes,
                    sram_bytes=k.l2_read_bytes + k.l2_write_bytes,
                    joules=k.joules + self.idle_w * extra,
                    bound_by=bound,
                    track=track,
                )
            )
        return tuple(layers), now

    def _notes(self, works: list[Work], mode: Mode) -> tuple[str, ...]:
        """Return what a reader must know of the basis, and each dtype that ran at another's rate."""
        kinds = sorted({w.dtype.name for w in works if w.kind == "matmul"})
        rates = [(kind, self.rate(kind)[0]) for kind in kinds]
        how = "fused as a serving runtime does" if mode.fused else "one kernel an operator"
        state = "steady state" if mode.sustained else "a short burst"
        return (
            f"GPU time is of kernels launched by {mode.launch}, {how}, in {state}; energy is the board's",
            *(
                f"{self.name} has no {kind} matmul rate: {kind} runs at its {rate} rate"
                for kind, rate in rates
                if kind != rate
            ),
        )


@dataclass(frozen=True)
class GpuInMode:
    """A GPU that work is put on in one way."""

    gpu: Gpu
    mode: Mode

    @property
    def name(self) -> str:
        """Return the GPU's name."""
        return self.gpu.name

    def report(self, work: Computation, /) -> Report:
        """Return the report of a computation."""
        return self.gpu.report(work, self.mode)


def _named(dtype: str | DType) -> tuple[str, float]:
    """Return the name and the bytes an element of what a matmul runs in."""
    if isinstance(dtype, str) and dtype in ELEMENT_BYTES:
        return dtype, ELEMENT_BYTES[dtype]
    kind = types.dtype(dtype) if isinstance(dtype, str) else dtype
    return kind.name, float(kind.bytes)


@lru_cache(maxsize=1 << 16)
def _matmul(
    facts: Facts, kind: str, element: float, dims: tuple[int, ...], read: int | None, write: int | None,
    sustained: bool,
) -> GpuKernel:  # fmt: skip
    batch, m, k, n = dims
    one: Shapes = shapes(m, k, n, element, batch=batch, read=read, write=write)
    return matmul(facts, facts.rate(kind)[1], one, sustained)


@lru_cache(maxsize=1 << 16)
def _kernel(
    facts: Facts, kind: str, dtype: DType, dims: tuple[int, ...], macs: int, flops: int, read: int,
    write: int, row: int, sustained: bool, narrow: bool,
) -> GpuKernel:  # fmt: skip
    """Return the kernel of a work without its name, so that equal layers are worked out once."""
    if kind not in KINDS:
        raise ValueError(f"work kind {kind!r} has no GPU kernel (known: {', '.join(KINDS)})")
    if kind == "matmul" and macs:
        return _matmul(facts, dtype.name, float(dtype.bytes), dims, read, write, sustained)
    if kind == "attention":
        return attention(facts, facts.rate(dtype.name)[1], _heads(dims, dtype), sustained)
    work = Work("", "", kind, dtype, dims, macs, flops, read, write, row)
    if kind == "embedding_bag":
        return embedding_bag(facts, work, sustained)
    return stream(facts, work, sustained, narrow)


def _heads(dims: tuple[int, ...], dtype: DType) -> HeadShape:
    """Return the attention of a fused work: all key heads, rows, masked positions, keys, sizes.

    Few rows without a mask, fewer than keys, are the heads that share those keys, each with its newest query.
    """
    batch, rows, queries, keys, key_size, value_size = (np.asarray(float(x)) for x in dims)
    decodes = not queries and rows < keys and rows <= QUERY_BLOCK
    own = queries if queries else np.asarray(1.0) if decodes else rows
    causal = bool(queries > 1)
    return HeadShape(
        batch, np.asarray(1.0), rows / own, own, keys, key_size, value_size, float(dtype.bytes), causal,
        scattered=bool(batch > 1),
    )  # fmt: skip


def _joules(kernels: list[GpuKernel], launch_joules: float) -> Joules:
    """Return the sum of the kernels' joules; each kernel's launch gap beyond the graph's idles."""
    return Joules(
        compute=add_up(k.compute for k in kernels),
        dram=add_up(k.dram for k in kernels),
        control=add_up(k.active for k in kernels),
        static=add_up(k.static for k in kernels) + launch_joules * len(kernels),
    )


def _traffic(kernels: list[GpuKernel]) -> Traffic:
    """Return the kernels' bytes; L2 stands in the fields of shared SRAM."""
    return Traffic(
        sram_read_bytes=sum(k.l2_read_bytes for k in kernels),
        sram_write_bytes=sum(k.l2_write_bytes for k in kernels),
        dram_read_bytes=sum(k.dram_read_bytes for k in kernels),
        dram_write_bytes=sum(k.dram_write_bytes for k in kernels),
    )


def _band(bands: Bands, kind: str) -> Spread:
    band = getattr(bands, "vector" if kind == "move" else kind)
    return Spread(band.low, band.high)


def _spread(bands: Bands, items: list[Fused], seconds: list[float]) -> Spread | None:
    """Return the band of the whole time: each kernel's, weighted by its time.

    Errors of one kind of kernel go together (a library, a measuring method), so they do not average out.
    """
    whole = add_up(seconds)
    if not whole:
        return None
    each = [_band(bands, item.work.kind) for item in items]
    return Spread(
        add_up(b.low * s for b, s in zip(each, seconds, strict=True)) / whole,
        add_up(b.high * s for b, s in zip(each, seconds, strict=True)) / whole,
    )
