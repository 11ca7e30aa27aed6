"""Estimated areas and costs beside published dies, parts of dies and bills of material.

`python docs/generate.py docs/accuracy-silicon.md` writes the tables.
"""

from __future__ import annotations

from collections.abc import Callable

from markdown_table import table

from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.drams import dram_names, load_dram, load_technology
from mtia_emu.silicon import CASES, area, load_silicon
from mtia_emu.silicon.cost import Dies, bill

DIES = [  # chip, published mm2, source, what was fitted
    ("mtia-1", 373.0, "ISCA 2023, table I", "gave the rest of a PE"),
    ("mtia-2i", 421.0, "ISCA 2025, table 2", "nothing"),
    ("tpu-v4i", 400.0, "Jouppi et al., ISCA 2021: below 400 (recalled)", "gave SRAM and multipliers"),
    ("mtia-300", 803.84, "25.6 x 31.4 mm, its compute die", "nothing"),
]
MIB = 1 << 20
SITES = {"GA100 (A100)": 6, "Aldebaran (MI210)": 4}  # HBM sites of the die
L2_MIB = {"GA100 (A100)": 48, "Aldebaran (MI210)": 8}
READ_BYTES = {"GA100 (A100)": 5120, "Aldebaran (MI210)": 4096}  # a clock, out of L2
PARTS = [  # die, part, published mm2 (LLMCompass, from die photographs)
    ("GA100 (A100)", "L2", 119.31),
    ("GA100 (A100)", "network", 76.44),
    ("GA100 (A100)", "DRAM's PHY and control", 58.0 + 31.77),
    ("GA100 (A100)", "other", 40.0),
    ("Aldebaran (MI210)", "L2", 25.2),
    ("Aldebaran (MI210)", "network", 33.0),
    ("Aldebaran (MI210)", "DRAM's PHY and control", 83.26 + 40.83),
    ("Aldebaran (MI210)", "other", 4.0),
]
BILLS = [  # GPU, dies, memory, GB, stacks, published $, source
    ("H100 SXM", Dies(1, 814, 5), "hbm3", 80, 5, 3320, "Raymond James, 2023, through Barron's"),
    ("B200", Dies(2, 800, 5), "hbm3e", 192, 8, 6400, "siliconanalysts.com"),
]


def dies() -> str:
    """Return the estimate of each published die, from low to high."""
    rows = []
    for name, published, source, fitted in DIES:
        chip, facts = load_chip(name), load_silicon()
        low, mid, high = (area(chip, facts.in_case(case)).total_mm2 for case in CASES)
        rows.append(
            [name, f"{published:.0f}", f"{mid:.0f}", f"{low:.0f} to {high:.0f}",
             f"{mid / published - 1:+.0%}", fitted, source]
        )  # fmt: skip
    return table(["die", "published, mm2", "here", "range", "error", "fitted on it", "source"], rows)


def parts() -> str:
    """Return parts of two GPU dies by the rules for the same parts of a chip."""
    rows = []
    for die, part, published in PARTS:
        low, mid, high = (_part(die, part, case) for case in CASES)
        spread = f"{low:.0f} to {high:.0f}" if low < high else ""
        rows.append([die, part, f"{published:.0f}", f"{mid:.0f}", spread, f"{mid / published - 1:+.0%}"])
    return table(["die", "part", "published, mm2", "by the rule", "range", "error"], rows)


def _part(die: str, part: str, case: str) -> float:
    facts = load_silicon().in_case(next(x for x in CASES if x == case))
    a = facts.area
    return {
        "L2": L2_MIB[die] * a.sram_mm2_per_mb,
        "network": READ_BYTES[die] * facts.pick(a.noc_mm2_per_byte_per_cycle),
        "DRAM's PHY and control": SITES[die] * facts.of_memory("hbm2e", "package_phy_mm2"),
        "other": facts.pick(a.host_mm2),
    }[part]


def bills() -> str:
    """Return published bills of material beside the cost of the same parts here."""
    rows = []
    for name, kind, memory, gb, stacks, published, source in BILLS:
        low, mid, high = (
            bill([kind], memory, gb * 1e9, stacks, load_silicon().in_case(case)).total_usd for case in CASES
        )
        rows.append(
            [name, f"{published:,}", f"{mid:,.0f}", f"{low:,.0f} to {high:,.0f}",
             f"{mid / published - 1:+.0%}", source]
        )  # fmt: skip
    return table(["GPU", "published, $", "here", "range", "error", "source"], rows)


def memories() -> str:
    """Return what each memory brings to a package or stack."""
    rows = []
    for name in dram_names():
        t, one = load_technology(name), load_dram(name)
        rows.append(
            [f"`{name}`", t.package_channels, f"{t.package_channels * one.bytes_per_s / 1e9:.0f}",
             f"{t.package_bytes / 1e9:g}", f"{t.read_pj_per_byte:g}", f"{t.idle_w_per_gb * 1e3:g}",
             _range(t.package_phy_mm2), _range(t.usd_per_gb),
             "interposer" if t.interposer_mm2 else "board",
             f"a burst to {t.inline_ecc_data_bytes} B" if t.inline_ecc_data_bytes else "own pins"]
        )  # fmt: skip
    head = ["memory", "channels", "GB/s", "GB", "pJ/B", "idle mW/GB", "PHY mm2", "$/GB", "on the", "code"]
    return table(head, rows)


def _range(among: tuple[float, float, float]) -> str:
    low, mid, high = among
    return f"{mid:g} ({low:g} to {high:g})"


SECTIONS: dict[str, Callable[[], str]] = {f"silicon-{f.__name__}": f for f in (dies, parts, bills, memories)}
