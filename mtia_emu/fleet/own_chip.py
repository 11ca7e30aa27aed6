"""The silicon of an own device, from the chip's file: what `mtia_emu.silicon` says of it, with bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..silicon import Cost, load_silicon
from ..silicon.estimate import Estimate, estimate

WIDE = 3.0  # high over low: beyond, a band is even in the logarithm
BYTES_PER_GB = 1e9


def silicon_of(name: str, settings: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return an own device's silicon as a scenario's TOML would have it, from a chip's name or .toml file.

    Die, wafer, defects and memory are those of `mtia-emu area`; package and test hold what joins several dies
    and stacks, too: dies for input and output, interposer, what bonding loses. Raises `UserError`.
    """
    found, facts = estimate(name, settings), load_silicon()
    node, gigabytes = facts.at(found.chip.node_nm), found.chip.dram.bytes / BYTES_PER_GB
    memory = [one.memory_usd / gigabytes for one in found.costs]
    dies = found.chip.package.compute_dies
    return {
        "die_mm2": _said(found, (found.die_mm2,) * 3),
        "dies": _said(found, (dies,) * 3),
        "wafer_usd": _said(found, node.wafer_usd),
        "defects_per_cm2": _said(found, node.defects_per_cm2),
        "yield_alpha": _said(found, (facts.cost.yield_alpha,) * 3),
        "package_test_usd": _said(found, [joined_usd(one) for one in found.costs]),
        "memory_gb": _said(found, (gigabytes,) * 3),
        "memory_usd_per_gb": _said(found, memory),
    }


def joined_usd(cost: Cost) -> float:
    """Return what makes dies and stacks one tested package: all but compute dies and memory."""
    return cost.package_test_usd + cost.io_die_usd + cost.interposer_usd + cost.bonding_usd


def _said(found: Estimate, numbers: Any) -> dict[str, Any]:
    low, mid, high = (float(x) for x in numbers)
    out: dict[str, Any] = {"value": mid, "status": "computed"}
    out["source"] = f"mtia_emu.silicon of {found.chip.name}: sources in silicon.toml and the memory's file"
    if low < high:
        shape = "log-uniform" if low > 0 and high / low > WIDE else "uniform"
        out |= {"low": low, "high": high, "shape": shape}
    return out
