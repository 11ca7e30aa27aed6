"""The main job: a decoder and a recommender, executed and checked; Llama-3-8B, timed without weights.

Run it with `make run`, or `python examples/main_job.py`. Exits 1 when an output is beyond tolerance.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.rule import Rule

import mtia_emu
from mtia_emu.view.terminal import print_report, print_table
from mtia_emu.view.units import joules, ratio, seconds

CHIP, GPU = "mtia-2i", "h100-sxm"
JOBS = [
    ("a small Llama-style decoder, executed", "zoo:llama-tiny", {"batch": 2, "seq": 32}, True),
    ("the same, one token after 31", "zoo:llama-tiny", {"batch": 2, "seq": 1, "past": 31}, True),
    ("a DLRM-style recommender, executed", "zoo:dlrm-small", {"batch": 64}, True),
    ("Llama-3-8B, prefill of 2048 tokens, timed", "zoo:llama-3-8b", {"batch": 1, "seq": 2048}, False),
    (
        "Llama-3-8B, one token after 2048, timed",
        "zoo:llama-3-8b",
        {"batch": 1, "seq": 1, "past": 2048},
        False,
    ),
]


def main() -> int:
    """Run the jobs, print a report each and a summary; return the exit code."""
    console = Console(highlight=False)
    rows, failed = [], 0
    for title, model, dims, check in JOBS:
        start = time.perf_counter()
        done = mtia_emu.run(model, CHIP, dims=dims, check=check, gpu=GPU)
        took = time.perf_counter() - start
        console.print(Rule(title, align="left"))
        print_report(done.report, done.gpu, done.check, console, layers=5)
        passed = "-" if done.check is None else "passed" if done.check.passed else "FAILED"
        failed += passed == "FAILED"
        assert done.gpu is not None
        rows.append(
            [
                title,
                seconds(done.report.seconds),
                joules(done.report.joules),
                seconds(done.gpu.seconds),
                ratio(done.gpu.seconds / done.report.seconds),
                ratio(done.gpu.joules / done.report.joules),
                passed,
                f"{took:.1f} s",
            ]
        )
    console.print(Rule("summary", align="left"))
    columns = ["job", CHIP, "energy", GPU, "speed", "perf/W", "check", "took"]
    print_table(f"{CHIP} beside {GPU}", columns, rows, console)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
