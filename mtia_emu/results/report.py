"""What a run of a model on a machine came to: plain data, the same for our chip and for a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..sums import add_up
from .spans import own_ticks

SCHEMA = "mtia-emu.report.v2"
FILL, LATENCY, LAUNCH = "fill and drain", "latency", "launch"
BOUNDS = {  # what a layer on our chip can be bound by
    "array": "the matrix unit of a PE",
    "reduce": "the reduction engine of a PE",
    "simd": "the SIMD engine of a PE",
    "dma": "the DMA port of a PE",
    "core": "operations that run on a PE's core",
    "issue": "a core, issuing commands",
    "local": "the port of a PE's local memory",
    "noc": "a link of the network on chip",
    "sram": "the bandwidth of the shared SRAM",
    "dram": "the bandwidth of the DRAM",
    FILL: "idle before the first use and after the last one",
    LATENCY: "idle between uses, waiting for other commands",
    LAUNCH: "starting the layer",
}


@dataclass(frozen=True)
class Traffic:
    """Bytes moved, by level and direction. `noc_bytes` are payload bytes that entered the network on chip."""

    local_read_bytes: int = 0
    local_write_bytes: int = 0
    sram_read_bytes: int = 0
    sram_write_bytes: int = 0
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    noc_bytes: int = 0


@dataclass(frozen=True)
class Joules:
    """Energy by what spent it, in joules; the fields sum to the whole.

    `clock` is the clock tree and control that no event price holds: its size is inferred, not counted.
    """

    compute: float = 0.0
    local: float = 0.0
    sram: float = 0.0
    dram: float = 0.0
    noc: float = 0.0
    control: float = 0.0
    static: float = 0.0
    clock: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum of all parts."""
        return float(add_up(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Layer:
    """One layer, the time to launch it included: when it ran, what it moved and what bound it.

    `bound_by`, one of BOUNDS, is the resource that was busy the largest share of the time. Where it was busy
    less than half of it, `fill and drain` or `latency`, whichever kept it idle longer; `launch` where
    launching took longer than running. `ops` are arithmetic operations: two a multiply-add, one for each
    element and pass of the SIMD engine and for each element on a core; 0 where they are not counted.

    `launch` is the number of the launch that ran it, -1 where there are none. Layers of one launch ran side
    by side: their spans overlap, and `own` is the part of the run's time that is each one's (`own_cycles`).
    """

    name: str
    op: str
    kernel: str
    start_cycle: int
    end_cycle: int
    macs: int
    dram_bytes: int
    sram_bytes: int
    joules: float
    bound_by: str
    ops: int = 0
    launch: int = -1
    own: float | None = None

    @property
    def cycles(self) -> float:
        """Return the cycles that are the layer's own: over all layers they sum to those in which any ran."""
        return self.end_cycle - self.start_cycle if self.own is None else self.own


def own_cycles(layers: Sequence[Layer]) -> list[float]:
    """Return the cycles that each layer is answerable for, as `own_ticks` has it."""
    return own_ticks([x.start_cycle for x in layers], [x.end_cycle for x in layers])


@dataclass(frozen=True)
class Roofs:
    """The peaks of a machine for arithmetic in `dtype`: what no layer can exceed."""

    dtype: str
    matrix_ops_per_s: float
    simd_ops_per_s: float
    dram_bytes_per_s: float
    sram_bytes_per_s: float


@dataclass(frozen=True)
class Band:
    """An 80 % band of what a measurement would give: as factors of the value that it stands beside."""

    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """The outcome of one model on one machine. `utilization` is of the dtype's peak multiply-add rate.

    `seconds_band` and `joules_band` are given where the machine's model was held to measurements.
    """

    model: str
    machine: str
    dtype: str
    dims: dict[str, int]
    clock_hz: float
    cycles: int
    joules_by: Joules
    traffic: Traffic
    macs: int
    utilization: float
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    seconds_band: Band | None = None
    joules_band: Band | None = None

    @property
    def seconds(self) -> float:
        """Return the time taken, in seconds."""
        return self.cycles / self.clock_hz

    @property
    def joules(self) -> float:
        """Return the energy taken, in joules."""
        return self.joules_by.total

    @property
    def watts(self) -> float:
        """Return the average power, in watts."""
        return self.joules / self.seconds if self.cycles else 0.0


@dataclass(frozen=True)
class Distance:
    """How far one output is from the oracle's; relative to the largest finite magnitude expected.

    `cosine` is the cosine of the angle between the two outputs as vectors, `sqnr_db` ten times the logarithm
    of the ratio of the expected output's energy to the error's. Each is None where it has no finite value: of
    zeros, of outputs that are not finite, of no error.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True)
class WrongCommand:
    """The first wrong command of a layer: its number in the layer's block (-1: none), and why it is wrong.

    It reads what an operand should not hold or nothing has written, or writes what is wrong in the result and
    stays there. `chain` are the commands that its values come from, itself last; `unlike` is the first of
    them that what made right parts of the result has no like of: a hint where the fault may lie.
    """

    index: int
    text: str
    why: str
    chain: tuple[str, ...] = ()
    unlike: str = ""


@dataclass(frozen=True)
class LayerCheck:
    """How far one layer is from its op's reference, on what the reference says that its operands hold.

    The relative error is of the largest magnitude expected. `compared` counts elements: 0 where no value of
    the model is what the layer writes.
    """

    name: str
    op: str
    kernel: str
    launch: int
    max_abs_error: float
    max_rel_error: float
    allowed: float
    compared: int
    command: WrongCommand | None = None

    @property
    def passed(self) -> bool:
        """Return whether the layer is within what is allowed."""
        return bool(self.max_rel_error <= self.allowed)


@dataclass(frozen=True)
class Check:
    """How far outputs are from those of the oracle named, the worst over all and each by name.

    `layers` are how far each is from its reference, where that was asked for.
    """

    max_abs_error: float
    max_rel_error: float
    tolerance: float
    outputs: dict[str, Distance] = field(default_factory=dict)
    oracle: str = ""
    layers: tuple[LayerCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether every output is within tolerance, and every layer that was compared."""
        return bool(self.max_rel_error <= self.tolerance) and all(x.passed for x in self.layers)

    @property
    def first_wrong(self) -> LayerCheck | None:
        """Return the first layer that is wrong by itself."""
        return next((x for x in self.layers if not x.passed), None)


@dataclass(frozen=True)
class Comparison:
    """How many times better the chip is than the GPU: above 1 the chip wins, None where it cannot be said."""

    speed: float | None
    energy: float | None
    perf_per_watt: float | None
    speed_band: Band | None = None
    energy_band: Band | None = None


def _around(value: float | None, band: Band | None) -> Band | None:
    """Return the band of a value that grows with what the band is of."""
    return Band(value * band.low, value * band.high) if value is not None and band is not None else None


def compare(chip: Report, gpu: Report) -> Comparison:
    """Return the ratios of GPU to chip: time, energy, and work per second per watt.

    Performance per watt is 1 / (seconds x watts) on each side, which is 1 / joules: at equal work it equals
    the energy ratio. Both are printed since both are asked for by name. The bands are those of the GPU's
    model alone: what is wrong with the chip's comes on top.
    """
    energy = gpu.joules / chip.joules if chip.joules else None
    speed = gpu.seconds / chip.seconds if chip.cycles else None
    return Comparison(
        speed, energy, energy, _around(speed, gpu.seconds_band), _around(energy, gpu.joules_band)
    )


def _layer_json(layer: Layer) -> dict[str, Any]:
    out = asdict(layer)
    del out["own"]
    return out | {"cycles": layer.cycles}


def as_json(report: Report, gpu: Report | None = None, check: Check | None = None) -> dict[str, Any]:
    """Return the documented JSON object (`docs/reference/report-json.md`)."""
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "model": report.model,
        "chip": report.machine,
        "dtype": report.dtype,
        "dims": report.dims,
        "clock_hz": report.clock_hz,
        "cycles": report.cycles,
        "seconds": report.seconds,
        "joules": report.joules,
        "watts": report.watts,
        "macs": report.macs,
        "utilization": report.utilization,
        "traffic": asdict(report.traffic),
        "joules_by": asdict(report.joules_by),
        "layers": [_layer_json(layer) for layer in report.layers],
        "notes": list(report.notes),
    }
    if gpu is not None:
        layers = [
            {
                "name": x.name,
                "op": x.op,
                "kernel": x.kernel,
                "seconds": (x.end_cycle - x.start_cycle) / gpu.clock_hz,
                "joules": x.joules,
                "bound_by": x.bound_by,
            }
            for x in gpu.layers
        ]
        out["gpu"] = {
            "name": gpu.machine,
            "dtype": gpu.dtype,
            "seconds": gpu.seconds,
            "joules": gpu.joules,
            "watts": gpu.watts,
            "utilization": gpu.utilization,
            "traffic": asdict(gpu.traffic),
            "joules_by": asdict(gpu.joules_by),
            "layers": layers,
            "notes": list(gpu.notes),
            "seconds_band": asdict(gpu.seconds_band) if gpu.seconds_band else None,
            "joules_band": asdict(gpu.joules_band) if gpu.joules_band else None,
        }
        out["versus_gpu"] = asdict(compare(report, gpu))
    if check is not None:
        layers = [asdict(x) | {"passed": x.passed} for x in check.layers]
        out["check"] = asdict(check) | {"passed": check.passed, "layers": layers}
    return out
