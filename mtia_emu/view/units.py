"""Quantities as people read them: three significant digits and an SI prefix.

Micro is written `u`, so that the texts stay ASCII and can be searched for. A value below the smallest prefix
or above the largest is shown in scientific notation; a negative value keeps its sign, and nan and inf show as
such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Show = Callable[[float], str]
_ABOVE = ("", "k", "M", "G", "T", "P", "E")
_BELOW = ("", "m", "u", "n", "p", "f", "a")


def si(value: float, unit: str, *, below: int = len(_BELOW) - 1, above: int = len(_ABOVE) - 1) -> str:
    """Return `value` with three significant digits, an SI prefix and `unit`: `si(0.0123, "s")` is "12.3 ms".

    `below` and `above` limit how many prefixes under and over one may be used; whole numbers below 1000 keep
    no decimals ("512 B").
    """
    if value == 0 or not math.isfinite(value):
        return f"{abs(value) if value == 0 else value:g} {unit}".rstrip()
    rounded = float(f"{value:.2e}")  # before the prefix is chosen: 999.6 m is 1.00, not 1000 m
    group = max(-below, min(above, math.floor(math.log10(abs(rounded)) / 3 + 1e-9)))
    scaled = rounded / 1000.0**group
    if not 1e-3 <= abs(scaled) < 1e6:
        return f"{value:.2e} {unit}".rstrip()
    prefix = _ABOVE[group] if group >= 0 else _BELOW[-group]
    if group == 0 and float(value).is_integer():
        return f"{value:,.0f} {unit}".rstrip()
    return f"{_digits(scaled)} {prefix}{unit}".rstrip()


def _digits(scaled: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{scaled:,.{max(0, 2 - math.floor(math.log10(abs(scaled)) + 1e-9))}f}"


def seconds(value: float) -> str:
    """Return a time: "12.3 ms". Above one second there is no prefix: "3,600 s"."""
    return si(value, "s", above=0)


def duration(value: float) -> str:
    """Return a time that people plan with: "42.0 s", "12.5 min", "3.09 h", "54.0 days"."""
    for length, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if value >= length:
            return si(value / length, unit, below=0, above=0)
    return seconds(value)


def size(value: float) -> str:
    """Return an amount of bytes, decimal: "4.20 MB" is 4.2 million bytes."""
    return si(value, "B", below=0)


def joules(value: float) -> str:
    """Return an energy: "1.02 J"."""
    return si(value, "J")


def watts(value: float) -> str:
    """Return a power: "82.9 W"."""
    return si(value, "W")


def hertz(value: float) -> str:
    """Return a frequency: "1.35 GHz"."""
    return si(value, "Hz", below=0)


def count(value: float, unit: str = "") -> str:
    """Return a number of things: "8.03 G", or with a unit "8.03 GMAC"."""
    return si(value, unit, below=0)


def many(number: int, what: str) -> str:
    """Return so many things, by the word for one of them: "1 step", "2,048 steps"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def ratio(value: float) -> str:
    """Return a factor: "0.120x", "2.30x", "1,500x"."""
    return si(value, "", below=0, above=0) + "x"


def percent(fraction: float) -> str:
    """Return a fraction in percent: 0.341 is "34.1%"; what is not zero never shows as "0.0%"."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    return f"{100 * fraction:.1f}%"


def percents(parts: Sequence[float]) -> list[str]:
    """Return what share of the sum each part is, rounded so that the shares shown add up to exactly 100.0%.

    Largest remainder method, in tenths of a percent. Every share is "-" when the sum is not a positive
    number.
    """
    total = math.fsum(parts)
    if not 0 < total < math.inf or min(parts) < 0:
        return ["-"] * len(parts)
    exact = [1000 * part / total for part in parts]
    tenths = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (tenths[i] - exact[i], i))
    for i in by_remainder[: 1000 - sum(tenths)]:
        tenths[i] += 1
    return [f"{t // 10}.{t % 10}%" for t in tenths]
