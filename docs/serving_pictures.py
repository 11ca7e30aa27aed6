"""The picture of the serving tutorial: what a chip gives, and each user, as more sequences are served.

    python docs/serving_pictures.py [FOLDER]

Each point is a `mtia-emu serve zoo:llama-3-8b ... --over concurrency=... --requests 100`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fleet_pictures import alone

from mtia_emu.view.html.lines import Line, LineChart
from mtia_emu.view.html.scales import ChartAxis

DOCS = Path(__file__).resolve().parent
MACHINES = {
    "MTIA 2i": ("--chip", "mtia-2i"),
    "MTIA 300": ("--chip", "mtia-300"),
    "H100": ("--gpu", "h100-sxm"),
}
LOAD = ("--over", "concurrency=1,4,16,64", "--requests", "100", "--json", "-")
USER = ChartAxis("tokens a second of a user, median", "1/s", log=True)
CHIP = ChartAxis("tokens a second of a chip", "1/s", log=True)


def pictures_into(folder: Path) -> list[Path]:
    """Draw the picture into a folder; return its path."""
    path = folder / "serving-trade.svg"
    path.write_text(alone(chart()), encoding="utf-8")
    return [path]


def chart() -> LineChart:
    """Return a line a machine, over the sequences that are served at once."""
    return LineChart("A chip and a user", "", USER, CHIP, [line(name) for name in MACHINES])


def line(name: str) -> Line:
    """Return what a machine gives a user, and gives in all, with 64, 16, 4 and 1 sequences at once."""
    command = [sys.executable, "-m", "mtia_emu.cli", "serve", "zoo:llama-3-8b", *MACHINES[name], *LOAD]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found = [way["answers"] for way in json.loads(shown)["ways"]][::-1]
    users = [a["output_tokens_per_s_per_user"] for a in found]
    return Line(name, users, [a["output_tokens_per_s_per_chip"] for a in found])


def main() -> None:
    """Draw the picture and print what it shows."""
    pictures_into(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures")
    for row in chart().rows():
        print(*row, sep=" | ")


if __name__ == "__main__":
    main()
