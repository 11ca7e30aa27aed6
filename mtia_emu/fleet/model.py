"""What a scenario comes to, for one case or many samples at once: devices, watts, dollars a year, CO2e."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from . import carbon, demand, money, site
from .quantity import Array, Numbers, total
from .scenario import OwnDevice, Scenario
from .yearly import (
    HOURS_PER_YEAR,
    FleetPool,
    FleetResult,
    PoolSize,
    WorkShare,
    YearlyCarbon,
    YearlyCosts,
)  # fmt: skip

DAYS_PER_YEAR = HOURS_PER_YEAR / 24
WAFER_MM = 300.0
MM2_PER_CM2 = 100.0
WH_PER_KWH = 1000.0
LEAST_GOOD = 1e-3  # share of good dies: below, nobody makes the chip


@dataclass(frozen=True)
class Values:
    """The numbers of a scenario by dotted key: samples, [n], where there are some, else central values."""

    scenario: Scenario
    samples: Mapping[str, Numbers]

    def __call__(self, key: str) -> Numbers:
        """Return the number under a key."""
        return self.samples[key] if key in self.samples else self.scenario.quantities[key].value

    def has(self, key: str) -> bool:
        """Return whether the scenario says anything under a key."""
        return key in self.samples or key in self.scenario.quantities


def evaluate(scenario: Scenario, option: str, samples: Mapping[str, Numbers] | None = None) -> FleetResult:
    """Return what an option comes to, at central values or, in arrays [n], at samples of numbers by key.

    Raises `UserError` for a rack that feeds no server and for a die that no wafer holds.
    """
    at, serves = Values(scenario, samples or {}), scenario.option[option]
    pools = [
        _pool(at, name, [w for w, d in serves.items() if d == name])
        for name in dict.fromkeys(serves.values())
    ]
    pue = at("site.pue")
    meter = site.energy(total(p.drawn_w for p in pools), pue, HOURS_PER_YEAR)
    return FleetResult(option, tuple(pools), meter, pue)


def _pool(at: Values, name: str, works: list[str]) -> FleetPool:
    key = f"device.{name}."
    shares = tuple(_share(at, name, work) for work in works)
    serving = total(s.devices for s in shares)
    spares = demand.spares(serving, at(key + "failures_per_year"), at(key + "repair_days") / DAYS_PER_YEAR)
    servers = demand.servers_needed(serving + spares, at(key + "devices_per_server"))
    size = PoolSize(serving, spares, servers, demand.racks_needed(servers, _per_rack(at, name)))
    return pool_of(at, name, shares, size)


def _share(at: Values, name: str, work: str) -> WorkShare:
    key = f"work.{work}."
    per_s, mean = rate(at, work, name), at(key + "mean_per_s")
    devices = demand.devices_needed(mean, at(key + "peak_over_mean"), at(key + "reserve_share"), per_s)
    load = demand.load_share(mean, np.maximum(devices, 1), per_s)
    return WorkShare(work, devices, load, per_s, mean)


def rate(at: Values, work: str, name: str, *, replayed: bool = False) -> Numbers:
    """Return the rate of a device, as in production, or as replay of recorded load measures it."""
    key = f"work.{work}.on.{name}."
    gain = at(key + "production_gain") if at.has(key + "production_gain") and not replayed else 1.0
    return at(key + "per_s") * gain


def _per_rack(at: Values, name: str) -> Numbers:
    key = f"device.{name}."
    server = site.provisioned_w(busy_server_w(at, name), at(key + "provisioned_over_busy"))
    per_rack = demand.servers_per_rack(at("rack.rack_w"), server, at("rack.places"))
    if np.any(per_rack < 1):
        raise UserError(
            f"a rack of {np.min(at('rack.rack_w')):,.0f} W feeds no server of {name} of "
            f"{np.max(server):,.0f} W: raise rack.rack_w, or lower device.{name}.devices_per_server"
        )
    return per_rack


def busy_server_w(at: Values, name: str) -> Numbers:
    """Return the power of a server with its devices at full load."""
    key = f"device.{name}."
    return at(key + "devices_per_server") * at(key + "device_busy_w") + at(key + "server_busy_w")


def pool_of(at: Values, name: str, shares: tuple[WorkShare, ...], size: PoolSize) -> FleetPool:
    """Return what so many devices, servers and racks come to."""
    key = f"device.{name}."
    drawn = _drawn(at, name, shares, size)
    busy = size.devices * at(key + "device_busy_w") + size.servers * at(key + "server_busy_w")
    provisioned = site.provisioned_w(busy, at(key + "provisioned_over_busy"))
    provisioned = provisioned + size.devices * at(key + "network_w_per_device")
    usd, kg = device_usd(at, name), device_kg(at, name)
    costs, capital = _costs(at, name, size, (drawn, provisioned, usd))
    litres = None
    if at.has("site.water_l_per_kwh"):
        litres = site.water(drawn * HOURS_PER_YEAR, at("site.water_l_per_kwh") / WH_PER_KWH)
    return FleetPool(
        name, shares, size, drawn, provisioned, capital, usd, costs,
        _carbon(at, name, size, (drawn, provisioned, kg)), litres,
    )  # fmt: skip


def _drawn(at: Values, name: str, shares: tuple[WorkShare, ...], size: PoolSize) -> Numbers:
    """Return the mean power of IT: devices as loaded, spares idle, servers at the mean load, network."""
    key = f"device.{name}."
    busy, idle = at(key + "device_busy_w"), at(key + "device_idle_share")
    drawn = size.spares * site.drawn_w(busy, idle, 0.0) + size.devices * at(key + "network_w_per_device")
    loaded: Numbers = 0.0
    for share in shares:
        joules = f"work.{share.work}.on.{name}.joules"
        own = at(joules) * share.per_s if at.has(joules) else busy
        drawn = drawn + share.devices * site.drawn_w(own, idle, share.load)
        loaded = loaded + share.devices * share.load
    load = loaded / np.maximum(size.devices, 1e-300)
    server = site.drawn_w(at(key + "server_busy_w"), at(key + "server_idle_share"), load)
    return drawn + size.servers * server


def good_dies(at: Values, name: str) -> tuple[Numbers, Numbers]:
    """Return the area of each die of an own device, in mm2, and the share of them that is good.

    One yield, for dollars and for CO2e.
    """
    key = f"device.{name}."
    each = at(key + "die_mm2") / at(key + "dies")
    good = money.good_share(each / MM2_PER_CM2 * at(key + "defects_per_cm2"), at(key + "yield_alpha"))
    return each, good


def device_usd(at: Values, name: str) -> Numbers:
    """Return what one device costs its owner: its price where it is bought, else what it costs to make."""
    key = f"device.{name}."
    if not isinstance(at.scenario.device[name], OwnDevice):
        return at(key + "price_usd")
    each, good = good_dies(at, name)
    per_wafer = money.dies_per_wafer(each, WAFER_MM)
    if np.any(per_wafer < 1) or np.any(good < LEAST_GOOD):
        raise UserError(
            f"device.{name}: no good die of {np.max(each):,.0f} mm2 comes from a wafer of {WAFER_MM:.0f} mm "
            f"({np.min(good):.2g} of dies are good); lower die_mm2 or defects_per_cm2, or raise dies"
        )
    dies = at(key + "dies") * money.good_die_usd(at(key + "wafer_usd"), per_wafer, good)
    memory = at(key + "memory_gb") * at(key + "memory_usd_per_gb")
    return money.make_usd(
        dies, at(key + "package_test_usd"), at(key + "partner_margin"), memory, at(key + "board_usd")
    )


def device_kg(at: Values, name: str) -> Numbers:
    """Return the CO2e embodied in one device."""
    key = f"device.{name}."
    if not isinstance(at.scenario.device[name], OwnDevice):
        return at(key + "device_kg")
    each, good = good_dies(at, name)
    dies = at(key + "dies") * carbon.die_kg(each / MM2_PER_CM2, at(key + "die_kg_per_cm2"), good)
    return carbon.own_device_kg(
        dies, at(key + "memory_gb"), at(key + "memory_kg_per_gb"), at(key + "package_kg")
    )


def _costs(
    at: Values, name: str, size: PoolSize, known: tuple[Numbers, Numbers, Numbers]
) -> tuple[YearlyCosts, Numbers]:
    """Return dollars a year and dollars at once; `known` are watts drawn, watts provisioned, a device's $."""
    drawn, provisioned, usd = known
    key, wacc = f"device.{name}.", at("finance.wacc_per_year")
    life = money.annuity(wacc, at("finance.server_life_years"))
    devices, servers = size.devices * usd, size.servers * at(key + "server_usd")
    network, racks = size.devices * at(key + "network_usd_per_device"), size.racks * at("rack.rack_usd")
    meter = site.energy(drawn, at("site.pue"), HOURS_PER_YEAR)
    upkeep = at("finance.maintenance_share_per_year")
    costs = YearlyCosts(
        devices_usd=devices * life,
        servers_usd=servers * life,
        network_usd=network * life,
        racks_usd=racks * money.annuity(wacc, at("finance.rack_life_years")),
        site_usd=provisioned * at("site.usd_per_w") * money.annuity(wacc, at("finance.site_life_years")),
        maintenance_usd=upkeep * (devices + servers + network),
        energy_usd=money.energy_usd(meter, at("site.usd_per_kwh") / WH_PER_KWH),
        programme_usd=programme_usd_per_year(at, name) * (size.devices > 0),
    )
    return costs, devices + servers + network + racks


