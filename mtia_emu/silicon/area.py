"""Die area of a chip, from its parameters: mm2 by component."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..machine.chip import Chip
from ..machine.drams import load_dram, load_technology
from ..machine.memory_choice import IDEAL
from ..sums import add_up
from ..types import dtype
from .facts import REFERENCE_NM, AreaFacts, Silicon, load_silicon

MIB = 1 << 20
STAND_IN = "lpddr5"  # whose pads and price an ideal memory has


@dataclass(frozen=True)
class Area:
    """Areas in mm2; the fields sum to the whole die, or to all compute dies of a package that has several."""

    sram: float  # shared SRAM
    local: float  # local memories and accumulators
    array: float  # multipliers and adders of the matrix units
    simd: float  # lanes of the SIMD engines
    pe_rest: float  # the rest of the PEs: cores, DMA, layout, command processors, white space
    noc: float  # network on chip
    dram: float  # DRAM PHYs and controllers
    host: float  # host link, control, pads

    @property
    def total_mm2(self) -> float:
        """Return the area of the die."""
        return float(add_up(getattr(self, f.name) for f in fields(self)))


def area(chip: Chip, silicon: Silicon | None = None) -> Area:
    """Return the area of a chip; raise `UserError` for a node that no facts are known of.

    Ranges are taken at the case of `silicon`, mid by default; dies beside the compute dies are not in it.
    Logic shrinks with transistor density, SRAM with its bit cell, DRAM PHYs not at all.
    """
    facts = silicon or load_silicon()
    here, there, a = facts.at(chip.node_nm), facts.at(REFERENCE_NM), facts.area
    logic = there.transistors_m_per_mm2 / here.transistors_m_per_mm2
    sram = a.sram_mm2_per_mb * here.sram_bit_um2 / there.sram_bit_um2 / MIB
    matrix, simd = chip.pe.matrix, chip.pe.simd
    lanes = chip.pes * matrix.rows * matrix.cols * matrix.arrays
    links = chip.grid.rows * chip.noc.row_bytes_per_cycle + chip.grid.cols * chip.noc.col_bytes_per_cycle
    return Area(
        sram=chip.sram.bytes * sram,
        local=chip.pes * (chip.pe.local.bytes + chip.pe.reduce.bytes) * sram,
        array=lanes * _lane_mm2(matrix.rates, a) * logic,
        simd=chip.pes * simd.fp32_macs_per_cycle * _mac_mm2("fp32", a) * logic,
        pe_rest=chip.pes * a.pe_rest_mm2 * logic,
        noc=links * facts.pick(a.noc_mm2_per_byte_per_cycle) * logic,
        dram=_dram_mm2(chip, facts),
        host=facts.pick(a.host_mm2) * logic,
    )


def _dram_mm2(chip: Chip, facts: Silicon) -> float:
    """Return the area of PHYs and controllers: so much a package, more where a channel outruns the device.

    Slower pins take as much room. An ideal memory has the pads that LPDDR5 has for its bandwidth.
    """
    dram, ideal = chip.dram, chip.dram.device == IDEAL
    name = STAND_IN if ideal else dram.device
    faster = dram.channel_bytes_per_s / load_dram(name).bytes_per_s
    packages = (
        dram.channels / load_technology(name).package_channels * (faster if ideal else max(1.0, faster))
    )
    return packages * facts.of_memory(name, "package_phy_mm2")


def _lane_mm2(rates: dict[str, float], facts: AreaFacts) -> float:
    """Return the area of an 8-bit lane: that of the dtype that needs most multipliers for its rate."""
    return max(rate * _mac_mm2(name, facts) for name, rate in rates.items())


def _mac_mm2(name: str, facts: AreaFacts) -> float:
    """Return the area of one multiply-add unit at 7 nm."""
    kind = dtype(name)
    share = 1.0
    if not kind.is_float or kind.bits <= 8:
        share = facts.int8_mac_share * (kind.bits / 8) ** 2  # a multiplier grows with the square of its width
    elif kind.bits >= 32:
        share = facts.float32_mac_share * (kind.bits / 32) ** 2
    return facts.float16_mac_um2 * share * 1e-6
