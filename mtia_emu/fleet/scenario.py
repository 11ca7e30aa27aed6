"""A scenario: what a fleet has to do, on which devices, where and at what prices. Checked, frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from .quantity import STRICT, Quantity, Shape, Status

MOST_NAMES = 64  # devices, kinds of work and options of a scenario
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def amount(text: str, least: float, most: float) -> Any:
    """Return the field of a quantity: what it means, and between which bounds its unit is believed."""
    return Field(description=text, json_schema_extra={"least": least, "most": most})


def maybe(text: str, least: float, most: float) -> Any:
    """Return the field of a quantity that may be left out."""
    return Field(default=None, description=text, json_schema_extra={"least": least, "most": most})


class Finance(BaseModel):
    """What money costs and how long things last."""

    model_config = STRICT

    wacc_per_year: Quantity = amount("what capital costs a year, as a share", 0, 0.5)
    server_life_years: Quantity = amount("years that devices, servers and network serve", 1, 20)
    rack_life_years: Quantity = amount("years that a rack serves", 1, 40)
    site_life_years: Quantity = amount("years that a hall serves", 1, 60)
    maintenance_share_per_year: Quantity = amount("maintenance a year, of what servers cost", 0, 0.5)


class SiteFacts(BaseModel):
    """The hall: its energy, what a watt of it costs, its grid."""

    model_config = STRICT

    egrid: str | None = Field(default=None, description="eGRID subregion that grid_kg_per_kwh comes from")
    pue: Quantity = amount("energy at the meter over that of IT", 1, 3)
    usd_per_kwh: Quantity = amount("price of energy at the meter", 0, 2)
    usd_per_w: Quantity = amount("what a watt of provisioned IT power costs to build", 0, 200)
    grid_kg_per_kwh: Quantity = amount("CO2e of the grid, location-based, mean of a year", 0, 2)
    market_kg_per_kwh: Quantity | None = maybe("CO2e by contracts: shown beside the location-based one", 0, 2)
    water_l_per_kwh: Quantity | None = maybe("water evaporated on site for a kWh of IT", 0, 20)
    building_kg_per_w: Quantity = amount("CO2e of the building for a provisioned watt", 0, 5)


class RackFacts(BaseModel):
    """A rack: what it feeds, what it holds."""

    model_config = STRICT

    rack_w: Quantity = amount("power that a rack can feed", 100, 2e6)
    places: Quantity = amount("servers that a rack has room for", 1, 200)
    rack_usd: Quantity = amount("price of a rack with its bars and switches of power", 0, 1e6)
    rack_kg: Quantity = amount("CO2e embodied in a rack", 0, 1e5)


class DeviceFacts(BaseModel):
    """What is asked of any device: a server of it, its power, its failures."""

    model_config = STRICT

    devices_per_server: Quantity = amount("devices of a server", 1, 1024)
    device_busy_w: Quantity = amount("a device's power at full load", 0, 1e5)
    device_idle_share: Quantity = amount("a device's power at no load, of that at full load", 0, 1)
    server_busy_w: Quantity = amount("the server's power without its devices, at full load", 0, 1e6)
    server_idle_share: Quantity = amount("the same at no load, of that at full load", 0, 1)
    provisioned_over_busy: Quantity = amount("power set aside over power drawn at full load", 0.2, 5)
    server_usd: Quantity = amount("price of a server without its devices", 0, 1e7)
    server_kg: Quantity = amount("CO2e embodied in a server without its devices", 0, 1e6)
    network_w_per_device: Quantity = amount("switches and storage, a device's share of their power", 0, 1e4)
    network_usd_per_device: Quantity = amount("a device's share of what the network costs", 0, 1e6)
    failures_per_year: Quantity = amount("failures that take a device out, a device and year", 0, 100)
    repair_days: Quantity = amount("days until a failed device serves again", 0, 365)


class BoughtDevice(DeviceFacts):
    """A device of a vendor's: it costs its price, whatever it costs to make."""

    kind: Literal["bought"]
    price_usd: Quantity = amount("price of a device", 0, 1e6)
    device_kg: Quantity = amount("CO2e embodied in a device", 0, 1e5)


