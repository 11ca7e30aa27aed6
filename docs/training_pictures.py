"""Pictures of the training tutorial: what holds memory, what recomputation, a sorter and more chips change.

    python docs/training_pictures.py [FOLDER]

The model is GPT-2 in bf16 with AdamW, eight sequences of 512 tokens a chip, on MTIA 300; the sorter's is the
update of two production tables. Each bar is one `mtia-emu train`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from fleet_pictures import alone

import mtia_emu
from mtia_emu.results.training import PHASES, Training
from mtia_emu.view import units
from mtia_emu.view.html.bars import BarChart, StackedBar
from mtia_emu.view.html.frame import Chart
from mtia_emu.view.html.scales import ChartAxis
from mtia_emu.view.training_charts import BYTES, MEMORY

DOCS = Path(__file__).resolve().parent
MODEL, CHIP, SYSTEM, TABLES = "zoo:gpt2-124m", "mtia-300", "mtia-300-rack", "zoo:tbe-production-50"
BATCH, SEQ = 8, 512
KEEPS = (("all is kept", float("inf")), ("--keep 0", 0.0))
SORTERS = (("a key a cycle (MTIA 300)", 1.0), ("a key in 8, by the core (MTIA 2i)", 0.125))
CHIPS = (1, 4, 16)
TIME = ChartAxis("time of a step", "s", show=units.seconds)


def pictures_into(folder: Path) -> list[Path]:
    """Draw the pictures into a folder; return their paths."""
    drawn = []
    for name, chart in figures():
        path = folder / f"training-{name}.svg"
        path.write_text(alone(chart), encoding="utf-8")
        drawn.append(path)
    return drawn


def figures() -> Iterator[tuple[str, Chart]]:
    """Yield the pictures by name."""
    runs = {name: gpt(keep) for name, keep in KEEPS}
    bars = [StackedBar(n, [float(getattr(t.memory, kind)) for kind in MEMORY]) for n, t in runs.items()]
    yield "memory", BarChart("What holds memory", "", BYTES, bars, MEMORY)
    yield "again", BarChart("What recomputation costs", "", TIME, phases(runs), PHASES)
    yield "sorter", BarChart("What the sorter is worth", "", TIME, phases(sorted_at()), PHASES)
    yield "chips", BarChart("What an exchange hides behind", "", TIME, list(shared()), ("computes", "waits"))


def phases(runs: Mapping[str, Training]) -> list[StackedBar]:
    """Return a bar a step, in its phases."""
    return [StackedBar(name, [t.phases[phase] for phase in PHASES]) for name, t in runs.items()]


@cache
def gpt(keep: float = float("inf"), chips: int = 1) -> Training:
    """Return the step of GPT-2, its batch as large on each of some chips."""
    spread = {"system": SYSTEM, "parallel": f"dp={chips}"} if chips > 1 else {}
    return mtia_emu.train(
        MODEL, None if chips > 1 else CHIP, dims={"batch": BATCH * chips, "seq": SEQ}, gpu=None, keep=keep,
        loss="cross-entropy", optimizer="adamw", precision="bf16", embeddings="tables", **spread,
    )  # fmt: skip


def sorted_at() -> dict[str, Training]:
    """Return the step of two tables, its indices sorted by a unit or by the core."""
    return {
        name: mtia_emu.train(
            TABLES, CHIP, loss="mse", optimizer="adagrad{rowwise=true}", gpu=None,
            settings={"pe.core.sort_keys_per_cycle": rate},
        )
        for name, rate in SORTERS
    }  # fmt: skip


def shared() -> Iterator[StackedBar]:
    """Yield a bar for each number of chips: the time in which one computes, and waits for exchanges."""
    for chips in CHIPS:
        use = gpt(chips=chips).report.system
        seconds, waits = gpt(chips=chips).report.seconds, 0.0 if use is None else use.stages[0].exposed_s
        yield StackedBar(f"{chips} chip{'s' if chips > 1 else ''}", [seconds - waits, waits])


def main() -> None:
    """Draw the pictures and print what they show."""
    pictures_into(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures")
    for name, chart in figures():
        for row in chart.rows():
            print(name, *row, sep=" | ")


if __name__ == "__main__":
    main()
