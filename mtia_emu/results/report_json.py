"""The documented JSON form of a report (`docs/reference/report-json.md`)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..errors import UserError
from ..options import BOARD
from .check import Check
from .report import HitBytes, Layer, Report, compare

SCHEMA = "mtia-emu.report.v2"
MOST_LAYERS = 1 << 16  # of a report that is written of several runs, and of one that is read


def as_json(
    report: Report, gpu: Report | None = None, check: Check | None = None, basis: str = BOARD
) -> dict[str, Any]:
    """Return the JSON object of a report, with the GPU's beside it and the outcome of a check.

    `basis` is what the joules are of by which the two are compared; `joules` of each are its own.

    Raises `UserError` for a report of several runs with more than `MOST_LAYERS` layers together.
    """
    out = _run_json(report)
    if gpu is not None:
        out |= {"gpu": _gpu_json(gpu), "versus_gpu": asdict(compare(report, gpu, basis))}
    if check is not None:
        out["check"] = _check_json(check)
    return out


def _run_json(report: Report) -> dict[str, Any]:
    several = len(report.tracks) > 1
    return {
        "schema": SCHEMA,
        "model": report.model,
        "chip": report.machine,
        "dtype": report.dtype,
        "dims": report.dims,
        "clock_hz": report.clock_hz,
        "cycles": report.cycles,
        "seconds": report.seconds,
        "joules": report.joules,
        "joules_of": _joules_of(report),
        "watts": report.watts,
        "macs": report.macs,
        "utilization": report.utilization,
        "traffic": asdict(report.traffic),
        "served": _served_json(report.served),
        "joules_by": asdict(report.joules_by),
        "layers": [_layer_json(layer, several=several) for layer in _layers(report)],
        "notes": list(report.notes),
        **({"power": asdict(report.power)} if report.power else {}),
        **({"tracks": [asdict(track) for track in report.tracks]} if several else {}),
        **_system_json(report),
    }


def _joules_of(report: Report) -> str | None:
    """Return what a report's joules are of, a key of `HOLDS`; None where several runs differ in it."""
    return report.around.native if report.around else None


def _system_json(report: Report) -> dict[str, Any]:
    """Return what there is to say of many chips, as `system`; nothing of one."""
    if report.system is None:
        return {}
    out = asdict(report.system)
    return {"system": out | {name: list(out[name]) for name in ("stages", "exchanges", "shards")}}


def _served_json(served: HitBytes | None) -> dict[str, Any] | None:
    if served is None:
        return None
    rates = {"dense_hit_rate": served.dense_hit_rate, "row_hit_rate": served.row_hit_rate}
    return asdict(served) | rates


def _layers(report: Report) -> tuple[Layer, ...]:
    """Return the layers of all runs, of which there may be more than can be written."""
    runs = sum(x.times for x in report.stretches)
    count = sum(x.times * len(x.layers) for x in report.stretches)
    if runs > 1 and count > MOST_LAYERS:
        raise UserError(
            f"{report.model} on {report.machine}: {runs} runs have {count} layers, at most {MOST_LAYERS} are "
            "written (right: the report of fewer runs, or of one)"
        )
    return report.layers


def _layer_json(layer: Layer, *, several: bool) -> dict[str, Any]:
    out = asdict(layer)
    del out["own"], out["track"]
    if not layer.next_bound:  # not known
        del out["next_bound"], out["slack"]
    return out | {"cycles": layer.cycles} | ({"track": layer.track.name} if several else {})


def _gpu_json(gpu: Report) -> dict[str, Any]:
    return {
        "name": gpu.machine,
        "dtype": gpu.dtype,
        "seconds": gpu.seconds,
        "joules": gpu.joules,
        "joules_of": _joules_of(gpu),
        "watts": gpu.watts,
        "utilization": gpu.utilization,
        "traffic": asdict(gpu.traffic),
        "joules_by": asdict(gpu.joules_by),
        "layers": [_kernel_json(layer) for layer in _layers(gpu)],
        "notes": list(gpu.notes),
        "seconds_band": asdict(gpu.seconds_band) if gpu.seconds_band else None,
        "joules_band": asdict(gpu.joules_band) if gpu.joules_band else None,
        **_system_json(gpu),
    }


def _kernel_json(kernel: Layer) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "op": kernel.op,
        "kernel": kernel.kernel,
        "seconds": kernel.span_s,
        "joules": kernel.joules,
        "bound_by": kernel.bound_by,
    }


def _check_json(check: Check) -> dict[str, Any]:
    layers = [asdict(x) | {"passed": x.passed} for x in check.layers]
    return asdict(check) | {"passed": check.passed, "layers": layers}
