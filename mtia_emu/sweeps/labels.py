"""What columns of a sweep are called where people read them: a name and a unit, as in "die area, mm2"."""

from __future__ import annotations

from ..view import units

NAMES = {  # by a column's last part: what it is, and its unit; a parameter of a chip keeps its own name
    "seconds": ("time of a run", "s"),
    "joules": ("energy of a run", "J"),
    "watts": ("mean power", "W"),
    "area_mm2": ("die area", "mm2"),
    "die_mm2": ("die as published", "mm2"),
    "dollars": ("cost to make", "$"),
    "perf_per_watt": ("runs per joule", "1/J"),
    "perf_per_mm2": ("runs per second and area", "1/(s mm2)"),
    "perf_per_dollar": ("runs per second and cost", "1/(s $)"),
    "yield_share": ("yield", "share"),
    "dram_bytes_per_s": ("DRAM bandwidth", "B/s"),
    "sram_bytes_per_s": ("SRAM bandwidth", "B/s"),
    "clock_hz": ("clock", "Hz"),
    "cycles": ("cycles of a run", "cycles"),
    "macs": ("multiply-adds of a run", "MAC"),
    "utilization": ("of the peak", "share"),
    "dollars_per_million_tokens": ("cost of a million tokens", "$"),
    "tco_per_year": ("cost of the fleet", "$ a year"),
    "mw": ("power at the meter", "MW"),
    "tco2e": ("carbon", "t CO2e"),
    "npv_usd": ("net present value", "$"),
}
SCALED = ("s", "J", "W", "B/s", "Hz")  # units whose numbers have prefixes at an axis


def name_of(column: str) -> tuple[str, str]:
    """Return what a column is called, and its unit; "" where it has none or that is not known."""
    model, _, last = column.rpartition(".")
    if last not in NAMES:
        return column, ""
    name, unit = NAMES[last]
    return (f"{name}: {model}" if model else name), unit


def label_of(column: str) -> str:
    """Return name and unit in one."""
    name, unit = name_of(column)
    return f"{name}, {unit}" if unit else name


def amount_of(column: str, value: float) -> str:
    """Return a number of a column in words: "time of a run 60.6 us", "die area 814 mm2"."""
    name, unit = name_of(column)
    shown = units.si(value, unit) if unit in SCALED else f"{value:.4g} {unit}".rstrip()
    return f"{name} {shown}"
