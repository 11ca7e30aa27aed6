"""`Gpu`: facts that can run work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from .. import types
from ..errors import UserError
from ..options import WARM, Mode
from ..results.machine import Computation
from ..results.report import Band, Joules, Layer, Report, Stretch, Traffic
from ..results.spans import Track
from ..sums import add_up
from ..types import (
    WORKS,
    AttentionWork,
    BagWork,
    CopyWork,
    DType,
    ElementwiseWork,
    ExpertsWork,
    ImplicitGemmWork,
    ProductWork,
    RotaryWork,
    RowUpdateWork,
    RowWork,
    ScanWork,
    Work,
    placed,
)
from .attention import HeadShape, attention
from .attention_back import attention_back
from .caching import EMPTY, Keeping, keeping
from .collectives import collective_seconds
from .facts import ELEMENT_BYTES, Bands, Facts
from .kernel import Board, GpuKernel
from .matmul import matmul
from .memory import embedding_bag, rotary, row_update, rowwise, streamed
from .overlap import KernelTime, overlapped
from .scan import scan
from .shapes import shape, shapes

SERVING = Mode()
NOTED = 0.05  # share of the joules from which a note says that they rest on no measurement
UNMEASURED_LOOP = Band(0.7, 4.0)
"""Measured / modelled of loops. Estimate, no public table was found: libraries hold weights on the chip for
some batches and sizes only (PyTorch, pull requests 43165 and 48070), and take a few times as long for others.
"""
UNMEASURED_UPDATE = Band(0.5, 2.0)
"""Measured / modelled of rows changed by their gradients. Estimate: of 20 published tables (MTIA 300, ISCA
2026) the GPU's backward takes 1.2 to 5.5 times its forward, about twice the mean or a third of it.
"""
UNMEASURED = {"scan": UNMEASURED_LOOP, "row_update": UNMEASURED_UPDATE}


class Gpu(Facts):
    """A GPU: its facts, and the time and energy of work on it."""

    def matmul_seconds(
        self, m: int, k: int, n: int, dtype: str | DType, batch: int = 1, *, mode: Mode = SERVING
    ) -> float:
        """Return the device time of one matmul kernel, back to back with others in a graph.

        `[batch, m, k] x [batch, k, n]`, weights in DRAM; `dtype` also "tf32" or "fp4". It includes the
        graph's launch period; it is never below the datasheet roofline (peak rate, peak DRAM bandwidth, each
        operand byte once) and never falls when a size grows. Of `mode` the thermal state is read.
        """
        for name, size in (("m", m), ("k", k), ("n", n), ("batch", batch)):
            if size < 1:
                raise UserError(f"matmul {name} is {size}; sizes are at least 1")
        kind, element = _named(dtype)
        return _matmul(self.board(mode), kind, element, (batch, m, k, n)).seconds

    def collective_seconds(self, kind: str, message_bytes: int, gpus: int) -> float:
        """Return the time of an all_reduce, all_gather, reduce_scatter or alltoall between GPUs of a node."""
        return collective_seconds(self, kind, message_bytes, gpus)

    def board(self, mode: Mode = SERVING, kept: Keeping | None = None) -> Board:
        """Return the board in the thermal state of a mode, its L2 as `kept` says: empty without it."""
        return Board(self, mode.sustained, kept or EMPTY)

    def kernel(self, work: Work, *, mode: Mode = SERVING) -> GpuKernel:
        """Return the kernel of a work, launched from a graph, in the thermal state of `mode`, L2 empty."""
        return self._kernel(work, self.board(mode, keeping(self, [work], warm=False)))

    def _kernel(self, work: Work, board: Board) -> GpuKernel:
        return _kernel(board, replace(work, name="", op=""))

    def report(self, work: Computation, /, mode: Mode | None = None) -> Report:
        """Return the report of a model's work, in order; what has no bytes and no operations is no kernel.

        `sram_*` of the traffic is L2. Joules are the board's: `static` idle with clocks up, `control` what
        running kernels add, `compute` operations, `dram` DRAM bytes with caches and network; power never
        exceeds `tdp_w`. `bound_by`: `tensor`, `dram`, `l2`, `launch`, `power`, or `occupancy` (idle SMs,
        padding, too few loads in flight, vector ALUs). Operations fused into a matmul cost nothing.
        """
        chosen = mode or SERVING
        extra = self._period(chosen.launch) - self.launch_graph_s
        groups = work.groups if chosen.fused else ()
        launches = [x for x in placed(work.works, groups) if _live(x[1])]
        works = [w for _, w in launches]
        board = self.board(chosen, keeping(self, works, warm=work.state == WARM))
        kernels = [self._kernel(w, board) for w in works]
        streams = launches if chosen.fused else [((i,), w) for i, w in enumerate(map(_alone, works))]
        kernels, slots = overlapped(self, streams, kernels, extra)
        layers = self._layers(works, kernels, slots, extra)
        macs = sum(layer.macs for layer in layers)
        peak = self.rate(_named(work.dtype)[0])[1].flops_per_s / 2
        track = Track(self.name, self.clock_hz)
        length = track.exact_seconds(max((x.end_cycle for x in layers), default=0))
        return Report(
            work.model, self.name, work.dtype, dict(work.dims), (track,), (Stretch(layers, length),),
            joules_by=_joules(kernels, self.idle_w * extra), traffic=_traffic(kernels),
            macs=macs, peak_macs=max((x.end for x in slots), default=0.0) * peak,
            notes=(*self._notes([w for w in work.works if _live(w)], chosen), *self._unmetered(kernels)),
            seconds_band=_whole_band(self.bands, works, [x.span_s for x in layers]),
            joules_band=self._joules_band(kernels, extra), around=self.around,
        )  # fmt: skip

    def in_mode(self, mode: Mode) -> GpuInMode:
        """Return the machine that puts work on this GPU in a mode."""
        return GpuInMode(self, mode)

    def _period(self, launch: str) -> float:
        """Return the period of empty kernels under a mode of launching, in seconds."""
        return {"graph": self.launch_graph_s, "stream": self.launch_stream_s, "host": self.launch_host_s}[
            launch
        ]

    def _layers(
        self, works: list[Work], kernels: list[GpuKernel], slots: list[KernelTime], extra: float
    ) -> tuple[Layer, ...]:
        """Return a layer for each kernel."""
        layers, track = [], Track(self.name, self.clock_hz)
        for work, k, slot in zip(works, kernels, slots, strict=True):
            bound = "launch" if extra > k.seconds else k.bound_by
            layers.append(
                Layer(
                    name=work.name,
                    op=work.op,
                    kernel=k.text,
                    start_cycle=round(slot.start * self.clock_hz),
                    end_cycle=round(slot.end * self.clock_hz),
                    macs=work.macs,
                    dram_bytes=k.dram_read_bytes + k.dram_write_bytes,
                    sram_bytes=k.l2_read_bytes + k.l2_write_bytes,
                    joules=k.joules + self.idle_w * extra,
                    bound_by=bound,
                    track=track,
                    own=None if slot.own is None else slot.own * self.clock_hz,
                )
            )
        return tuple(layers)

    def _joules_band(self, kernels: Sequence[GpuKernel], extra: float) -> Band | None:
        """Return the band of the whole energy: each kernel's, weighted by its joules.

        What a launch waits beyond the graph's period is idle power, in no doubt.
        """
        launches = self.idle_w * extra * len(kernels)
        whole = add_up(k.joules for k in kernels) + launches
        if not whole:
            return None
        short, long = self.bands.short_joules, self.bands.joules
        each = [(short if k.seconds < self.metered_s else long, k.joules) for k in kernels]
        low, high = (add_up(getattr(b, side) * j for b, j in each) for side in ("low", "high"))
        return Band((low + launches) / whole, (high + launches) / whole)

    def _unmetered(self, kernels: Sequence[GpuKernel]) -> tuple[str, ...]:
        """Return the note on kernels whose joules nobody has published, where they count."""
        whole = add_up(k.joules for k in kernels)
        short = add_up(k.joules for k in kernels if k.seconds < self.metered_s)
        if short < NOTED * whole or not short:
            return ()
        return (
            f"{short / whole:.0%} of the joules of {self.name} are of kernels below "
            f"{self.metered_s * 1e6:g} us, of which no measurement without idle time is public: their band "
            f"is {self.bands.short_joules.low:g} to {self.bands.short_joules.high:g}",
        )

    def _notes(self, works: Sequence[Work], mode: Mode) -> tuple[str, ...]:
        """Return what a reader must know of the basis, and each dtype that ran at another's rate."""
        kinds = sorted({w.dtype.name for w in works if isinstance(w, ProductWork)})
        rates = [(kind, self.rate(kind)[0]) for kind in kinds]
        split = "fused as a serving runtime does" if mode.fused else "one kernel an operator"
        state = self.board(mode).state
        return (
            f"GPU time is of kernels launched by {mode.launch}, {split}, in {state}",
            *(_borrowed(self.name, kind, rate) for kind, rate in rates if kind != rate),
        )


