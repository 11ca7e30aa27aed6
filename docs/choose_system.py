"""Print which system decodes Llama-3-70B how fast: the table of docs/tutorial-systems.md.

    python docs/choose_system.py [BATCH ...]

Each row is a command: `mtia-emu run zoo:llama-3-70b --system S --parallel P --dim batch=B --dim seq=1 --dim
past=2048 --gpu none`.
"""

from __future__ import annotations

import sys

from mtia_emu import api

CASES = (
    ("mtia-2i-server", "tp=2"),
    ("mtia-2i-server", "tp=8"),
    ("mtia-2i-server", "tp=16"),
    ("mtia-2i-server", "pp=4,tp=4"),
    ("mtia-300-rack", "tp=4"),
    ("mtia-300-rack", "tp=16"),
    ("dgx-h100", "tp=4"),
    ("dgx-h100", "tp=8"),
    ("hgx-h200", "tp=8"),
)


def main() -> None:
    """Print a row for each system, way to split and batch."""
    batches = [int(text) for text in sys.argv[1:]] or [1, 16, 64]
    print("| system | split | batch | a token of each takes | tokens/s | of a chip | exposed | J/token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for system, parallel in CASES:
        for batch in batches:
            dims = {"batch": batch, "seq": 1, "past": 2048}
            outcome = api.run_over("zoo:llama-3-70b", dims=dims, gpu=None, system=system, parallel=parallel)
            report, use = outcome.report, outcome.report.system
            assert use is not None
            slowest = max(use.stages, key=lambda stage: stage.seconds)
            rate = batch / report.seconds
            print(
                f"| {system} | {parallel} | {batch} | {report.seconds * 1e3:.1f} ms | {rate:,.0f} | "
                f"{rate / use.chips:,.1f} | {slowest.exposed_s / slowest.seconds:.1%} | "
                f"{report.joules / batch:.2f} |"
            )


if __name__ == "__main__":
    main()
