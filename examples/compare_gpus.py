"""One recommender on a chip, beside every GPU of the reference: time, energy and performance per watt."""

from __future__ import annotations

import mtia_emu
from mtia_emu.gpu import gpu_names, load_gpu
from mtia_emu.results.report import Report, compare

CHIP, MODEL, DIMS = "mtia-2i", "zoo:dlrm-mlperf", {"batch": 2048}


def main() -> None:
    """Print a row for the chip and one for each GPU."""
    program = mtia_emu.compile_model(MODEL, CHIP, dims=DIMS)
    print(f"{'machine':>16s} {'time':>10s} {'energy':>10s} {'power':>8s}   the chip is")
    ours = mtia_emu.run(program, gpu=None).report
    row(ours, "")
    for name in gpu_names():
        report = load_gpu(name).report(program)
        against = compare(ours, report)
        row(report, f"{against.speed:.2f} x as fast, {against.perf_per_watt:.2f} x the performance per watt")


def row(report: Report, text: str) -> None:
    """Print one machine."""
    print(
        f"{report.machine:>16s} {report.seconds * 1e6:7.0f} us {report.joules * 1e3:7.1f} mJ "
        f"{report.watts:6.0f} W   {text}".rstrip()
    )


if __name__ == "__main__":
    main()
