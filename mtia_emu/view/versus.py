"""A run beside a GPU's: each ratio with its band and what it is of, in words and as rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..options import SERVER
from ..results.basis import HOLDS, LEAVES
from ..results.report import Band, Comparison, Report
from . import units

OF_TIME = "one run, inputs on the machine already; without the host"
OF_PEAK = "multiply-adds of what each one's own peak allows in its time"


@dataclass(frozen=True)
class Ratio:
    """One amount of both sides and chip over GPU: its 80 % band, which is the GPU's model's alone, and basis.

    `short` says the basis in a word; `band` is None where the GPU's model was not held to measurements.
    """

    name: str
    short: str
    ours: str
    theirs: str
    ratio: str
    band: Band | None
    basis: str

    @property
    def named(self) -> str:
        """Return the name with the basis in a word."""
        return f"{self.name} ({self.short})" if self.short else self.name


def ratios(report: Report, gpu: Report, versus: Comparison) -> list[Ratio]:
    """Return time, energy, power, runs per joule and utilization of both sides."""
    joules = versus.chip_joules, versus.gpu_joules
    of = HOLDS[versus.basis] if versus.basis else "each its own"
    powers = [_per(j, x.seconds) for j, x in zip(joules, (report, gpu), strict=True)]
    runs = [_per(1, j) for j in joules]
    time, energy = _inverse(versus.speed_band), _inverse(versus.energy_band)
    short = versus.basis or ""
    peaks = report.utilization, gpu.utilization
    rows = (
        ("time", "one run", units.seconds, (report.seconds, gpu.seconds), time, OF_TIME),
        ("energy", short, units.joules, joules, energy, of),
        ("power", short, units.watts, powers, None, of),
        ("runs per joule", short, units.count, runs, versus.energy_band, of),
        ("utilization", "own peak", units.percent, peaks, None, OF_PEAK),
    )
    return [
        Ratio(name, word, show(a), show(b), units.ratio(a / b) if b else "-", band, basis)
        for name, word, show, (a, b), band, basis in rows
    ]


def sides(report: Report, gpu: Report) -> list[str]:
    """Return the names of both machines, with their dtypes."""
    return [f"{x.machine} ({x.dtype})" for x in (report, gpu)]


def _inverse(band: Band | None) -> Band | None:
    """Return the band of GPU over chip as that of chip over GPU."""
    return Band(1 / band.high, 1 / band.low) if band is not None and band.low > 0 else None


def sentences(report: Report, gpu: Report, versus: Comparison) -> Iterator[str]:
    """Yield what there is to say of the ratios: bands, what joules are of, what is published, the host."""
    yield from _bands(versus)
    yield from _basis(report, gpu, versus)
    yield from _host(report, gpu)


def _per(amount: float, whole: float) -> float:
    return amount / whole if whole else 0.0


def _bands(versus: Comparison) -> Iterator[str]:
    """Yield how wide the ratios are, as far as the GPU's model was held to measurements."""
    named = [("as fast", versus.speed_band), ("performance per watt", versus.energy_band)]
    texts = [f"{name} {units.ratio(b.low)} to {units.ratio(b.high)}" for name, b in named if b is not None]
    if texts:
        yield f"80 % band of the GPU's model alone: {'; '.join(texts)}."


def _basis(report: Report, gpu: Report, versus: Comparison) -> Iterator[str]:
    """Yield what the joules of both sides are of, and what is published of such chips."""
    if versus.basis:
        shares = [units.watts(x.around.server_w / x.around.machines) for x in (report, gpu) if x.around]
        of = f" ({' and '.join(shares)})" if versus.basis == SERVER else ""
        yield f"Joules of both: {HOLDS[versus.basis]}{of}; without {LEAVES[versus.basis]}."
    p = versus.published
    if p is not None:
        spread = "" if p.low == p.high else f", {units.ratio(p.low)} to {units.ratio(p.high)}"
        yield f"Published performance per watt: {units.ratio(p.mean)}{spread} ({p.text})."


def _host(report: Report, gpu: Report) -> Iterator[str]:
    """Yield how long the inputs are on the link from the host, which is in the time of neither side."""
    rates = [x.around.host_bytes_per_s if x.around else 0.0 for x in (report, gpu)]
    size = report.traffic.host_bytes
    if size and all(rates):
        ours, theirs = (units.seconds(size / rate) for rate in rates)
        yield (
            f"Inputs from the host, {units.size(size)}: {ours} on the link of {report.machine}, {theirs} on "
            f"that of {gpu.machine}; in the time and energy of neither."
        )


def in_words(report: Report, gpu: Report, versus: Comparison) -> str:
    """Return the comparison in plain words."""
    if not (versus.speed and versus.energy and versus.perf_per_watt):
        return f"{report.machine} and {gpu.machine} cannot be compared: one took no time or no energy."
    return (
        f"{report.machine} is {units.ratio(versus.speed)} as fast as {gpu.machine} and uses "
        f"{units.ratio(1 / versus.energy)} the energy; "
        f"its performance per watt is {units.ratio(versus.perf_per_watt)} the GPU's."
    )
