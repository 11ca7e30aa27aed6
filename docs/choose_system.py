"""Print which system decodes Llama-3-70B how fast: the table of docs/tutorial-systems.md; draw its pictures.

    python docs/choose_system.py [BATCH ...]

Each row is a command: `mtia-emu run zoo:llama-3-70b --system S --parallel P --dim batch=B --dim seq=1 --dim
past=2048 --gpu none`.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from fleet_pictures import alone

from mtia_emu import api
from mtia_emu.cli.shard import KINDS, read_tables
from mtia_emu.results.report import Report
from mtia_emu.system.load import load_system
from mtia_emu.system.planner import ShardPlan, plan
from mtia_emu.system.sharding import ShardJob
from mtia_emu.system.tables import with_hot_rows
from mtia_emu.view import units
from mtia_emu.view.html.bars import BarChart, StackedBar
from mtia_emu.view.html.scales import ChartAxis, share

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


TABLES = Path(__file__).parents[1] / "examples" / "tables-1tb.toml"
PLACED = (  # system, ways in which tables may lie, bytes of copies of hot rows
    ("mtia-2i-server", "", 0),
    ("mtia-2i-server", "row", 0),
    ("mtia-2i-server", "row", 10**9),
    ("mtia-300-rack", "", 0),
)
PARTS = (
    "indices to the rows",
    "look-ups, slowest chip",
    "pooled rows to the samples",
    "sums of tables in rows",
)
PICTURED = 16  # sequences of the picture's steps
TIME = ChartAxis("time of a token of each of 16 sequences", "s", show=units.seconds)


@cache
def step(system: str, parallel: str, batch: int) -> Report:
    """Return the report of a step that decodes a token of each sequence after 2,048."""
    dims = {"batch": batch, "seq": 1, "past": 2048}
    return api.run_over("zoo:llama-3-70b", dims=dims, gpu=None, system=system, parallel=parallel).report


def waits_s(report: Report) -> float:
    """Return the seconds in which the slowest stage waits for exchanges."""
    assert report.system is not None
    return max(report.system.stages, key=lambda stage: stage.seconds).exposed_s


def pictures_into(folder: Path) -> list[Path]:
    """Draw the table's middle batch into a folder: a bar a system and split; return the picture's path."""
    bars = []
    for system, parallel in CASES:
        report = step(system, parallel, PICTURED)
        waits = waits_s(report)
        bars.append(StackedBar(f"{system}, {parallel}", [report.seconds - waits, waits]))
    chart = BarChart("Llama-3-70B, decoding", "", TIME, bars, ("computes", "waits for links"))
    return [_drawn(chart, folder / "systems-70b.svg"), tables_into(folder)]


def _drawn(chart: BarChart, path: Path) -> Path:
    path.write_text(alone(chart), encoding="utf-8")
    return path


def placed(system: str, kinds: str, hot_bytes: int) -> ShardPlan:
    """Return how a terabyte of tables lies on a system, as `mtia-emu shard` finds it."""
    tables = with_hot_rows(read_tables(str(TABLES), None), hot_bytes)
    return plan(ShardJob(load_system(system), tables, 4096, 0.8), (kinds,) if kinds else KINDS)


def tables_into(folder: Path) -> Path:
    """Draw what a batch of look-ups spends its time on, by system and by how tables lie."""
    bars = []
    for system, kinds, hot_bytes in PLACED:
        cost = placed(system, kinds, hot_bytes).cost
        parts = (cost.index_s, float(cost.lookup_s.max()), cost.pooled_s, cost.sums_s)
        how = f"{kinds}s{' + hot' if hot_bytes else ''}" if kinds else "as planned"
        name = f"{system}, {how}: {units.seconds(cost.seconds)}"
        bars.append(StackedBar(name, [part / cost.seconds for part in parts]))
    axis = ChartAxis("of the time of a batch of 4,096 samples", "share", show=share)
    return _drawn(BarChart("A terabyte of tables", "", axis, bars, PARTS), folder / "systems-tables.svg")


def main() -> None:
    """Print a row for each system, way to split and batch."""
    batches = [int(text) for text in sys.argv[1:]] or [1, 16, 64]
    print("| system | split | batch | a token of each takes | tokens/s | of a chip | exposed | J/token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for system, parallel in CASES:
        for batch in batches:
            report = step(system, parallel, batch)
            assert report.system is not None
            slowest = max(stage.seconds for stage in report.system.stages)
            rate = batch / report.seconds
            print(
                f"| {system} | {parallel} | {batch} | {report.seconds * 1e3:.1f} ms | {rate:,.0f} | "
                f"{rate / report.system.chips:,.1f} | {waits_s(report) / slowest:.1%} | "
                f"{report.joules / batch:.2f} |"
            )


if __name__ == "__main__":
    main()
