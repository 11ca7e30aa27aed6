"""What a chip's events and its mere being on cost: prices at a reference voltage, and the power that flows.

Switching energy goes with the square of the supply (C V^2). Prices hold at `price_voltage_v`; arithmetic,
wires, network and control run at `voltage_v`, the arrays of local memory at `memory_voltage_v`, both at the
nominal clock (see `power.py`). DRAM devices have a supply of their own and do not scale.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, Field

from .memory import STRICT, unit

MIB = 1 << 20
# An access takes 1 + WIRE sqrt(size / 1 MiB): decoders and sense amplifiers, and wires as long as the memory
# is wide. From 8 KB and 1 MB at 7 nm, 7.5 and 14 pJ for 64 bits (Jouppi et al., ISCA 2021, table 2,
# recalled). Of the same table 32 KB is 8.5 pJ, here 8.1; TPU v4i's 4 MB and 128 MB (accelforge) are 2.1 and
# 16 times 8 KB, here 2.8 and 12. CACTI at 22 nm grows as fast between large memories and faster between
# small ones.
WIRE = 1.045

LEAKAGE_AT_C = 70.0  # the junction temperature at which `leakage_w_per_mm2` holds
# Subthreshold current goes as T^2 exp(-q Vth / n k T): with Vth = 0.3 V and n = 1.1 it grows 8.5 times from
# 25 to 85 C, a doubling every 19 degrees. An estimate: no measured slope for these processes was found.
LEAKAGE_DOUBLING_C = 20.0
LEAKAGE_KNOWN_C = (25.0, 85.0)  # between which that was reckoned


class Energy(BaseModel):
    """The price of each event, and the power that flows whatever happens."""

    model_config = STRICT

    voltage_v: float = Field(
        gt=0,
        le=10,
        description="supply of logic, wires and clock tree at the nominal clock",
        json_schema_extra=unit("V"),
    )
    memory_voltage_v: float = Field(
        gt=0,
        le=10,
        description="supply of local memory's arrays at the nominal clock",
        json_schema_extra=unit("V"),
    )
    price_voltage_v: float = Field(
        gt=0,
        le=10,
        description="supply at which the prices, the leakage and the clock's capacitance hold",
        json_schema_extra=unit("V"),
    )
    temperature_c: float = Field(
        ge=-55, le=150, description="junction temperature; leakage depends on it", json_schema_extra=unit("C")
    )
    mac_pj: dict[str, float] = Field(
        description="one multiply-add of the dtype, accumulation included", json_schema_extra=unit("pJ")
    )
    zero_mac_pj: dict[str, float] = Field(
        description="one multiply-add of the dtype with a zero operand: its multiplier does not switch",
        json_schema_extra=unit("pJ"),
    )
    simd_pj: float = Field(ge=0, description="one lane pass of the SIMD engine", json_schema_extra=unit("pJ"))
    scalar_pj: float = Field(
        ge=0, description="one element of an op that runs on the core", json_schema_extra=unit("pJ")
    )
    local_read_pj_per_byte: float = Field(
        ge=0, description="local memory read", json_schema_extra=unit("pJ/B")
    )
    local_write_pj_per_byte: float = Field(
        ge=0, description="local memory write", json_schema_extra=unit("pJ/B")
    )
    sram_read_pj_per_byte: float = Field(
        ge=0,
        description="shared SRAM read: array, and wires to the network's edge",
        json_schema_extra=unit("pJ/B"),
    )
    sram_write_pj_per_byte: float = Field(
        ge=0,
        description="shared SRAM write: array, and wires from the network's edge",
        json_schema_extra=unit("pJ/B"),
    )
    dram_read_pj_per_byte: float = Field(
        ge=0, description="DRAM read: device, PHY and controller", json_schema_extra=unit("pJ/B")
    )
    dram_write_pj_per_byte: float = Field(
        ge=0, description="DRAM write: device, PHY and controller", json_schema_extra=unit("pJ/B")
    )
    local_price_bytes: int = Field(
        ge=0,
        le=1 << 44,
        description="capacity of local memory at which its prices hold; a larger one costs more an access",
        json_schema_extra=unit("B"),
    )
    sram_price_bytes: int = Field(
        ge=0,
        le=1 << 44,
        description="capacity of the shared SRAM at which its prices hold",
        json_schema_extra=unit("B"),
    )
    dram_activate_pj: float = Field(
        ge=0,
        description="opening a row of a DRAM bank, beyond those that a long run of bytes opens: these are in "
        "the price of a byte",
        json_schema_extra=unit("pJ"),
    )
    noc_pj_per_byte_hop: float = Field(
        ge=0, description="one byte over one hop", json_schema_extra=unit("pJ/B")
    )
    command_pj: float = Field(ge=0, description="issue of one command", json_schema_extra=unit("pJ"))
    leakage_w_per_mm2: float = Field(
        ge=0, description="leakage of the modelled area at 70 C", json_schema_extra=unit("W/mm2")
    )
    clock_pf_per_mm2: float = Field(
        ge=0,
        description="capacitance of the modelled area that switches every cycle, whatever runs: the clock "
        "tree and control that no event price holds (inferred)",
        json_schema_extra=unit("pF/mm2"),
    )
    link_w: float = Field(
        ge=0, description="links to host and other chips, held up", json_schema_extra=unit("W")
    )
    dram_idle_w: float = Field(
        ge=0, description="DRAM devices at rest: standby and refresh", json_schema_extra=unit("W")
    )

    def switching(self, volts: float) -> float:
        """Return what a price is multiplied by at a supply: energy goes with the voltage's square."""
        return (volts / self.price_voltage_v) ** 2

    def leakage_w_of(self, mm2: float, volts: float) -> float:
        """Return the leakage of so much of the die at a supply, in watts.

        The current is taken to grow with the supply, so power with its square (an estimate, good for small
        changes), and to double every `LEAKAGE_DOUBLING_C`.
        """
        heat: float = 2.0 ** ((self.temperature_c - LEAKAGE_AT_C) / LEAKAGE_DOUBLING_C)
        return self.leakage_w_per_mm2 * mm2 * self.switching(volts) * heat

    def clock_w_of(self, mm2: float, volts: float, clock_hz: float) -> float:
        """Return the power of the clock tree and of unpriced control, C V^2 f over the area, in watts."""
        return self.clock_pf_per_mm2 * 1e-12 * mm2 * volts**2 * clock_hz


def access_scale(bytes_: float, price_bytes: float) -> float:
    """Return what an access to a memory costs over that to one of the size at which its price holds."""
    return (1 + WIRE * math.sqrt(bytes_ / MIB)) / (1 + WIRE * math.sqrt(price_bytes / MIB))
