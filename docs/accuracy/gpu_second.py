"""Second sources: rows of other collectors and of other runtimes than those that constants were fitted to.

Half of each source's groups may widen a band (`gpu_bands`) or correct a constant; the other half tells how
many rows the bands hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from accuracy import gpu_models, tables
from accuracy.gpu_scores import gpu
from accuracy.score import halves, percent, table
from mtia_emu.gpu import Facts
from mtia_emu.gpu.facts import SHORT_S
from mtia_emu.gpu.kernel import Board
from mtia_emu.gpu.matmul import seconds
from mtia_emu.gpu.memory import rowwise
from mtia_emu.gpu.shapes import shapes
from mtia_emu.types import FP16, RowWork

Frame = Any
OPENXLA = tables.ROOT / "docs" / "data" / "matmul_h100_openxla.csv"
HOST_GPU = "a100-sxm-80gb"
HOST_FILE = "measured_operators_a100_mi210.csv"
HOST_DEVICE = "A100-80GB-SXM4"
HOST_S = {"matmul": 21e-6, "softmax": 12e-6, "layernorm": 45e-6, "gelu": 45e-6}
"""What a PyTorch operator and its synchronisation take beside the kernel, as the rows' source gives it."""


@dataclass(frozen=True)
class Second:
    """A second source of kernels of one kind: seconds [row], and which rows are kept for scoring."""

    gpu: str
    kind: str
    text: str
    modelled: np.ndarray
    measured: np.ndarray
    scored: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Return measured / modelled."""
        return self.measured / self.modelled

    def held(self) -> float:
        """Return the share of the scoring half that lies in the bands of the GPU's file."""
        bands = [gpu(self.gpu).bands.of(self.kind, float(s)) for s in self.modelled[self.scored]]
        low, high = np.array([b.low for b in bands]), np.array([b.high for b in bands])
        ratios = self.ratios[self.scored]
        return float(((ratios >= low) & (ratios <= high)).mean())


def ends(sources: Iterable[Second], most_s: float = math.inf) -> tuple[float, float]:
    """Return measured / modelled, 10 and 90 %, of all rows together that may widen a band.

    `most_s` leaves out rows that are modelled to take as long or longer.
    """
    ratios = [s.ratios[~s.scored & (s.modelled < most_s)] for s in sources]
    low, high = np.quantile(np.concatenate(ratios), (0.1, 0.9))
    return float(low), float(high)


def openxla() -> Frame:
    """Return the matmuls of H100 that OpenXLA published."""
    import pandas

    return pandas.read_csv(OPENXLA, comment="#")


def openxla_measured(rows: Frame, dtype: str) -> np.ndarray:
    """Return the measured seconds of bf16 or tf32 matmuls."""
    flops = 2.0 * rows.batch * rows.m * rows.n * rows.k
    return (flops / rows[f"{dtype}_flops_per_s"]).to_numpy()


def openxla_seconds(facts: Facts, rows: Frame, dtype: str) -> np.ndarray:
    """Return the modelled seconds; operands were read again and again, so that L2 holds small ones."""
    element = {"bf16": 2.0, "tf32": 4.0}[dtype]
    batch, m, k, n = (rows[c].to_numpy(float) for c in ("batch", "m", "k", "n"))
    warm = gpu_models.kept(facts, element * batch * (m * k + k * n + m * n))
    return seconds(Board(facts), facts.rate(dtype)[1], shapes((batch, m, k, n), element, warm))


def openxla_fitted(rows: Frame) -> np.ndarray:
    """Return by row whether it may be fitted."""
    return halves(list(zip(rows.m, rows.n, rows.k, strict=True)))


def tf32_over_bf16(facts: Facts) -> np.ndarray:
    """Return modelled / measured of what TF32 takes over bf16, of the matmuls that may be fitted.

    A collector's fixed time is in both, so that little of it is in the ratio.
    """
    rows = openxla()
    rows = rows[openxla_fitted(rows)]
    measured = openxla_measured(rows, "tf32") / openxla_measured(rows, "bf16")
    return openxla_seconds(facts, rows, "tf32") / openxla_seconds(facts, rows, "bf16") / measured


