"""The numbers that area and cost are made from: checked values read from `silicon.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import UserError, nearest
from ..files import toml
from ..machine.drams import dram_names, grade, load_technology
from ..machine.drams.technology import Range

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
POSITIVE = Field(gt=0, le=1e9)
REFERENCE_NM = 7  # the node that areas are given at
Case = Literal["low", "mid", "high"]
CASES: tuple[Case, ...] = get_args(Case)
OF_MEMORY = (
    "usd_per_gb",
    "package_phy_mm2",
)  # what settings may change of a memory: `dram.hbm3-6400.usd_per_gb`


class AreaFacts(BaseModel):
    """Areas at 7 nm."""

    model_config = STRICT

    sram_mm2_per_mb: float = POSITIVE
    float16_mac_um2: float = POSITIVE
    int8_mac_share: float = POSITIVE
    float32_mac_share: float = POSITIVE
    noc_mm2_per_byte_per_cycle: Range
    host_mm2: Range
    pe_rest_mm2: float = Field(ge=0, le=1e9)


class CostFacts(BaseModel):
    """What a package costs, and how yield is counted."""

    model_config = STRICT

    wafer_mm: float = POSITIVE
    yield_alpha: float = POSITIVE
    package_test_usd: Range
    interposer_usd_per_mm2: Range
    bond_loss_share: Range

    @field_validator("bond_loss_share")
    @classmethod
    def _most_hold(cls, value: Range) -> Range:
        if value[-1] > 0.5:
            raise ValueError("at most 0.5")
        return value


class ProcessNode(BaseModel):
    """One process node."""

    model_config = STRICT

    transistors_m_per_mm2: float = POSITIVE
    sram_bit_um2: float = POSITIVE
    wafer_usd: Range
    defects_per_cm2: Range


class Device(BaseModel):
    """What is published of a GPU: its die and what it costs to make; None where nobody says."""

    model_config = STRICT

    die_mm2: float | None = None
    make_usd: float | None = None


class MemoryPrice(BaseModel):
    """What settings say of a memory in place of its file."""

    model_config = STRICT

    usd_per_gb: Range | None = None
    package_phy_mm2: Range | None = None


class Silicon(BaseModel):
    """All numbers that area and cost are made from; `case` is which end of their ranges is taken."""

    model_config = STRICT

    area: AreaFacts
    cost: CostFacts
    node: dict[str, ProcessNode]
    device: dict[str, Device]
    dram: dict[str, MemoryPrice] = Field(default_factory=dict)
    case: Case = "mid"

    def pick(self, among: Range) -> float:
        """Return the number of a range that the case takes."""
        return among[CASES.index(self.case)]

    def in_case(self, case: Case) -> Silicon:
        """Return the same numbers, those of ranges from their low end, middle or high end."""
        return self.model_copy(update={"case": case})

    def of_memory(self, name: str, what: Literal["usd_per_gb", "package_phy_mm2"]) -> float:
        """Return what a memory costs a GB, or what a package of it needs on the die."""
        said = getattr(self.dram.get(grade(name), MemoryPrice()), what)
        return self.pick(getattr(load_technology(name), what) if said is None else said)

    def at(self, node_nm: float) -> ProcessNode:
        """Return the facts of a process node; raise `UserError` for one that there are none of."""
        node = self.node.get(f"{node_nm:g}")
        if node is None:
            known = ", ".join(sorted(self.node, key=float))
            raise UserError(f"node_nm is {node_nm:g}: area and cost are known at {known} nm")
        return node


@cache
def _values() -> str:
    return (resources.files(__package__) / "silicon.toml").read_text(encoding="utf-8")


def load_silicon(settings: Mapping[str, object] | None = None) -> Silicon:
    """Return the numbers, with `settings` (dotted key to value) put over them; raise `UserError`."""
    values = toml.parse(_values(), "silicon.toml")
    known = sorted(
        [*_leaves(values, ""), *(f"dram.{name}.{key}" for name in dram_names() for key in OF_MEMORY)]
    )
    for key, value in (settings or {}).items():
        if key not in known:
            raise UserError(f"silicon: unknown key '{key}'{nearest(key, known)}")
        *path, last = key.split(".")
        table: Any = values
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    try:
        return Silicon.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"silicon: '{key}' is {first['input']!r}: {first['msg'].lower()}") from None


def _leaves(values: dict[str, Any], prefix: str) -> list[str]:
    out = []
    for name, value in values.items():
        out += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return out