def _borrowed(name: str, kind: str, rate: str) -> str:
    """Return the note on products of a dtype that run at the rate of another."""
    if (kind, rate) == ("fp32", "tf32"):
        return f"fp32 products run as TF32 on {name}'s tensor cores, as runtimes are set to"
    return f"{name} has no {kind} matmul rate: {kind} runs at its {rate} rate"


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


def _alone(work: Work) -> Work:
    return replace(work, before=0, behind=0) if isinstance(work, BagWork) else work


def _live(work: Work) -> bool:
    return bool(work.macs or work.flops or work.read_bytes or work.write_bytes)


def _named(dtype: str | DType) -> tuple[str, float]:
    """Return the name and the bytes an element of what a matmul runs in."""
    if isinstance(dtype, str) and dtype in ELEMENT_BYTES:
        return dtype, ELEMENT_BYTES[dtype]
    kind = types.dtype(dtype) if isinstance(dtype, str) else dtype
    return kind.name, float(kind.bytes)


@lru_cache(maxsize=1 << 16)
def _matmul(board: Board, kind: str, element: float, sizes: tuple[int, int, int, int]) -> GpuKernel:
    return matmul(board, board.facts.rate(kind)[1], shapes(sizes, element))


def _product(board: Board, work: ProductWork) -> GpuKernel:
    if not work.macs:
        return streamed(board, work)
    sizes = work.batch, work.m, work.k, work.n
    one = shape(sizes, float(work.dtype.bytes), work.read_bytes, work.write_bytes, warm=board.kept.weights)
    return matmul(board, board.facts.rate(work.dtype.name)[1], one)