def _openxla() -> Iterator[Second]:
    rows = openxla()
    for dtype in ("bf16", "tf32"):
        modelled = openxla_seconds(gpu("h100-sxm"), rows, dtype)
        measured, scored = openxla_measured(rows, dtype), ~openxla_fitted(rows)
        for long, text in ((False, "below 20 us"), (True, "from 20 us")):
            at = (modelled >= SHORT_S) == long
            yield Second(
                "h100-sxm", "matmul", f"OpenXLA, {dtype}, {text}", modelled[at], measured[at], scored[at]
            )


def operator_seconds(facts: Facts, op: str, m: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the time of fp16 operators on m rows of n elements, launched by a host that waits."""
    return np.array([_operator(facts, op, int(a * b), int(b)) for a, b in zip(m, n, strict=True)])


def _operator(facts: Facts, op: str, elements: int, row: int) -> float:
    work = RowWork(
        "", "", FP16, elements=elements, row=0 if op == "gelu" else row, flops=elements,
        read_bytes=2 * elements, write_bytes=2 * elements,
    )  # fmt: skip
    return rowwise(Board(facts), work).seconds - facts.launch_graph_s + HOST_S[op]


def _host_timed() -> Iterator[Second]:
    found = tables.reference(HOST_FILE)
    if found is None:
        return
    found, facts = found[found.device == HOST_DEVICE], gpu(HOST_GPU)
    for op, host_s in HOST_S.items():
        rows = found[found.op == op]
        m, n = rows.M.to_numpy(float), np.nan_to_num(rows.N.to_numpy(float), nan=1.0)
        if op == "matmul":
            linear = rows.rename(columns={"M": "m", "N": "n", "K": "k"})
            modelled = gpu_models.layer_seconds(facts, "bf16", linear) + host_s
        else:
            modelled = operator_seconds(facts, op, m, n)
        kind, scored = "matmul" if op == "matmul" else "vector", ~halves(list(zip(m, n, strict=True)))
        yield Second(HOST_GPU, kind, f"LLMCompass, {op}", modelled, rows.latency_s.to_numpy(), scored)


def _layers(name: str) -> Iterator[Second]:
    for runtime in ("vllm", "sglang"):
        rows = tables.gemm(name, "bf16", runtime)
        modelled = gpu_models.layer_seconds(gpu(name), "bf16", rows)
        scored = ~halves(list(zip(rows.n, rows.k, strict=True)))
        yield Second(name, "matmul", f"{runtime}, bf16", modelled, rows.seconds.to_numpy(), scored)


def _attention(name: str) -> Iterator[Second]:
    for runtime, release in tables.ATTENTION_OTHERS[name].items():
        for phase, text in (("context", "prefill"), ("generation", "decode")):
            rows = tables.attention(name, phase, (runtime, release))
            modelled = gpu_models.attention_seconds(gpu(name), rows, phase)
            scored = ~halves(list(zip(rows.num_heads, rows.num_key_value_heads, strict=True)))
            measured = rows.seconds.to_numpy()
            yield Second(name, "attention", f"{runtime}, {text}", modelled, measured, scored)


def of(name: str, kind: str) -> list[Second]:
    """Return the second sources of a GPU's kernels of one kind; OpenXLA's are a collector, not a runtime."""
    found = [s for s in _host_timed() if s.gpu == name and s.kind == kind]
    if kind == "matmul":
        found += _layers(name)
    return [*found, *_attention(name)] if kind == "attention" else found


def collectors() -> list[Second]:
    """Return what another collector than that of the fitted tables measured of H100."""
    return list(_openxla())


def coverage() -> str:
    """Return how many rows of second sources lie in the bands of the GPU files."""
    rows = []
    for name in tables.SYSTEMS:
        each = [s for kind in ("matmul", "attention", "vector") for s in of(name, kind)]
        for s in [*each, *(s for s in collectors() if s.gpu == name)]:
            ratios = s.ratios[s.scored]
            low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
            rows.append([
                name, s.kind, s.text, f"{len(ratios):,}", percent(s.held()), f"{middle:.2f}",
                f"{low:.2f} to {high:.2f}",
            ])  # fmt: skip
    head = ["GPU", "kind", "source", "rows", "in the band", "measured / modelled", "80 % of it"]
    told = (
        ""
        if tables.reference(HOST_FILE) is not None
        else "\n\nThe reference folder is not there: no LLMCompass."
    )
    return table(head, rows) + told
