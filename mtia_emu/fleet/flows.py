"""Where a fleet's power goes: from the meter to cooling, hosts, network, and by devices to the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..sums import add_up
from .model import Values, evaluate
from .quantity import mean
from .sampling import Samples
from .scenario import Scenario
from .yearly import FleetPool

METER, IT, COOLING = "meter", "IT", "cooling and losses"
HOSTS, NETWORK, IDLE = "hosts", "network", "idle and spares"
LEAST = 1e-9  # of the meter's power: what is less is no flow


@dataclass(frozen=True)
class PowerFlow:
    """Mean watts from one place to another."""

    source: str
    target: str
    watts: float


def power_flows(scenario: Scenario, option: str, samples: Samples) -> tuple[PowerFlow, ...]:
    """Return the power of an option, mean over samples; what flows into a place flows out of it.

    A device's power splits into what it draws idle and what its load adds, as the model has it: the latter
    goes to the work, the former and that of spares to none.
    """
    at, result = Values(scenario, samples), evaluate(scenario, option, samples)
    parts = [part for pool in result.pools for part in _parts(at, pool)]
    drawn = add_up(part.watts for part in parts if part.source == IT)
    meter = mean(result.meter_w)
    heads = [PowerFlow(METER, COOLING, meter - drawn), PowerFlow(METER, IT, drawn)]
    return tuple(flow for flow in (*heads, *_merged(parts)) if flow.watts > LEAST * meter)


def _parts(at: Values, pool: FleetPool) -> Iterator[PowerFlow]:
    """Yield a pool's flows; those out of IT add up to what it draws."""
    key = f"device.{pool.device}."
    busy, idle = at(key + "device_busy_w"), at(key + "device_idle_share")
    resting = pool.size.spares * busy * idle
    working = []
    for share in pool.works:
        joules = f"work.{share.work}.on.{pool.device}.joules"
        own = at(joules) * share.per_s if at.has(joules) else busy
        resting = resting + share.devices * own * idle
        working.append((share.work, mean(share.devices * own * (1 - idle) * share.load)))
    network = mean(pool.size.devices * at(key + "network_w_per_device"))
    devices = mean(resting) + add_up(watts for _, watts in working)
    yield PowerFlow(IT, pool.device, devices)
    yield PowerFlow(IT, HOSTS, mean(pool.drawn_w) - network - devices)
    yield PowerFlow(IT, NETWORK, network)
    for work, watts in working:
        yield PowerFlow(pool.device, work, watts)
    yield PowerFlow(pool.device, IDLE, mean(resting))


def _merged(flows: list[PowerFlow]) -> list[PowerFlow]:
    """Return flows with those between the same two places added up."""
    sums: dict[tuple[str, str], float] = {}
    for flow in flows:
        pair = (flow.source, flow.target)
        sums[pair] = sums.get(pair, 0.0) + flow.watts
    return [PowerFlow(*pair, watts) for pair, watts in sums.items()]
