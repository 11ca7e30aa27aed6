"""A chip: a checked, frozen value read from a TOML file that any architect can copy and edit."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..errors import UserError, nearest
from ..types import DType, dtype
from .base import chip_values
from .chips import chip_names, chip_text  # noqa: F401
from .drams import load_dram
from .memory_choice import choose, filled
from .network import Network
from .package import Package
from .system import Server
from .units.dram import DramTiming
from .units.energy import Energy
from .units.matrix import Matrix
from .units.memory import (
    STRICT,
    ControlProcessor,
    Core,
    Dma,
    Dram,
    LayoutUnit,
    Local,
    Reduce,
    Sram,
    unit,
)
from .units.noc import Grid, Noc
from .units.power import Power
from .units.simd import Simd

Array = np.ndarray[Any, Any]
Numbers = Array | float
NUMBERS = (int, float, dict[str, float])
LEAST, MOST = 1e-15, 1e21  # of any number: a chip's times and joules stay finite
MOST_COUNT = 10**9  # of a whole number that has no limit of its own


class Pe(BaseModel):
    """One processing element."""

    model_config = STRICT

    matrix: Matrix
    reduce: Reduce
    simd: Simd
    layout: LayoutUnit
    dma: Dma
    core: Core
    local: Local

    def product_cost(self, m: Numbers, k: Numbers, n: Numbers, kind: DType) -> tuple[Array, Array | int]:
        """Return (busy, latency) of products a[m, k] x b[k, n] on the unit that takes their type."""
        if self.matrix.supports(kind.name):
            return self.matrix.cost(m, k, n, kind.name)
        return self.simd.product_cost(np.asarray(m) * k * n, kind)


class Kernels(BaseModel):
    """What the chip's kernel library does, where there is a choice that the hardware leaves open."""

    model_config = STRICT

    stationary: Literal["weights", "inputs", "any"] = Field(
        description="the operand of a product that PEs keep while the other one's tiles pass: b, a, or "
        "whichever is estimated to be faster",
        json_schema_extra=unit("name"),
    )
    bags_in_flight: int = Field(
        gt=0,
        le=64,
        description="bags that a PE works on at once; one alone waits for its indices, then for its rows",
        json_schema_extra=unit("bags"),
    )


