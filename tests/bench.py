"""Measure the tool itself, part by part, and write docs/performance.md: `make bench`.

Each part is kept as it was found, under .venv/bench; the page is made of what is kept. Words are the names of
parts, all of them by default; `--resume` leaves out those that were found by the code as it is now.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench_page import ROOT, Aim, Part, Table, keep, kept, page
from bench_process import BARE
from rich.console import Console

from mtia_emu.view.terminal import print_table

KEPT = ROOT / ".venv" / "bench"
PAGE = ROOT / "docs" / "performance.md"
Found = tuple[tuple[Table, ...], tuple[Aim, ...]]


def _questions() -> Found:
    from bench_questions import questions

    return questions()


def _explanations() -> Found:
    from bench_questions import explanations

    return explanations()


def _peers() -> Found:
    from bench_peers import peers
    from bench_scalesim import beside_scalesim

    return peers(beside_scalesim)


def _sweeps() -> Found:
    from bench_sweep import rates

    return rates()


def _endurance() -> Found:
    from bench_sweep import endurance

    return endurance()


def _kills() -> Found:
    from bench_sweep import kills

    return kills()


def _loops() -> Found:
    from bench_loops import loops

    return loops()


def _zoo() -> Found:
    from bench_loops import zoo_models

    return (zoo_models(),), ()


PARTS: dict[str, Callable[[], Found]] = {
    "questions": _questions,
    "explanations": _explanations,
    "peers": _peers,
    "sweeps": _sweeps,
    "loops": _loops,
    "zoo": _zoo,
    "endurance": _endurance,
    "kills": _kills,
}
LONG = ("endurance", "kills")  # minutes each: asked for by name


def machine() -> str:
    """Return what a reader must know of the machine to judge times."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"load {load:.1f} before it"
    )


def file_of(part: str) -> Path:
    """Return where a part is kept."""
    return KEPT / f"{part}.json"


def measure(name: str, console: Console) -> None:
    """Measure one part, show it and keep it."""
    seen, start = machine(), time.perf_counter()
    tables, aims = PARTS[name]()
    keep(Part(seen, tables, aims), file_of(name))
    for table in tables:
        print_table(table.title, table.columns, table.rows, console)
    for aim in aims:
        console.print("  ".join(aim.row()), markup=False)
    console.print(f"{name}: {time.perf_counter() - start:.0f} s\n")


def main(words: list[str]) -> None:
    """Measure what is asked for and write the page of all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--resume", action="store_true", help="leave out parts that are younger than the sources"
    )
    asked = parser.parse_args(words)
    unknown = [name for name in asked.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r} (right: {', '.join(PARTS)})")
    console = Console(highlight=False)
    for name in asked.parts or [name for name in PARTS if name not in LONG]:
        if asked.resume and _young(file_of(name)):
            console.print(f"{name}: kept")
            continue
        measure(name, console)
        PAGE.write_text(page({name: kept(file_of(name)) for name in PARTS}, BARE))
    console.print(f"written: {PAGE.relative_to(ROOT)}")


def _young(file: Path) -> bool:
    """Return whether a file is younger than every source."""
    sources = (
        f for room in ("mtia_emu", "compiler", "kernels", "tests") for f in (ROOT / room).rglob("*.py")
    )
    return file.exists() and file.stat().st_mtime > max(f.stat().st_mtime for f in sources)


if __name__ == "__main__":
    main(sys.argv[1:])
