"""Read a JSON report with the standard library alone: which ops take the time, and what bounds them.

`python read_json_report.py report.json` reads a file that `mtia-emu run ... --json report.json` wrote;
without a file the script has one written first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from typing import Any

COMMAND = [sys.executable, "-m", "mtia_emu.cli", "run", "zoo:dlrm-small", "--gpu", "h100-sxm", "--json", "-"]


def main() -> None:
    """Print a row for each op, the slowest first."""
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8") as file:
            report = json.load(file)
    else:
        report = json.loads(subprocess.run(COMMAND, check=True, capture_output=True, text=True).stdout)
    assert report["schema"] == "mtia-emu.report.v2"
    cost = f"{report['seconds'] * 1e6:.1f} us, {report['joules'] * 1e6:.0f} uJ"
    print(f"{report['model']} on {report['chip']}: {cost}")
    for op, (cycles, count, bounds) in sorted(by_op(report).items(), key=lambda item: -item[1][0]):
        share = cycles / report["cycles"]
        print(f"  {op:14s} {count:3d} layers {share:6.1%}  bound by {', '.join(sorted(bounds))}")
    print(f"beside {report['gpu']['name']}: {report['versus_gpu']['speed']:.2f} x as fast")


def by_op(report: dict[str, Any]) -> dict[str, tuple[float, int, set[str]]]:
    """Return cycles, layers and bounds of each op."""
    found: dict[str, tuple[float, int, set[str]]] = defaultdict(lambda: (0.0, 0, set()))
    for layer in report["layers"]:
        cycles, count, bounds = found[layer["op"]]
        found[layer["op"]] = (
            cycles + layer["cycles"],
            count + 1,
            bounds | {layer["bound_by"]},
        )
    return found


if __name__ == "__main__":
    main()
