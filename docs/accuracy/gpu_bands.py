"""Error bands of the GPU files: own residuals, the spread between sources, and the doubt of what is borrowed.

The parts are independent, so their logarithms add as squares, each side of a band by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from accuracy import gpu_bags, gpu_models, gpu_scores, gpu_second, gpu_small, tables
from accuracy.gpu_scores import gpu
from accuracy.score import Score, score
from mtia_emu.gpu import Facts
from mtia_emu.gpu.facts import SHORT_S

Ends = tuple[float, float]
SPREAD: Mapping[str, Ends] = {"a100": (0.88, 1.19), "": (0.93, 1.44)}
"""Measured times of one public collector over another's, 10 to 90 %, for the same kernels: of an A100
(medians of kinds 0.99 to 1.02), and of an H100 (1.09 to 1.15), which stands for all that is newer."""
KIN = (("h200-sxm", "h100-sxm"),)
"""A GPU with tables, and one of its own generation whose constants it is timed with."""
STRANGERS = (
    ("h100-sxm", "a100-sxm-80gb"), ("a100-sxm-80gb", "h100-sxm"), ("b200", "h100-sxm"),
    ("h100-sxm", "b200"), ("l40s", "a100-sxm-80gb"), ("l40s", "h100-sxm"),
)  # fmt: skip
"""The same of two generations."""
SAME = ("a100-sxm-40gb", "a100-sxm-80gb", "h100-pcie", "h200-sxm")
"""GPUs that borrow from one of their own generation; all others from a stranger."""


def joined(*parts: Ends) -> Ends:
    """Return the band of errors that come together: logarithms add as squares, each side by itself."""
    low = math.sqrt(sum(math.log(min(1.0, p[0])) ** 2 for p in parts))
    high = math.sqrt(sum(math.log(max(1.0, p[1])) ** 2 for p in parts))
    return math.exp(-low), math.exp(high)


def around(parts: Iterable[Ends]) -> Ends:
    """Return the band that holds all of these and 1."""
    each = list(parts)
    return min(1.0, *(p[0] for p in each)), max(1.0, *(p[1] for p in each))


def spread(name: str, kind: str = "") -> Ends:
    """Return how far public collectors are apart on a GPU; on short matmuls of what is newer, a third one."""
    if name.startswith("a100") or kind != "short_matmul":
        return SPREAD["a100" if name.startswith("a100") else ""]
    return around([SPREAD[""], gpu_second.ends(gpu_second.collectors(), SHORT_S)])


def _ends(scores: Iterable[Score]) -> Ends:
    return around((s.low, s.high) for s in scores)


def own(name: str) -> dict[str, Ends]:
    """Return the residuals of what was not fitted, by kind, where a GPU has tables, and of other runtimes."""
    kinds = [d for d in ("bf16", "fp8_e4m3") if getattr(gpu(name).rates, d) is not None]
    runtimes = [gpu_scores.spread(name, runtime) for runtime in ("vllm", "sglang")]
    found = {"matmul": _ends([*(gpu_scores.layers(name, d) for d in kinds), *runtimes])}
    if name in tables.ATTENTION:
        fitted = _ends(gpu_scores.attention(name, p) for p in ("context", "generation"))
        found["attention"] = around([fitted, gpu_second.ends(gpu_second.of(name, "attention"))])
    vector = [gpu_scores.vectors(name, ops) for ops in gpu_small.GROUPS.values()]
    known = [s for s in vector if s is not None]
    host = gpu_second.of(name, "vector")
    others = [gpu_second.ends(host)] if host else []
    return found | ({"vector": around([_ends(known), *others])} if known else {})


def lent(name: str, other: str, kind: str, keys: Iterable[str]) -> Ends:
    """Return measured / modelled of a GPU that is timed with constants of another's, beside its datasheet."""
    from accuracy.gpu_constants import get, put

    facts = put(gpu(name), {key: get(gpu(other), key) for key in keys})
    if kind == "matmul":
        return _ends([gpu_scores.layers(name, "bf16", facts=facts)])
    if kind == "attention":
        return _ends(_attention(facts, name, phase) for phase in ("context", "generation"))
    rows = [gpu_small.vidur(name, ops) for ops in gpu_small.GROUPS.values()]
    return _ends(
        score(gpu_small.rows_seconds(facts, r), r.latency_s.to_numpy()) for r in rows if r is not None
    )


def _attention(facts: Facts, name: str, phase: str) -> Score:
    rows = tables.attention(name, phase)
    return score(gpu_models.attention_seconds(facts, rows, phase), rows.seconds.to_numpy())


def borrowed(keys: Mapping[str, Iterable[str]], pairs: Iterable[tuple[str, str]]) -> dict[str, Ends]:
    """Return what constants of another GPU add, by kind: all that such pairs show."""
    each = list(pairs)
    out = {}
    for kind, names in keys.items():
        fitting = [p for p in each if kind != "vector" or set(p) <= set(gpu_small.VIDUR)]
        out[kind] = (
            around(lent(name, other, kind, names) for name, other in fitting) if fitting else (1.0, 1.0)
        )
    return out


def bag() -> Ends | None:
    """Return measured / modelled of the bags that were not fitted, be there half or twice as many tables."""
    counts = (gpu_bags.FEWER, gpu_bags.TABLES, gpu_bags.MORE)
    scores = [gpu_bags.scored(gpu(gpu_bags.MEASURED), count) for count in counts]
    return _ends(s for s in scores if s is not None) if all(scores) else None


METERED_S = 200e-6  # layers from which the meter, which averages over a second, saw little else
SERVED = (0.88, 1.07)  # measured / modelled joules of served models, 80 %, as docs/accuracy-gpu.md has them


def joules(name: str) -> dict[str, Ends]:
    """Return the bands of joules of a GPU that watts are published of: of long kernels, and of short ones."""
    power = gpu_scores.sustained(name, "bf16", METERED_S)
    if power is None:
        return {}
    long = around([(power["energy"].low, power["energy"].high), SERVED])
    short = gpu_scores.short_joules(name)
    return {"joules": long, "short_joules": (short[0], max(long[1], short[1]))}


def rounded(ends: Ends) -> Ends:
    """Return ends of three digits."""
    return float(f"{ends[0]:.3g}"), float(f"{ends[1]:.3g}")


def inside(ratios: np.ndarray, ends: Ends) -> float:
    """Return the share of measured / modelled that lies in a band."""
    return float(((ratios >= ends[0]) & (ratios <= ends[1])).mean())
