"""How many chips rank candidates for a recommender within its promise, on each machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from mtia_emu import load_chip
from mtia_emu.gpu import load_gpu
from mtia_emu.results.machine import Machine
from mtia_emu.serving.ranking_form import read_ranking
from mtia_emu.serving.ranking_queue import greatest_ranking_rate, with_model
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.ranking_jobs import ranking_jobs

MODEL, SIZES, REQUESTS_PER_S = "zoo:dlrm-mc2", (256, 1024), 20_000
SERVICE = Path(__file__).with_name("ranking-2-chips.toml")  # its windows, host and promise
COLUMNS = ("machine", "batch of 1,024", "chips", "at once", "serves", "p99", "chips busy", "for 20,000/s")
WIDTHS = (9, 15, 6, 8, 9, 7, 11, 13)


def main() -> None:
    """Print rows for each machine."""
    line(*COLUMNS, "J/request")
    for chip in ("mtia-2i", "mtia-300"):
        rows(Accelerator(load_chip(chip)))
    rows(load_gpu("h100-sxm"))


def rows(machine: Machine) -> None:
    """Print what servers of a machine serve: as many chips as the tables need, which they share evenly."""
    jobs = ranking_jobs(MODEL, machine, SIZES)
    chips = jobs.least_chips()
    whole_s = jobs.remote_s(SIZES[-1]) + jobs.merge_s(SIZES[-1])
    service, load = read_ranking(SERVICE, {"server.chips": chips, "model.shards": [1 / chips] * chips})
    joules = jobs.joules(SIZES[-1]) / SIZES[-1] * load.candidates
    for windows in (4, 16):
        times = {"remote_s": jobs.remote_s, "merge_s": jobs.merge_s}
        served = with_model(service, **times, remote_jobs=1, most_windows=windows)
        rate, run = greatest_ranking_rate(served, replace(load, requests=10_000))
        line(
            *(machine.name, f"{whole_s * 1e3:.1f} ms", str(chips), str(windows)),
            *(f"{rate:,.0f}/s", f"{run.quantile(0.99) * 1e3:.0f} ms", f"{max(run.busy_share):.0%}"),
            *(str(math.ceil(REQUESTS_PER_S / rate) * chips), f"{joules:.3f}"),
        )


def line(*texts: str) -> None:
    """Print texts as columns."""
    print(" ".join(text.rjust(width) for text, width in zip(texts, (*WIDTHS, 10), strict=True)))


if __name__ == "__main__":
    main()
