"""The memory technology as one choice: what `dram.device` brings, what a chip has of its own in its place.

A chip file may leave out every key of `BROUGHT`: it follows from the device and from `dram.bytes`. A chip
that is given another device loses what its file says of the one before, so that timing, energy, channels,
pads, price and package change together; settings made with it stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .drams import grade, load_dram, load_technology
from .drams.technology import Technology
from .units.dram import DramTiming

IDEAL = "ideal"  # a device without timings, which brings nothing
DEVICE = "dram.device"
MOST_BYTES = 1 << 60  # beyond what a chip may have: its own check refuses that
Rule = Callable[[Technology, DramTiming, float], Any]

BROUGHT: dict[str, Rule] = {
    "dram.channels": lambda tech, timing, bytes_: tech.channels_for(bytes_),
    "dram.channel_bytes_per_s": lambda tech, timing, bytes_: timing.bytes_per_s,
    "dram.burst_bytes": lambda tech, timing, bytes_: timing.burst_bytes,
    "dram.latency_s": lambda tech, timing, bytes_: tech.latency_s,
    "dram.refresh": lambda tech, timing, bytes_: timing.refresh,
    "dram.channel_interleave_bytes": lambda tech, timing, bytes_: timing.channel_interleave_bytes,
    "dram.ecc_data_bytes": lambda tech, timing, bytes_: tech.inline_ecc_data_bytes,
    "energy.dram_read_pj_per_byte": lambda tech, timing, bytes_: tech.read_pj_per_byte,
    "energy.dram_write_pj_per_byte": lambda tech, timing, bytes_: tech.write_pj_per_byte,
    "energy.dram_activate_pj": lambda tech, timing, bytes_: timing.activate_pj,
    "energy.dram_idle_w": lambda tech, timing, bytes_: tech.idle_w_per_gb * bytes_ / 1e9,
}
"""What a device brings, by key of a chip: from its technology, its timings and the bytes of the chip."""


@dataclass(frozen=True)
class Own:
    """A number that a chip has of its own in place of the one that its memory brings."""

    key: str
    value: object
    brought: object


def choose(values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Take out of a chip's nested values what its memory brought, where the settings name another one.

    Raises `UserError` for an unknown memory.
    """
    new, dram = settings.get(DEVICE), values.get("dram")
    if not isinstance(new, str) or new == IDEAL or not isinstance(dram, dict):
        return
    old = dram.get("device")
    if _grade(old) == grade(new):
        return
    for key in BROUGHT:
        table, _, name = key.partition(".")
        if isinstance(values.get(table), dict):
            values[table].pop(name, None)


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """Return a chip's nested values with what its memory brings where they say nothing themselves.

    What is no chip is returned as it is, for the chip's own check to refuse.
    """
    dram = values.get("dram")
    if not isinstance(dram, dict) or not all(isinstance(values.get(t), dict) for t in ("dram", "energy")):
        return values
    device, bytes_ = dram.get("device"), dram.get("bytes")
    if not isinstance(device, str) or _grade(device) is None:
        return values
    missing = [key for key in BROUGHT if not _has(values, key)]
    if not missing:
        return values
    held = bytes_ if isinstance(bytes_, int | float) and 0 < bytes_ < MOST_BYTES else 1.0
    out = {**values, "dram": dict(dram), "energy": dict(values["energy"])}
    brought = bring(device, held)
    for key in missing:
        table, _, name = key.partition(".")
        out[table][name] = brought[key]
    return out


def bring(device: str, bytes_: float) -> dict[str, Any]:
    """Return what a memory brings to a chip that has so many bytes of it, by key of the chip."""
    technology, timing = load_technology(device), load_dram(device)
    return {key: rule(technology, timing, bytes_) for key, rule in BROUGHT.items()}


def own(device: str, bytes_: float, values: Mapping[str, Any]) -> list[Own]:
    """Return where a chip's values, by dotted key, are not those of its memory; none of an ideal one."""
    if device == IDEAL:
        return []
    brought = bring(device, bytes_)
    return [Own(key, values[key], x) for key, x in brought.items() if not _same(values[key], x)]


def _grade(device: object) -> str | None:
    try:
        return grade(device) if isinstance(device, str) else None
    except UserError:
        return None


def _has(values: Mapping[str, Any], key: str) -> bool:
    table, _, name = key.partition(".")
    return name in values[table]


def _same(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return one == other
