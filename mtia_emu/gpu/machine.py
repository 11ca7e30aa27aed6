"""`Gpu`: facts that can run work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from .. import types
from ..errors import UserError, refuse_unknown
from ..report import Joules, Layer, Report, Traffic
from ..types import DType, Work
from .facts import Facts
from .kernel import Kernel
from .matmul import Shape, matmul, shape
from .memory import embedding_bag, stream

LAUNCHES = ("graph", "stream")
KINDS = ("matmul", "embedding_bag", "vector", "move")


class Gpu(Facts):
    """A GPU: its facts, and the time and energy of work on it."""

    def matmul_seconds(self, m: int, k: int, n: int, dtype: str | DType, batch: int = 1) -> float:
        """Return the device time of one matmul kernel, back to back with others in a graph.

        `[batch, m, k] x [batch, k, n]`, weights in DRAM. It includes the graph's launch period; it is never
        below the datasheet roofline (peak rate, peak DRAM bandwidth, each operand byte once) and never
        falls when a size grows.
        """
        for name, size in (("m", m), ("k", k), ("n", n), ("batch", batch)):
            if size < 1:
                raise UserError(f"matmul {name} is {size}; sizes are at least 1")
        return _matmul(self, shape(m, k, n, _kind(dtype), batch)).seconds

    def kernel(self, work: Work) -> Kernel:
        """Return the kernel that one operator becomes, launched from a graph."""
        return _kernel(
            self, work.kind, work.dtype, work.shape, work.macs, work.flops, work.read_bytes, work.write_bytes
        )

    def run(
        self, works: Sequence[Work], *, model: str, dtype: str, dims: dict[str, int], launch: str = "graph"
    ) -> Report:
        """Return the report of the works, one kernel each, in order; one without bytes or operations is none.

        `launch`: `graph` (back to back in a CUDA graph) or `stream` (each pays the longer period of stream
        launches). `sram_*` of the traffic is L2. Joules are the board's: `static` idle with clocks up,
        `control` the clocked SMs, `compute` operations, `dram` DRAM bytes with caches and network; power
        never exceeds `tdp_w`. `bound_by`: `tensor`, `dram`, `l2`, `launch`, `power`, or `occupancy` (idle
        SMs, padding, too few loads in flight, vector ALUs). Operations fused into a matmul cost nothing.
        """
        if launch not in LAUNCHES:
            raise refuse_unknown("launch", launch, LAUNCHES)
        extra = self.launch_stream_s - self.launch_graph_s if launch == "stream" else 0.0
        live = [w for w in works if w.macs or w.flops or w.read_bytes or w.write_bytes]
        kernels = [self.kernel(w) for w in live]
        layers, seconds = self._layers(live, kernels, extra)
        macs = sum(layer.macs for layer in layers)
        peak = self.rate(_kind(dtype))[1].flops_per_s / 2
        return Report(
            model, self.name, dtype, dict(dims), self.clock_hz,
            cycles=layers[-1].end_cycle if layers else 0,
            joules_by=_joules(kernels, self.idle_w * extra), traffic=_traffic(kernels),
            macs=macs, utilization=macs / (seconds * peak) if seconds else 0.0,
            layers=layers, notes=self._notes(live, launch),
        )  # fmt: skip

    def _layers(
        self, works: list[Work], kernels: list[Kernel], extra: float
    ) -> tuple[tuple[Layer, ...], float]:
        """Return a layer for each kernel, and the seconds they take together."""
        layers, now = [], 0.0
        for work, k in zip(works, kernels, strict=True):
            start, now = now, now + k.seconds + extra
            bound = "launch" if extra > k.seconds else k.bound_by
            layers.append(
                Layer(
                    name=work.name,
                    op=work.op,
                    kernel=k.text,
                    start_cycle=round(start * self.clock_hz),
                    end_cycle=round(now * self.clock_hz),
                    macs=work.macs,
                    dram_bytes=k.dram_read_bytes + k.dram_write_bytes,
                    sram_bytes=k.l2_read_bytes + k.l2_write_bytes,
                    joules=k.joules + self.idle_w * extra,
                    bound_by=bound,
                )
            )
        return tuple(layers), now

    def _notes(self, works: list[Work], launch: str) -> tuple[str, ...]:
        """Return what a reader must know of the basis, and each dtype that ran at another's rate."""
        kinds = sorted({w.dtype.name for w in works if w.kind == "matmul"})
        rates = [(kind, self.rate(types.dtype(kind))[0]) for kind in kinds]
        return (
            f"GPU time is of kernels launched by {launch}; energy is the board's",
            *(
                f"{self.name} has no {kind} matmul rate: {kind} runs at its {rate} rate"
                for kind, rate in rates
                if kind != rate
            ),
        )


def _kind(dtype: str | DType) -> DType:
    return types.dtype(dtype) if isinstance(dtype, str) else dtype


@lru_cache(maxsize=1 << 16)
def _matmul(facts: Facts, s: Shape) -> Kernel:
    return matmul(facts, s)


@lru_cache(maxsize=1 << 16)
def _kernel(
    facts: Facts, kind: str, dtype: DType, dims: tuple[int, ...], macs: int, flops: int, read: int, write: int
) -> Kernel:
    """Return the kernel of a work without its name, so that equal layers are worked out once."""
    if kind not in KINDS:
        raise ValueError(f"work kind {kind!r} has no GPU kernel (known: {', '.join(KINDS)})")
    if kind == "matmul" and macs:
        batch, m, k, n = dims
        return matmul(facts, Shape(batch, m, k, n, dtype, read, write))
    work = Work("", "", kind, dtype, dims, macs, flops, read, write)
    return embedding_bag(facts, work) if kind == "embedding_bag" else stream(facts, work)


def _joules(kernels: list[Kernel], launch_joules: float) -> Joules:
    """Return the sum of the kernels' joules; each kernel's launch gap beyond the graph's idles."""
    return Joules(
        compute=sum(k.compute for k in kernels),
        dram=sum(k.dram for k in kernels),
        control=sum(k.active for k in kernels),
        static=sum(k.static for k in kernels) + launch_joules * len(kernels),
    )


def _traffic(kernels: list[Kernel]) -> Traffic:
    """Return the kernels' bytes; L2 stands in the fields of shared SRAM."""
    return Traffic(
        sram_read_bytes=sum(k.l2_read_bytes for k in kernels),
        sram_write_bytes=sum(k.l2_write_bytes for k in kernels),
        dram_read_bytes=sum(k.dram_read_bytes for k in kernels),
        dram_write_bytes=sum(k.dram_write_bytes for k in kernels),
    )