class Chip(BaseModel):
    """A whole accelerator."""

    model_config = STRICT

    name: str = Field(max_length=64, description="the chip's name")
    clock_hz: float = Field(
        gt=0, le=1e12, description="clock of PEs, network and SRAM", json_schema_extra=unit("Hz")
    )
    node_nm: float = Field(gt=0, description="process node", json_schema_extra=unit("nm"))
    die_mm2: float = Field(gt=0, description="published die area", json_schema_extra=unit("mm2"))
    typical_w: float = Field(gt=0, description="published typical power", json_schema_extra=unit("W"))
    tdp_w: float = Field(gt=0, description="the most power on average", json_schema_extra=unit("W"))
    grid: Grid
    pe: Pe
    noc: Noc
    sram: Sram
    dram: Dram
    launch: ControlProcessor
    kernels: Kernels
    package: Package
    system: Server
    network: Network | None = None  # None: it runs alone, in no system
    power: Power
    energy: Energy

    @property
    def pes(self) -> int:
        """Return the number of processing elements."""
        return self.grid.rows * self.grid.cols

    @cached_property
    def sram_bytes_per_cycle(self) -> float:
        """Return the shared SRAM's bandwidth, read plus write, which follows the clock."""
        return self.sram.bytes_per_s / self.power.nominal_hz

    @cached_property
    def sram_bytes_per_s(self) -> float:
        """Return the shared SRAM's bandwidth at the chip's clock."""
        return self.sram_bytes_per_cycle * self.clock_hz

    @cached_property
    def dram_bytes_per_cycle(self) -> float:
        """Return the DRAM's peak bandwidth."""
        return self.dram.bytes_per_s / self.clock_hz

    @cached_property
    def dram_timing(self) -> DramTiming | None:
        """Return the timings of a DRAM channel, None where it is ideal."""
        d = self.dram
        if d.device == "ideal":
            return None
        changed = {n: getattr(d, n) for n in ("refresh", "channel_interleave_bytes", "ecc_data_bytes")}
        return load_dram(d.device, **changed).at_rate(d.channel_bytes_per_s)

    def dram_efficiency(self, run_bytes: Array, write_share: float = 0.0) -> Array:
        """Return the share of DRAM's peak, in any shape, that randomly placed runs of so many bytes reach."""
        if self.dram_timing is None:
            return np.ones(np.shape(run_bytes))
        return self.dram_timing.efficiency(run_bytes, write_share, self.dram.channels)

    def sram_cycles(self, bytes_: Numbers) -> Array:
        """Return the cycles in which the shared SRAM reads or writes so many bytes, in any shape."""
        return np.asarray(bytes_) / self.sram_bytes_per_cycle

    def dram_cycles(self, bytes_: Numbers, run_bytes: Numbers, write_share: float = 0.0) -> Array:
        """Return the cycles of DRAM's channels for bytes of whole bursts in such runs, in any shape."""
        return np.asarray(np.asarray(bytes_) / self.dram_rate(run_bytes, write_share))

    def run_cycles(self, run_bytes: Numbers, runs: Numbers, write_share: float = 0.0) -> Array:
        """Return the cycles of DRAM's channels for so many runs of whole bursts, in any shape."""
        return self.dram_cycles(
            self.dram.burst(np.asarray(run_bytes), np.asarray(runs)), run_bytes, write_share
        )

    def dram_rate(self, run_bytes: Numbers, write_share: float = 0.0) -> Array:
        """Return the bytes a cycle of DRAM's channels in runs of so many bytes, in any shape."""
        return self.dram_bytes_per_cycle * self.dram_efficiency(np.asarray(run_bytes), write_share)

    def read_latency(self, missed: Numbers) -> Array:
        """Return the cycles of reads, in any shape, out of SRAM, or DRAM for the share that SRAM misses.

        DRAM is asked about only where something misses.
        """
        near = self.sram.latency_s * self.power.nominal_hz  # it runs on the chip's clock
        more = self.cycles(self.dram.latency_s) - near if np.any(missed) else 0.0
        return np.asarray(near + np.asarray(missed) * more)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with fields changed; what follows from them is worked out anew."""
        copy = super().model_copy(update=update, deep=deep)
        for name in vars(copy).keys() - type(self).model_fields:
            del copy.__dict__[name]
        return copy

    def at_clock(self, clock_hz: float) -> Chip:
        """Return the chip at another clock; its supplies follow."""
        return self if clock_hz == self.clock_hz else self.model_copy(update={"clock_hz": clock_hz})

    def part(self, rows: int, cols: int) -> Chip:
        """Return the chip with only a corner of [rows, cols] PEs, where a program made for that grid runs.

        The other PEs idle. Raises `UserError` where the grid is smaller.
        """
        if (rows, cols) == (self.grid.rows, self.grid.cols):
            return self
        if rows > self.grid.rows or cols > self.grid.cols:
            raise UserError(
                f"the program is for a grid of {rows} x {cols} PEs, {self.name} has "
                f"{self.grid.rows} x {self.grid.cols}; compile for this chip"
            )
        return self.model_copy(update={"grid": Grid(rows=rows, cols=cols)})

    def cycles(self, seconds: float) -> float:
        """Return a time in clock cycles."""
        return seconds * self.clock_hz

    def launch_cycles(self, number: int) -> int:
        """Return the cycles that it takes to start a launch, by its number in the program, from 0."""
        return math.ceil(self.cycles(self.launch.replace_s if number else self.launch.first_s))

    def peak_macs_per_cycle(self, kind: DType) -> float:
        """Return the multiply-adds a cycle of all PEs, on the unit that takes that dtype."""
        if self.pe.matrix.supports(kind.name):
            return self.pes * self.pe.matrix.macs_per_cycle(kind.name)
        return self.pes * self.pe.simd.macs_per_cycle(kind)

    def nearest_matrix_dtype(self, kind: DType) -> DType:
        """Return `kind` where the matrix unit has a rate for it, else the nearest dtype that it has.

        Nearest: the same kind of number first, then the fewest bits that hold at least as many as asked for,
        then the most bits there are. Where the unit has no such number at all, `kind` itself: it runs on the
        SIMD engine.
        """
        if self.pe.matrix.supports(kind.name) or not kind.is_float:
            return kind
        have = [dtype(name) for name in self.pe.matrix.rates if dtype(name).is_float]
        wide = [t for t in have if t.bits >= kind.bits]
        order = sorted(wide, key=lambda t: t.bits) or sorted(have, key=lambda t: (-t.bits, t.name != "fp16"))
        return order[0] if order else kind


def load_chip(name: str, settings: Mapping[str, object] | None = None) -> Chip:
    """Return the chip of that name or .toml file, with `settings` (dotted key to value) put over it.

    Unknown keys, wrong types, NaN and values out of range raise `UserError`; files and settings pass the same
    check.
    """
    values, where = chip_values(name)
    put_all(values, settings or {})
    return validate(values, where)


def put_all(values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Set dotted keys in a chip's nested tables; another memory takes the place of all of the one before."""
    choose(values, settings)
    for key, value in settings.items():
        put(values, key, value)


def put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested tables; the model's own check judges the result."""
    *path, last = key.split(".")
    table = values
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(
                f"--set {key}: '{part}' is a value, not a table of keys{nearest(key, known_keys())}"
            )
    if isinstance(table.get(last), dict):
        raise UserError(
            f"--set {key}: a table of keys, not a value (known: {', '.join(sorted(table[last]))})"
        )
    table[last] = value