class OwnDevice(DeviceFacts):
    """A device of one's own: cost to make, a partner's margin on it, its share of the design."""

    kind: Literal["own"]
    chip: str | None = Field(default=None, max_length=4096, description="chip that its silicon is taken from")
    die_mm2: Quantity = amount("compute silicon of a device", 1, 1e5)
    dies: Quantity = amount("equal dies that this silicon is cut in", 1, 64)
    wafer_usd: Quantity = amount("price of a processed 300 mm wafer", 100, 1e5)
    defects_per_cm2: Quantity = amount("killing defects", 0, 10)
    yield_alpha: Quantity = amount("clustering of defects", 0.1, 100)
    package_test_usd: Quantity = amount("package, interposer, assembly and test", 0, 1e5)
    board_usd: Quantity = amount("card: board, regulators, cooling", 0, 1e5)
    memory_gb: Quantity = amount("memory of a device", 0, 1e4)
    memory_usd_per_gb: Quantity = amount("price of memory", 0, 200)
    partner_margin: Quantity = amount("what a design partner charges, over die and package", 1, 10)
    nre_usd: Quantity = amount("design, first tape-out included, IP and masks apart", 0, 1e11)
    mask_usd: Quantity = amount("a set of masks", 0, 1e9)
    ip_usd: Quantity = amount("licences of IP", 0, 1e9)
    respins: Quantity = amount("sets of masks beyond the first", 0, 10)
    software_usd_per_year: Quantity = amount("people who write its software", 0, 1e10)
    programme_years: Quantity = amount("years that design is written off over", 1, 20)
    volume_share: Quantity = amount("share of the programme that this fleet pays for", 0, 1)
    die_kg_per_cm2: Quantity = amount("CO2e of a processed cm2 of wafer, before yield", 0, 20)
    memory_kg_per_gb: Quantity = amount("CO2e embodied in memory", 0, 20)
    package_kg: Quantity = amount("CO2e of package, board and heat sink", 0, 1e4)


class WorkOnDevice(BaseModel):
    """How a device does a kind of work: from the scenario, or from a report of the tool's."""

    model_config = STRICT

    report: dict[str, Any] | None = Field(
        default=None, description="report that rate and joules are read from"
    )
    per_s: Quantity = amount("units of work a second of a device, loaded as its SLO allows", 1e-12, 1e15)
    joules: Quantity | None = maybe("device's joules a unit at that load, idle power included", 1e-15, 1e12)
    production_gain: Quantity | None = maybe("rate in production over the rate measured by replay", 0.1, 10)


class FleetWork(BaseModel):
    """A kind of work: how much of it, when in the day, and which devices can do it."""

    model_config = STRICT

    unit: str = Field(min_length=1, max_length=40, description="what is counted: requests, tokens, samples")
    slo: str = Field(
        default="", max_length=200, description="what was promised, as rates were measured under it"
    )
    mean_per_s: Quantity = amount("units a second, mean of a day", 0, 1e18)
    peak_over_mean: Quantity = amount("the peak hour over the mean of a day", 1, 24)
    shape_24h: tuple[float, ...] | None = Field(
        default=None, description="hours of a day, from 0 h, in any unit"
    )
    reserve_share: Quantity = amount("rate held ready beyond the peak hour", 0, 10)
    on: dict[Name, WorkOnDevice] = Field(min_length=1, max_length=MOST_NAMES)


class Anchor(BaseModel):
    """A published ratio of two devices on a kind of work, that samples have to agree with."""

    model_config = STRICT

    measure: Literal["perf_per_tco", "perf_per_w"]
    of: Name
    beside: Name
    work: Name
    value: float = Field(gt=0, le=1e6)
    low: float = Field(gt=0, le=1e6)
    high: float = Field(gt=0, le=1e6)
    source: str = Field(min_length=1, max_length=600)
    status: Status

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value, {self.value:g}, is not from low, {self.low:g}, to high, {self.high:g}")
        return self


class ProgrammeFacts(BaseModel):
    """A programme for an own chip: from its start to the end of buying, and what the rest of the world does.

    `compared_at` says which bought device the scenario describes: that which is sold when the chip is planned
    to be ready, so that what makes it late costs; or that which is sold when it is, as published ratios of
    chips in service are.
    """

    model_config = STRICT

    compared_at: Literal["plan", "production"] = "plan"

    design_weeks: Quantity = amount("from the start to tape-out", 1, 520)
    queue_weeks: Quantity = amount("until a foundry begins", 0, 260)
    foundry_weeks: Quantity = amount("wafers in the foundry", 1, 104)
    package_test_weeks: Quantity = amount("assembly, package and test", 1, 104)
    bring_up_weeks: Quantity = amount("from first chips to models in production", 0, 260)
    respin_weeks: Quantity = amount("redesign before each further set of masks", 0, 104)
    late_years: Quantity = amount("later than planned for other reasons", 0, 10)
    production_years: Quantity = amount("for how long the chip is bought", 0.25, 15)
    failure_share: Quantity = amount("chance that the chip is never put to work", 0, 1)
    gpu_usd_gain_per_year: Quantity = amount("a bought device's work for a dollar grows a year by", -0.5, 2)
    gpu_w_gain_per_year: Quantity = amount("a bought device's work for a watt grows a year by", -0.5, 2)
    supply_slip_weeks: Quantity = amount("a supplier's slip when production begins", 0, 260)
    second_source_share: Quantity = amount("share of supply from a second foundry", 0, 1)
    second_source_nre_share: Quantity = amount("what a second foundry costs, of design and masks", 0, 2)


