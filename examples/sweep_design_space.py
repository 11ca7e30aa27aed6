"""Sweep a design space from Python, cell by cell as in a notebook; the rows go straight into a data frame."""

from __future__ import annotations

import pandas

import mtia_emu

# %% What to sweep: a mapping that says the same as a spec file
SPEC = {
    "chip": "mtia-2i",
    "model": [
        {"model": "zoo:llama-tiny", "name": "llama", "dims": {"seq": 16}},
        {"model": "zoo:dlrm-small", "name": "dlrm", "dims": {"batch": 64}, "weight": 2.0},
    ],
    "set": {"dram.channels": [8, 16, 32], "sram.bytes": "67108864..268435456 step x2"},
    "link": {"dram.bytes": "dram.channels * 8e9"},
    "constraints": ["area_mm2 <= 400"],
    "gpu": "none",
}

# %% Evaluate every point. On all cores: leave `jobs` out; to keep the rows: mtia_emu.sweep(SPEC, "sweep.db")
frame = pandas.DataFrame(mtia_emu.sweep(SPEC, jobs=0))
columns = ["point", "dram.channels", "sram.bytes", "status", "area_mm2", "dollars"]
print(frame[columns].round(1).to_string(index=False))

# %% Ask the rows something
good = frame[frame.status == "ok"]
fastest, cheapest = good.loc[good.seconds.idxmin()], good.loc[good.dollars.idxmin()]
print(f"the fastest has {fastest['dram.channels']} channels, the cheapest {cheapest['dram.channels']}")