def programme_usd_per_year(at: Values, name: str) -> Numbers:
    """Return what the design of an own device and its software cost a year; 0 for a bought one."""
    if not isinstance(at.scenario.device[name], OwnDevice):
        return 0.0
    key = f"device.{name}."
    design = money.design_usd(*(at(key + part) for part in ("nre_usd", "ip_usd", "mask_usd", "respins")))
    yearly = design * money.annuity(at("finance.wacc_per_year"), at(key + "programme_years"))
    return at(key + "volume_share") * (yearly + at(key + "software_usd_per_year"))


def _carbon(at: Values, name: str, size: PoolSize, known: tuple[Numbers, Numbers, Numbers]) -> YearlyCarbon:
    """Return CO2e a year; `known` are watts drawn, watts provisioned and a device's kilograms."""
    drawn, provisioned, kg = known
    life = at("finance.server_life_years")
    meter = site.energy(drawn, at("site.pue"), HOURS_PER_YEAR)
    market = None
    if at.has("site.market_kg_per_kwh"):
        market = carbon.operational_kg(meter, at("site.market_kg_per_kwh") / WH_PER_KWH)
    return YearlyCarbon(
        location_kg=carbon.operational_kg(meter, at("site.grid_kg_per_kwh") / WH_PER_KWH),
        market_kg=market,
        devices_kg=size.devices * kg / life,
        servers_kg=size.servers * at(f"device.{name}.server_kg") / life,
        racks_kg=size.racks * at("rack.rack_kg") / at("finance.rack_life_years"),
        building_kg=provisioned * at("site.building_kg_per_w") / at("finance.site_life_years"),
    )


