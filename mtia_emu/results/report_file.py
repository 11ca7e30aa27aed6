"""Runs to compare, read from files without trusting them: JSON reports, and compiled programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files.json_file import read_json
from ..program.isa import BESIDE, Program
from .difference import LayerRow, Side
from .report import Report
from .report_json import MOST_LAYERS, SCHEMA

OLD_SCHEMA = "mtia-emu.report.v1"  # a launch an entry, without `cycles`
MOST = 1 << 62  # of a whole number
LONGEST = 1 << 12  # letters of a name
MAX_FILE_BYTES = MOST_LAYERS << 10
RIGHT = "what `mtia-emu run --json` writes, or a program"
NO_LAUNCH = -1


def read_report(path: str | Path) -> Side:
    """Return the run of a JSON report. Raises `UserError` for what is none, saying where it is wrong."""
    where = str(path)
    report = _Object(read_json(where, RIGHT, MAX_FILE_BYTES), where)
    schema = report.values.get("schema")
    if schema not in (SCHEMA, OLD_SCHEMA):
        raise UserError(
            f"{where}: schema is {_shown(schema)}; right: {SCHEMA!r}, as `mtia-emu run --json` writes it"
        )
    clock = report.rate("clock_hz")
    several = "tracks" in report.values
    clocks = {x.text("name"): x.rate("clock_hz") for x in report.objects("tracks")} if several else {}
    layers = report.objects("layers")
    rows = tuple(
        _row(layer, layer.among("track", clocks) if several else clock, new=schema == SCHEMA)
        for layer in layers
    )
    numbers = {layer.launch() for layer in layers} - {NO_LAUNCH} if schema == SCHEMA else layers
    traffic = report.object("traffic")
    return Side(
        where,
        report.text("model"),
        report.text("chip"),
        report.text("dtype"),
        report.object("dims").wholes(),
        report.number("seconds"),
        report.number("joules"),
        report.whole("macs"),
        traffic.whole("dram_read_bytes") + traffic.whole("dram_write_bytes"),
        traffic.whole("sram_read_bytes") + traffic.whole("sram_write_bytes"),
        report.whole("cycles"),
        rows,
        len(numbers),
    )


def _row(layer: _Object, clock: float, *, new: bool) -> LayerRow:
    start, end = layer.whole("start_cycle"), layer.whole("end_cycle")
    cycles = layer.number("cycles") if new else max(end - start, 0)
    return LayerRow(
        layer.text("name"),
        layer.text("op"),
        layer.text("kernel"),
        layer.text("bound_by"),
        cycles / clock,
        layer.number("joules"),
        layer.whole("macs"),
        layer.whole("dram_bytes"),
        layer.whole("sram_bytes"),
    )


def of_report(file: str, report: Report, program: Program) -> Side:
    """Return the run of a program that was read from a file and timed."""
    traffic, mappings = report.traffic, _made(program)
    rows = tuple(
        LayerRow(
            *(x.name, x.op, x.kernel, x.bound_by),
            x.seconds,
            *(x.joules, x.macs, x.dram_bytes, x.sram_bytes),
            *mappings[i],
        )
        for i, x in enumerate(report.layers)
    )
    return Side(
        *(file, report.model, report.machine, report.dtype, report.dims),
        *(report.seconds, report.joules, report.macs),
        traffic.dram_read_bytes + traffic.dram_write_bytes,
        traffic.sram_read_bytes + traffic.sram_write_bytes,
        report.cycles,
        rows,
        len(program.launches),
        len(program.blocks),
        sum(program.blocks[launch.block].size for launch in program.launches),
    )


def _made(program: Program) -> list[tuple[int, str]]:
    """Return how many commands each layer of a program has, and its mapping, in the order of its report."""
    cols = int(program.chip["grid"]["cols"])
    blocks = []
    for launch in program.launches:
        block = program.blocks[launch.block]
        if not launch.parts or not block.bands:
            blocks.append((block.size, block.mapping))
            continue
        band = np.searchsorted(block.bands, block.commands["pe"] // cols, side="right")
        mappings = block.mapping.split(BESIDE)
        mappings = mappings if len(mappings) == len(launch.parts) else [block.mapping] * len(launch.parts)
        blocks += zip(np.bincount(band, minlength=len(mappings)).tolist(), mappings, strict=True)
    return blocks


class _Object:
    """A JSON object and where it stands; each reader raises `UserError` for a value of another kind."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{where}: it is {_shown(value)}; right: an object")
        self.values: Mapping[str, Any] = value
        self.where = where

    def _wrong(self, name: str, right: str) -> UserError:
        seen = _shown(self.values[name]) if name in self.values else "missing"
        return UserError(f"{self.where}: {name} is {seen}; right: {right}")

    def text(self, name: str) -> str:
        """Return a string."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > LONGEST:
            raise self._wrong(name, f"a text of at most {LONGEST} letters")
        return value

    def number(self, name: str) -> float:
        """Return a finite number from 0."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
            raise self._wrong(name, "a number from 0")
        return float(value)

    def rate(self, name: str) -> float:
        """Return a number above 0."""
        value = self.number(name)
        if not value:
            raise self._wrong(name, "a clock rate")
        return value

    def among(self, name: str, values: Mapping[str, float]) -> float:
        """Return the value of which a string is the name."""
        key = self.text(name)
        if key not in values:
            raise self._wrong(name, f"one of {', '.join(values) or 'no tracks'}")
        return values[key]

    def whole(self, name: str) -> int:
        """Return a whole number from 0."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
            raise self._wrong(name, "a whole number from 0")
        return value

    def launch(self) -> int:
        """Return the number of a layer's launch, NO_LAUNCH for a machine's that has none."""
        value = self.values.get("launch")
        if value == NO_LAUNCH and isinstance(value, int):
            return NO_LAUNCH
        try:
            return self.whole("launch")
        except UserError:
            raise self._wrong("launch", f"a whole number from 0, or {NO_LAUNCH} for none") from None

    def object(self, name: str) -> _Object:
        """Return an object."""
        if not isinstance(self.values.get(name), dict):
            raise self._wrong(name, "an object")
        return _Object(self.values[name], f"{self.where}: {name}")

    def wholes(self) -> dict[str, int]:
        """Return the object as whole numbers by name."""
        return {name: self.whole(name) for name in self.values}

    def objects(self, name: str) -> list[_Object]:
        """Return a list of objects."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > MOST_LAYERS:
            raise self._wrong(name, f"a list of at most {MOST_LAYERS} objects")
        return [_Object(x, f"{self.where}: {name}[{i}]") for i, x in enumerate(value)]


def _shown(value: Any) -> str:
    """Return a JSON value in an error's words: what is long is cut, whatever it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST:
        return "a number beyond all bounds"
    text = json.dumps(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return text if len(text) <= 60 else text[:60] + "..."
