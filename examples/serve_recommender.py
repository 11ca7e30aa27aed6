"""How many chips rank candidates for a recommender within its promise, on each machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mtia_emu
from mtia_emu.gpu import load_gpu
from mtia_emu.results.report import Report
from mtia_emu.serving.ranking import JobTimes
from mtia_emu.serving.ranking_form import read_ranking
from mtia_emu.serving.ranking_queue import greatest_ranking_rate, with_model

MODEL, SIZES, REQUESTS_PER_S = "zoo:dlrm-mc2", (256, 1024), 20_000
SERVICE = Path(__file__).with_name("ranking-2-chips.toml")  # its windows, host and promise
MEMORY_SHARE = 0.9
COLUMNS = ("machine", "batch of 1,024", "chips", "at once", "serves", "p99", "chips busy", "for 20,000/s")
WIDTHS = (9, 15, 6, 8, 9, 7, 11, 13)


def main() -> None:
    """Print rows for each machine."""
    line(*COLUMNS, "J/request")
    for chip in ("mtia-2i", "mtia-300"):
        programs = [mtia_emu.compile_model(MODEL, chip, dims={"batch": size}) for size in SIZES]
        table_bytes = sum(b.type.bytes for b in programs[0].consts)
        reports = [mtia_emu.run(program, gpu=None).report for program in programs]
        rows(reports, mtia_emu.load_chip(chip).dram.bytes, table_bytes)
    gpu = load_gpu("h100-sxm")
    rows([gpu.report(program) for program in programs], int(gpu.dram_bytes), table_bytes)


def rows(reports: list[Report], memory_bytes: int, table_bytes: int) -> None:
    """Print what servers of a machine serve: as many chips as the tables need, which they share evenly."""
    chips = math.ceil(table_bytes / (MEMORY_SHARE * memory_bytes))
    remote = [sum(x.seconds for x in r.layers if x.op == "embedding_bags") for r in reports]
    merge = [r.seconds - s for r, s in zip(reports, remote, strict=True)]
    service, load = read_ranking(SERVICE, {"server.chips": chips, "model.shards": [1 / chips] * chips})
    times = {"remote_s": JobTimes(SIZES, tuple(remote)), "merge_s": JobTimes(SIZES, tuple(merge))}
    joules = reports[-1].joules / SIZES[-1] * load.candidates
    for windows in (4, 16):
        served = with_model(service, **times, remote_jobs=1, most_windows=windows)
        rate, run = greatest_ranking_rate(served, replace(load, requests=10_000))
        line(
            *(reports[0].machine, f"{reports[-1].seconds * 1e3:.1f} ms", str(chips), str(windows)),
            *(f"{rate:,.0f}/s", f"{run.quantile(0.99) * 1e3:.0f} ms", f"{max(run.busy_share):.0%}"),
            *(str(math.ceil(REQUESTS_PER_S / rate) * chips), f"{joules:.3f}"),
        )


def line(*texts: str) -> None:
    """Print texts as columns."""
    print(" ".join(text.rjust(width) for text, width in zip(texts, (*WIDTHS, 10), strict=True)))


if __name__ == "__main__":
    main()
