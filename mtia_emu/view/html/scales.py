"""From values to pixels: axes with units, ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_SIZES = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1.00045e4, 1e3, "k"))


def plain(value: float) -> str:
    """Return a number as people read it: 99,000 is "99 k", 0.25 is "0.25"."""
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:g}"
    for least, size, name in _SIZES:
        if abs(value) >= least * 0.9995:
            return f"{float(f'{value:.3g}') / size:,.4g} {name}"
    if abs(value) >= 999.5:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def dollars(value: float) -> str:
    """Return an amount of money: "$272 M", "-$1.2 B", "$45,900"."""
    text = plain(abs(value)).replace(" G", " B")
    return f"{'-' if value < 0 else ''}${text}"


def share(value: float) -> str:
    """Return a share in whole percent, or with what decimals it needs to be neither none nor all."""
    percent = 100 * value
    if 0 < percent < 0.5 or 99.5 < percent < 100:
        return f"{percent:.2g}%" if percent < 50 else f"{percent:.4g}%"
    return f"{percent:.0f}%"


@dataclass(frozen=True)
class ChartAxis:
    """What an axis shows: a name, the unit of its numbers (never empty), and how one of them is written."""

    name: str
    unit: str
    log: bool = False
    show: Callable[[float], str] = plain

    def __post_init__(self) -> None:
        if not self.unit:
            raise ValueError(f"the axis {self.name!r} has no unit; that of a ratio is 'share' or 'x'")

    @property
    def label(self) -> str:
        """Return name and unit, as in "die area, mm2"; the name alone where each number says its unit."""
        return self.headed(self.name)

    def headed(self, name: str) -> str:
        """Return a heading of such numbers: a name, and the unit where they do not say it."""
        return name if self.show(1.0).endswith(self.unit) else f"{name}, {self.unit}"

    def amount(self, value: float) -> str:
        """Return a number with its unit, unless the way in which it is written has one."""
        return f"{self.show(value)} {self.unit}" if self.show is plain else self.show(value)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`; what is beyond is drawn at the end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at most so many round values inside the scale."""
        return _log_ticks(self, most) if self.log else _linear_ticks(self, most)


def scale(
    values: Iterable[float], pixels: tuple[float, float], *, log: bool = False, zero: bool = False
) -> Scale:
    """Return a scale that holds all finite values, and zero if asked; on a log axis those above zero."""
    kept = [v for v in values if math.isfinite(v) and (not log or v > 0)]
    kept += [0.0] if zero and not log else []
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - abs(low or 1) / 2, high + abs(high or 1) / 2)
    return Scale(low, high, *pixels, log)


def _linear_ticks(on: Scale, most: int) -> list[float]:
    step = 10.0 ** math.floor(math.log10((on.high - on.low) / max(most, 1)))
    step *= next(m for m in (1, 2, 2.5, 5, 10, 20) if (on.high - on.low) / (step * m) <= most)
    first = math.ceil(on.low / step - 1e-9)
    last = math.floor(on.high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _log_ticks(on: Scale, most: int) -> list[float]:
    first, last = math.floor(math.log10(on.low)), math.ceil(math.log10(on.high))
    for parts in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**p for p in range(first, last + 1) for m in parts]
        kept = [t for t in ticks if on.low * (1 - 1e-9) <= t <= on.high * (1 + 1e-9)]
        if len(kept) <= most:
            return kept
    return kept[:: -(-len(kept) // most)]
