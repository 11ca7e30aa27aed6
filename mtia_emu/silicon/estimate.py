"""All that is estimated of a chip's silicon at once: area and cost from low to high, and what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..machine.chip import Chip, load_chip
from ..machine.drams import grade, load_technology
from ..machine.memory_choice import BROUGHT, IDEAL, Own, own
from .area import Area, area
from .cost import Cost, cost
from .facts import CASES, Silicon, load_silicon

NEAR = 0.05  # a written die is as large as the estimate says


@dataclass(frozen=True)
class Estimate:
    """Areas and costs, one for each of `CASES`.

    `die_mm2` is the die as the chip file writes it, scaled as settings change the estimated area: `costs`
    are of a die so large.
    """

    chip: Chip
    die_mm2: float
    areas: tuple[Area, ...]
    costs: tuple[Cost, ...]
    memory: str
    packages: int
    own: tuple[Own, ...]
    notes: tuple[str, ...]


def sized(chip: Chip, base: Chip, silicon: Silicon | None = None) -> Chip:
    """Return the chip with the die that `base` writes, scaled as its parameters change the area."""
    facts = silicon or load_silicon()
    share = area(chip, facts).total_mm2 / area(base, facts).total_mm2
    return chip.model_copy(update={"die_mm2": base.die_mm2 * share})


def estimate(name: str, settings: Mapping[str, object] | None = None) -> Estimate:
    """Return the estimate of a chip, or of a .toml file, with settings put over it."""
    facts, given = load_silicon(), settings or {}
    chip = load_chip(name, given)
    if "die_mm2" not in given:
        chip = sized(chip, load_chip(name), facts)
    cases = [facts.in_case(case) for case in CASES]
    areas = tuple(area(chip, x) for x in cases)
    dram, ideal = chip.dram, chip.dram.device == IDEAL
    its_own = () if ideal else tuple(own(dram.device, dram.bytes, _values(chip)))
    return Estimate(
        chip, chip.die_mm2, areas, tuple(cost(chip, x, chip.die_mm2) for x in cases),
        IDEAL if ideal else grade(dram.device),
        0 if ideal else load_technology(dram.device).packages(dram.channels),
        its_own, tuple(_notes(chip, areas)),
    )  # fmt: skip


def _values(chip: Chip) -> dict[str, Any]:
    dumped = {table: getattr(chip, table).model_dump() for table in ("dram", "energy")}
    return {key: dumped[key.partition(".")[0]][key.partition(".")[2]] for key in BROUGHT}


def _notes(chip: Chip, areas: tuple[Area, ...]) -> list[str]:
    """Return where what is written contradicts what is estimated."""
    low, mid, high = (x.total_mm2 for x in areas)
    out = []
    if abs(mid / chip.die_mm2 - 1) > NEAR:
        out.append(
            f"die_mm2 is {chip.die_mm2:.0f}, the estimate {mid:.0f} ({low:.0f} to {high:.0f}): the cost "
            "above is of the written one; leakage, clock power and a sweep's area_mm2 and dollars are of the "
            "estimate"
        )
    dram = chip.dram
    if dram.device != IDEAL:
        tech = load_technology(dram.device)
        packages = tech.packages(dram.channels)
        if dram.bytes > packages * tech.package_bytes * (1 + 1e-9):
            out.append(
                f"dram.bytes is {dram.bytes / 1e9:.0f} GB, but {dram.channels} channels of "
                f"{grade(dram.device)} are {packages} packages of {tech.package_bytes / 1e9:.0f} GB: "
                f"{tech.channels_for(dram.bytes)} channels would hold it"
            )
    return out


def as_json(found: Estimate) -> dict[str, Any]:
    """Return an estimate as plain data: each amount as low, mid and high."""
    return {
        "schema": "mtia-emu.area.v1",
        "chip": found.chip.name,
        "die_mm2": found.die_mm2,
        "area_mm2": _columns([{**asdict(x), "total": x.total_mm2} for x in found.areas]),
        "cost": _columns([{**asdict(x), "total_usd": x.total_usd} for x in found.costs]),
        "memory": {
            "device": found.memory,
            "packages": found.packages,
            "own": {x.key: {"value": x.value, "brought": x.brought} for x in found.own},
        },
        "notes": list(found.notes),
    }


def _columns(cases: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {key: dict(zip(CASES, (x[key] for x in cases), strict=True)) for key in cases[0]}