def validate(values: dict[str, Any], where: str) -> Chip:
    """Return the chip that nested values describe; raise `UserError` naming every fault."""
    values = filled(values)
    faults = [fault for key, info in _fields(Chip, "") if (fault := _unlike(key, info, values))]
    if faults:
        raise UserError(f"chip {where}: " + "; ".join(faults))
    try:
        chip = Chip.model_validate(values)
    except ValidationError as error:
        raise UserError(f"chip {where}: " + "; ".join(_fault(e) for e in error.errors())) from None
    _check_whole(chip, where)
    return chip


def _unlike(key: str, info: Any, values: Mapping[str, Any]) -> str:
    """Return what is wrong with a value's kind or size, empty where nothing is or no value is there.

    pydantic takes True for 1 and "8" for 8, and sets no end to a number.
    """
    value: Any = values
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ""
        value = value[part]
    items = value.items() if isinstance(value, Mapping) else [("", value)]
    for name, x in items:
        full = f"{key}.{name}" if name else key
        if isinstance(x, (int, float)) and not isinstance(x, bool) and info.annotation in NUMBERS:
            if x and not LEAST <= abs(x) <= MOST and (isinstance(x, int) or math.isfinite(x)):
                return f"'{full}' is {x}: a number here is 0 or from {LEAST:g} to {MOST:g}"
            limited = any(hasattr(m, "le") for m in info.metadata)
            if info.annotation is int and not limited and x > MOST_COUNT:
                return f"'{full}' is {x}: a count here is at most {MOST_COUNT}"
        elif info.annotation in NUMBERS and not isinstance(x, Mapping):
            return f"'{full}' is {x!r}: not a number"
        elif info.annotation is bool and not isinstance(x, bool):
            return f"'{full}' is {x!r}: right: true or false"
    return ""


def _fault(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, known_keys())}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    return f"'{key}' is {error['input']!r}: {error['msg'].lower()}"


def _check_whole(chip: Chip, where: str) -> None:
    """Refuse a chip on which some event would be free or some dtype unknown."""
    for name in chip.pe.matrix.rates:
        dtype(name)
        if name not in chip.energy.mac_pj:
            raise UserError(f"chip {where}: pe.matrix.rates has {name} but energy.mac_pj has no price for it")
    try:
        _ = chip.dram_timing
    except UserError as error:
        raise UserError(f"chip {where}: dram: {error}") from None
    if "fp32" not in chip.energy.mac_pj:
        raise UserError(
            f"chip {where}: energy.mac_pj.fp32 is missing; fp32 work on the SIMD engine needs its price"
        )
    for key in ("voltage_v", "memory_voltage_v"):
        if getattr(chip.energy, key) <= chip.power.threshold_v:
            raise UserError(
                f"chip {where}: energy.{key} is {getattr(chip.energy, key):g}; right: above "
                f"power.threshold_v, {chip.power.threshold_v:g}"
            )
    _check_prices(chip, where)


def _check_prices(chip: Chip, where: str) -> None:
    """Refuse a price that is no price, and a zero operand that costs more than another."""
    for name, price in chip.energy.mac_pj.items():
        if not 0 <= price < 1e6:
            raise UserError(f"chip {where}: energy.mac_pj.{name} is {price}; a price is between 0 and 1e6 pJ")
        zero = chip.energy.zero_mac_pj.get(name)
        if zero is None or not 0 <= zero <= price:
            raise UserError(
                f"chip {where}: energy.zero_mac_pj.{name} is {'missing' if zero is None else zero}; right: "
                f"from 0 to {price}, the price of a multiply-add without a zero"
            )
    for name in chip.energy.zero_mac_pj:
        if name not in chip.energy.mac_pj:
            raise UserError(f"chip {where}: energy.zero_mac_pj has {name}, energy.mac_pj has not")


def known_keys() -> list[str]:
    """Return every dotted key that a chip file may have."""
    return sorted(key for key, _ in _fields(Chip, ""))


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        table = next((k for k in (info.annotation, *get_args(info.annotation)) if _is_table(k)), None)
        if table is not None:
            yield from _fields(table, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


TABLES_OF_RATES = ("pe.matrix.rates.", "energy.mac_pj.", "energy.zero_mac_pj.")
SYSTEM_TABLES = ("links.", "switches.", "host.")  # what begins the keys of a system's file, not of a chip's


def parse_setting(text: str) -> tuple[str, object]:
    """Return (key, value) of a `KEY=VALUE` text; the value is read as TOML, else taken as a string."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r}: not KEY=VALUE (right: --set pe.matrix.rows=64)")
    key = key.strip()
    if key not in known_keys() and not key.startswith((*TABLES_OF_RATES, *SYSTEM_TABLES)):
        raise UserError(f"--set {text!r}: unknown key '{key}'{nearest(key, known_keys())}")
    try:
        return key, tomllib.loads(f"x = {raw.strip()}")["x"]
    except (ValueError, RecursionError):
        return key, raw.strip()
