"""What a design point came to: plain data, one row of the sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..options import CHIP
from ..results.report import Joules, Layer, Report, Traffic
from ..results.spans import Track, seconds_by
from ..sums import add_up
from .spec import FLEET_OBJECTIVES, OBJECTIVES, Spec

OK, EXCLUDED, FAILED = "ok", "excluded", "failed"
STATUSES = (OK, EXCLUDED, FAILED)
MOST_GROUPS = 100  # of equal layers that a row keeps of each model
GROUP_FIELDS = (
    "op",
    "kernel",
    "bound_by",
    "layers",
    "seconds",
    "macs",
    "dram_bytes",
    "sram_bytes",
    "joules",
    "span_seconds",
)


@dataclass(frozen=True)
class Row:
    """One design point's outcome.

    `params` are the parameters that vary, linked ones included; `metrics` are the columns of `metric_columns`
    (empty unless `status` is "ok"); `layers` are, by model, groups of equal layers as lists of GROUP_FIELDS.
    """

    index: int
    params: Mapping[str, Any]
    status: str
    reason: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, list[list[Any]]] = field(default_factory=dict)


def model_metrics(report: Report, peak_macs_per_s: float) -> dict[str, Any]:
    """Return the columns that one model gives a row, without the model's name before them."""
    out: dict[str, Any] = {
        "seconds": report.seconds,
        "joules": report.joules,
        "joules_of": CHIP,
        "watts": report.watts,
        "cycles": report.cycles,
        "clock_hz": report.clock_hz,
        "macs": report.macs,
        "utilization": report.utilization,
        "peak_macs_per_s": peak_macs_per_s,
        "bound_by": _bound(report.layers),
    }
    out |= asdict(report.traffic)
    return out | {f"joules_{name}": value for name, value in asdict(report.joules_by).items()}


def _bound(layers: Iterable[Layer]) -> str:
    """Return what bound the largest share of the time."""
    seconds = seconds_by((layer.bound_by, layer.track, layer.cycles) for layer in layers)
    return max(seconds, key=lambda name: (seconds[name], name)) if seconds else ""


def overall(
    each: Mapping[str, Mapping[str, Any]], spec: Spec, area_mm2: float | None, dollars: float | None
) -> dict[str, Any]:
    """Return the objectives over all models: weighted geometric means of seconds and joules, and ratios.

    Performance is runs of the model a second; `perf_per_watt` is that over watts, 1 / joules.
    """
    seconds = _mean(each, spec, "seconds")
    joules = _mean(each, spec, "joules")
    values: dict[str, float | None] = {
        "seconds": seconds,
        "joules": joules,
        "area_mm2": area_mm2,
        "dollars": dollars if dollars is None or math.isfinite(dollars) else None,
        "perf_per_watt": _inverse(joules),
        "perf_per_mm2": _inverse(seconds * area_mm2 if area_mm2 else None),
        "perf_per_dollar": _inverse(seconds * dollars if dollars and math.isfinite(dollars) else None),
    }
    assert list(values) == list(OBJECTIVES)
    return values


def _mean(each: Mapping[str, Mapping[str, Any]], spec: Spec, key: str) -> float:
    weight = add_up(m.weight for m in spec.model)
    values = [float(each[m.name][key]) for m in spec.model]
    if min(values) <= 0:
        return 0.0
    return math.exp(add_up(m.weight * math.log(v) for m, v in zip(spec.model, values, strict=True)) / weight)


def _inverse(value: float | None) -> float | None:
    return 1.0 / value if value else None


def layer_groups(report: Report) -> list[list[Any]]:
    """Return groups of equal layers, the longest first, each as GROUP_FIELDS; amounts are summed.

    Seconds are the layers' own and sum to the run's; their spans overlap where layers run side by side.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for x in report.layers:
        own, span = x.seconds, x.span_s
        key = (x.op, x.kernel, x.bound_by, round(x.cycles, 6), span, x.macs, x.dram_bytes, x.sram_bytes)
        group = groups.setdefault(key, [x.op, x.kernel, x.bound_by, 0, 0.0, 0, 0, 0, 0.0, 0.0])
        group[3] += 1
        for at, value in enumerate((own, x.macs, x.dram_bytes, x.sram_bytes, x.joules, span), 4):
            group[at] += value
    return sorted(groups.values(), key=lambda g: (-g[4], *map(str, g)))[:MOST_GROUPS]


def metric_columns(spec: Spec) -> list[str]:
    """Return the names of a row's metrics, in the order in which they are exported."""
    from ..silicon import Area

    one = [*model_metrics(_nothing(), 0.0)]
    parts = [f"area.{name}" for name in Area.__dataclass_fields__]
    chip = ["die_mm2", "yield_share", "dram_bytes_per_s", "sram_bytes_per_s"]
    fleet = FLEET_OBJECTIVES if spec.fleet else ()
    return [*OBJECTIVES, *fleet, *chip, *parts, *(f"{m.name}.{key}" for m in spec.model for key in one)]


def _nothing() -> Report:
    return Report("", "", "", {}, (Track("", 1.0),), (), Joules(), Traffic(), 0, 0.0)


def columns(spec: Spec) -> list[str]:
    """Return the names of all columns, in canonical order."""
    names = ["point", *spec.set, *spec.link, "status", "reason", *metric_columns(spec)]
    return list(dict.fromkeys(names))  # a parameter may be a metric too: the die's size


def record(row: Row, spec: Spec) -> dict[str, Any]:
    """Return a row as one flat mapping over `columns`; what a row does not have is None."""
    fixed = {"point": row.index, "status": row.status, "reason": row.reason}
    values = {**row.params, **fixed, **row.metrics}
    return {name: values.get(name) for name in columns(spec)}
