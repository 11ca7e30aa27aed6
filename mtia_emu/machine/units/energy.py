"""What a chip's events and its mere being on cost: prices at a reference voltage, and the power that flows.

Switching energy goes with the square of the supply (C V^2). Prices hold at `price_voltage_v`; arithmetic,
wires, network and control run at `voltage_v`, the arrays of local memory at `memory_voltage_v`. DRAM devices
have a supply of their own and do not scale.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from .memory import STRICT, unit

LEAKAGE_AT_C = 70.0  # the junction temperature at which `leakage_w_per_mm2` holds
# Subthreshold current goes as T^2 exp(-q Vth / n k T): with Vth = 0.3 V and n = 1.1 it grows 8.5 times from
# 25 to 85 C, a doubling every 19 degrees. An estimate: no measured slope for these processes was found.
LEAKAGE_DOUBLING_C = 20.0


class Energy(BaseModel):
    """The price of each event, and the power that flows whatever happens."""

    model_config = STRICT

    voltage_v: float = Field(
        gt=0, le=10, description="supply of logic, wires and clock", json_schema_extra=unit("V")
    )
    memory_voltage_v: float = Field(
        gt=0, le=10, description="supply of local memory's arrays", json_schema_extra=unit("V")
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
    noc_pj_per_byte_hop: float = Field(
        ge=0, description="one byte over one hop", json_schema_extra=unit("pJ/B")
    )
    command_pj: float = Field(ge=0, description="issue of one command", json_schema_extra=unit("pJ"))
    leakage_w_per_mm2: float = Field(
        ge=0, description="leakage of the die at 70 C", json_schema_extra=unit("W/mm2")
    )
    clock_pf_per_mm2: float = Field(
        ge=0,
        description="capacitance of the die that switches every cycle, whatever runs: the clock tree and "
        "control that no event price holds (inferred)",
        json_schema_extra=unit("pF/mm2"),
    )
    link_w: float = Field(
        ge=0, description="links to host and other chips, held up", json_schema_extra=unit("W")
    )
    dram_idle_w: float = Field(
        ge=0, description="DRAM devices at rest: standby and refresh", json_schema_extra=unit("W")
    )

    @property
    def logic_scale(self) -> float:
        """Return what a price of logic is multiplied by at this supply."""
        return (self.voltage_v / self.price_voltage_v) ** 2

    @property
    def memory_scale(self) -> float:
        """Return what a price of local memory is multiplied by at this supply."""
        return (self.memory_voltage_v / self.price_voltage_v) ** 2

    def leakage_w(self, die_mm2: float) -> float:
        """Return the leakage of a die, in watts.

        The current is taken to grow with the supply, so power with its square (an estimate, good for small
        changes), and to double every `LEAKAGE_DOUBLING_C`.
        """
        heat: float = 2.0 ** ((self.temperature_c - LEAKAGE_AT_C) / LEAKAGE_DOUBLING_C)
        return self.leakage_w_per_mm2 * die_mm2 * self.logic_scale * heat

    def clock_w(self, die_mm2: float, clock_hz: float) -> float:
        """Return the power of the clock tree and of unpriced control, C V^2 f over the die, in watts."""
        return self.clock_pf_per_mm2 * 1e-12 * die_mm2 * self.voltage_v**2 * clock_hz