def ratio(at: Values, measure: str, work: str, of: str, beside: str) -> Numbers:
    """Return one device's work for a dollar or a watt over another's, as papers publish it.

    Rates are those of replay; dollars a device's share of everything but the programme, at the work's mean
    load; watts those of a busy server with its devices.
    """
    values = [_per_device(at, measure, work, name) for name in (of, beside)]
    return values[0] / values[1]


def _per_device(at: Values, measure: str, work: str, name: str) -> Numbers:
    per_s, share = rate(at, work, name, replayed=True), 1 / at(f"device.{name}.devices_per_server")
    if measure == "perf_per_w":
        return per_s / (busy_server_w(at, name) * share)
    return per_s / one_device(at, work, name, per_s).costs.recurring_usd


def one_device(at: Values, work: str, name: str, per_s: Numbers) -> FleetPool:
    """Return a device with its share of server, network and rack, at the mean load of a kind of work."""
    share = 1 / at(f"device.{name}.devices_per_server")
    load = 1 / (at(f"work.{work}.peak_over_mean") * (1 + at(f"work.{work}.reserve_share")))
    one = WorkShare(work, 1.0, load, per_s, load * per_s)
    return pool_of(at, name, (one,), PoolSize(1.0, 0.0, share, share / _per_rack(at, name)))


def as_array(value: Numbers, count: int) -> Array:
    """Return a number of samples as an array [count], also where it did not vary."""
    return np.broadcast_to(np.asarray(value, dtype=float), (count,))