class Purchases(BaseModel):
    """Energy bought against what is drawn: a mix that is said, or one sized to cover so much by the hour."""

    model_config = STRICT

    grid: str = Field(min_length=1, max_length=4096, description="a grid that ships, or a CSV file of hours")
    holes: Literal["refuse", "mean"] = "refuse"
    utc_offset_h: int = Field(ge=-12, le=14, description="local time less UTC")
    energy_share: Quantity = amount("energy bought over energy drawn, in a year", 0, 10)
    wind_share: Quantity = amount("wind's share of the energy bought; the rest is sun", 0, 1)
    battery_hours: Quantity = amount("battery, in hours of the mean load", 0, 1000)
    target_share: Quantity | None = maybe("share of the load to cover by the hour; sizes the mix", 0, 1)
    wind_usd_per_mwh: Quantity = amount("price of wind", 0, 1000)
    sun_usd_per_mwh: Quantity = amount("price of sun", 0, 1000)
    battery_usd_per_kwh: Quantity = amount("price of a battery", 0, 5000)
    battery_life_years: Quantity = amount("years that a battery serves", 1, 40)


class DeviceCount(BaseModel):
    """What stands under the name of a device in tables of a plan."""

    model_config = STRICT

    devices: Quantity = amount("devices", 0, 1e9)


class PlanFacts(BaseModel):
    """Years to plan for, and their limits; what is left out has no limit."""

    model_config = STRICT

    years: int = Field(ge=1, le=12)
    growth_per_year: Quantity = amount("growth of all work a year, as a share", -0.9, 10)
    power_mw: Quantity | None = maybe("IT power that may be set aside", 0, 1e6)
    capital_musd_per_year: Quantity | None = maybe("capital for devices, servers, network and racks", 0, 1e7)
    wafers_per_year: Quantity | None = maybe("wafers for own devices", 0, 1e8)
    supply_per_year: dict[Name, Quantity] = Field(
        default_factory=dict, description="devices a year, by device"
    )
    installed: dict[Name, Quantity] = Field(default_factory=dict, description="devices there, of all ages")


class Scenario(BaseModel):
    """All of it. `option` says for each way of equipping the fleet which device does which work."""

    model_config = STRICT

    name: str = Field(min_length=1, max_length=100)
    text: str = Field(default="", max_length=2000)
    currency_year: int = Field(ge=2000, le=2100)
    finance: Finance
    site: SiteFacts
    rack: RackFacts
    device: dict[Name, Annotated[BoughtDevice | OwnDevice, Field(discriminator="kind")]] = Field(
        min_length=1, max_length=MOST_NAMES
    )
    work: dict[Name, FleetWork] = Field(min_length=1, max_length=MOST_NAMES)
    option: dict[Name, dict[Name, Name]] = Field(min_length=1, max_length=MOST_NAMES)
    baseline: Name
    purchases: Purchases | None = None
    published: tuple[Anchor, ...] = ()
    programme: ProgrammeFacts | None = None
    plan: PlanFacts | None = None

    @cached_property
    def quantities(self) -> Mapping[str, Quantity]:
        """Return every number of the scenario by its dotted key."""
        return dict(_quantities(self, ""))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other fields, whose numbers are its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("quantities", None)  # or those that were gathered before would go along
        return copied

    @property
    def varied(self) -> Mapping[str, Quantity]:
        """Return the numbers that samples vary: those with a band, but for what purchases cost.

        A year by the hour is one answer, at central values.
        """
        return {k: q for k, q in self.quantities.items() if q.varies and not k.startswith("purchases.")}


def _quantities(value: Any, prefix: str) -> Iterator[tuple[str, Quantity]]:
    """Yield the quantities below a value, by dotted key."""
    if isinstance(value, Quantity):
        yield prefix.removesuffix("."), value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _quantities(getattr(value, name), f"{prefix}{name}.")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _quantities(item, f"{prefix}{name}.")


__all__ = [
    "Anchor", "BoughtDevice", "DeviceCount", "DeviceFacts", "Finance", "FleetWork", "OwnDevice", "PlanFacts",
    "ProgrammeFacts", "Purchases", "Quantity", "RackFacts", "Scenario", "Shape", "SiteFacts", "WorkOnDevice",
]  # fmt: skip