def _grouped_gemm(board: Board, work: ExpertsWork) -> GpuKernel:
    """Return products with routed experts as a grouped gemm: all experts that have rows, in one kernel.

    Estimate: that of a batched gemm of the experts that have rows, each with the mean of them. No published
    grouped gemm was compared.
    """
    kernel = _product(board, work)
    return replace(kernel, text=kernel.text.replace("gemm", "grouped gemm"))


def _implicit_gemm(board: Board, work: ImplicitGemmWork) -> GpuKernel:
    """Return a convolution as cuDNN runs it: a gemm whose tiles gather windows as they load them.

    Estimate: tiles, waves and steps of a gemm of the same sizes; what a window costs to address is left out,
    and L2 passes each window whole. No published convolution was compared.
    """
    if not work.macs:
        return streamed(board, work)
    sizes = work.batch, work.m, work.k, work.n
    one = shape(
        sizes, float(work.dtype.bytes), work.read_bytes, work.write_bytes, work.left_bytes, board.kept.weights
    )
    kernel = matmul(board, board.facts.rate(work.dtype.name)[1], one)
    return replace(kernel, text=kernel.text.replace("gemm", "implicit gemm"))


def _attention(board: Board, work: AttentionWork) -> GpuKernel:
    kernel = attention_back if work.back else attention
    return kernel(board, board.facts.rate(work.dtype.name)[1], _heads(work, board.kept.weights))


def _heads(work: AttentionWork, warm: float) -> HeadShape:
    """Return the shape of a model's attention.

    A mask whose diagonal ends at the last key or before it is a causal one over the keys up to there; of one
    that ends behind it, which shows most queries all keys, nothing is left out.
    """
    shown = work.keys if work.diagonal is None else min(work.keys, work.queries + work.diagonal)
    causal = work.diagonal is not None and work.queries + work.diagonal <= work.keys and work.queries > 1
    sizes = (work.batch, work.kv_heads, work.group, work.queries, shown, work.key_size, work.value_size)
    batch, kv_heads, group, queries, keys, key_size, value_size = (np.asarray(float(x)) for x in sizes)
    return HeadShape(
        batch, kv_heads, group, queries, keys, key_size, value_size, float(work.dtype.bytes), causal, warm,
        scattered=work.batch > 1 and work.kv_heads > 1, latent=float(work.shared_size),
    )  # fmt: skip


def _scan(board: Board, work: ScanWork) -> GpuKernel:
    return scan(board, board.facts.rate(work.dtype.name)[1], work)


_KERNELS: dict[type[Work], Callable[[Board, Any], GpuKernel]] = {
    ProductWork: _product,
    ImplicitGemmWork: _implicit_gemm,
    ExpertsWork: _grouped_gemm,
    AttentionWork: _attention,
    ElementwiseWork: streamed,
    RowWork: rowwise,
    RotaryWork: rotary,
    BagWork: embedding_bag,
    RowUpdateWork: row_update,
    CopyWork: streamed,
    ScanWork: _scan,
}
"""What each class of work becomes."""

if set(_KERNELS) != set(WORKS):
    missing = ", ".join(sorted(kind.__name__ for kind in set(WORKS) ^ set(_KERNELS)))
    raise TypeError(f"GPU kernels and classes of work differ: {missing}")


@lru_cache(maxsize=1 << 16)
def _kernel(board: Board, work: Work) -> GpuKernel:
    """Return the kernel of a work without its name, so that equal layers are worked out once."""
    return _KERNELS[type(work)](board, work)


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


def _band(bands: Bands, kind: str, seconds: float) -> Band:
    if kind in UNMEASURED:
        return UNMEASURED[kind]
    band = bands.of(kind, seconds)
    return Band(band.low, band.high)


def _whole_band(bands: Bands, works: list[Work], seconds: list[float]) -> Band | None:
    """Return the band of the whole time: each kernel's, weighted by its time.

    Errors of one kind of kernel go together (a library, a measuring method), so they do not average out.
    """
    whole = add_up(seconds)
    if not whole:
        return None
    each = [_band(bands, work.kind, s) for work, s in zip(works, seconds, strict=True)]
    return Band(
        add_up(b.low * s for b, s in zip(each, seconds, strict=True)) / whole,
        add_up(b.high * s for b, s in zip(each, seconds, strict=True)) / whole,
    )
