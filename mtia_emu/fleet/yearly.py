"""What an option comes to in a year: devices and their power, dollars by part, CO2e by method and part."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .quantity import Numbers, total

HOURS_PER_YEAR = 8766.0  # 365.25 days
SECONDS_PER_YEAR = HOURS_PER_YEAR * 3600


@dataclass(frozen=True)
class YearlyCosts:
    """Dollars a year by part; capital as annuities over the life of what it bought."""

    devices_usd: Numbers
    servers_usd: Numbers
    network_usd: Numbers
    racks_usd: Numbers
    site_usd: Numbers
    maintenance_usd: Numbers
    energy_usd: Numbers
    programme_usd: Numbers  # of an own chip: design as an annuity, software as it is paid

    @property
    def total_usd(self) -> Numbers:
        """Return the sum of all parts."""
        return total(getattr(self, f.name) for f in fields(self))

    @property
    def recurring_usd(self) -> Numbers:
        """Return the sum without the programme: what one device more costs."""
        return self.total_usd - self.programme_usd


@dataclass(frozen=True)
class YearlyCarbon:
    """Kilograms of CO2e a year. Operation by two methods, side by side, never added; None: not known."""

    location_kg: Numbers
    market_kg: Numbers | None
    devices_kg: Numbers
    servers_kg: Numbers
    racks_kg: Numbers
    building_kg: Numbers

    @property
    def embodied_kg(self) -> Numbers:
        """Return what was emitted to make things, over the years that they last."""
        return self.devices_kg + self.servers_kg + self.racks_kg + self.building_kg

    @property
    def total_kg(self) -> Numbers:
        """Return operation, location-based, and what is embodied."""
        return self.location_kg + self.embodied_kg


@dataclass(frozen=True)
class WorkShare:
    """A kind of work on the devices that do it."""

    work: str
    devices: Numbers
    load: Numbers  # mean over a day
    per_s: Numbers  # of a device
    mean_per_s: Numbers


@dataclass(frozen=True)
class PoolSize:
    """How many of everything; fractions where one device's share is asked for."""

    serving: Numbers
    spares: Numbers
    servers: Numbers
    racks: Numbers

    @property
    def devices(self) -> Numbers:
        """Return the devices bought."""
        return self.serving + self.spares


@dataclass(frozen=True)
class FleetPool:
    """All devices of one kind in an option, and what they come to."""

    device: str
    works: tuple[WorkShare, ...]
    size: PoolSize
    drawn_w: Numbers  # of IT, mean of a day
    provisioned_w: Numbers
    capital_usd: Numbers  # devices, servers, network, racks: when bought
    device_usd: Numbers  # of one device
    costs: YearlyCosts
    carbon: YearlyCarbon
    water_l: Numbers | None


@dataclass(frozen=True)
class FleetResult:
    """An option: one pool for each device in it. Numbers are floats, or arrays [n] of samples."""

    option: str
    pools: tuple[FleetPool, ...]
    meter_wh: Numbers  # a year
    pue: Numbers

    def sum_of(self, name: str) -> Numbers:
        """Return the sum over pools of a field of theirs, dotted: "costs.energy_usd", "size.devices"."""
        return total(_field(pool, name) for pool in self.pools)

    @property
    def usd_per_year(self) -> Numbers:
        """Return dollars a year, all told."""
        return self.sum_of("costs.total_usd")

    @property
    def meter_w(self) -> Numbers:
        """Return the mean power at the meter."""
        return self.sum_of("drawn_w") * self.pue

    def usd_per_million(self, work: str) -> Numbers:
        """Return dollars for a million units of a kind of work: its pool's cost by its share of devices."""
        for pool in self.pools:
            for share in pool.works:
                if share.work == work:
                    part = share.devices / np.maximum(pool.size.serving, 1)
                    done = np.maximum(share.mean_per_s, 1e-300) * SECONDS_PER_YEAR
                    return pool.costs.total_usd * part / done * 1e6
        raise KeyError(work)


def _field(value: object, name: str) -> Numbers:
    for part in name.split("."):
        value = getattr(value, part)
    return value  # type: ignore[return-value]
