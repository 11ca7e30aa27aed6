"""What a layer on our chip can be bound by, by name; apart from reports, which need no command set."""

from __future__ import annotations

from ..program.commands import RESOURCES
from .report import FILL, LATENCY, LAUNCH

BOUNDS = {  # the units that commands take, and what they share
    **RESOURCES,
    "issue": "a core, issuing commands",
    "local": "the port of a PE's local memory",
    "noc": "a link of the network on chip",
    "sram": "the bandwidth of the shared SRAM",
    "dram": "the bandwidth of the DRAM",
    FILL: "idle before the first use and after the last one",
    LATENCY: "idle between uses, waiting for other commands",
    LAUNCH: "starting the layer",
}
