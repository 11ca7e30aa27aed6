"""The figures of a training step's page, as values that draw themselves."""

from __future__ import annotations

import math
import re

from ..results.training import BACKWARD, OPTIMISER, PHASES, Losses, PeakMemory, Training
from . import units
from .html.bars import BarChart, StackedBar
from .html.lines import Line, LineChart
from .html.scales import ChartAxis, share
from .run_charts import TIME

MEMORY = ("weights", "optimizer", "gradients", "activations", "data")
MOST_BLOCKS = 40  # bars of blocks of a model
MANY_TIMES = 3.0  # the memory of a machine that is drawn beside what a step takes
BLOCK = re.compile(r"^.*?[./](\d+)(?=[./]|$)")  # model.layers.12 of model.layers.12.mlp.up_proj
BYTES = ChartAxis("memory", "B", show=units.size)
STEPS = ChartAxis("executed", "step", show=lambda n: f"{n:.0f}")
LOSS = ChartAxis("loss", "mean of a batch", show=lambda value: f"{value:.3g}")


def block_of(layer: str) -> str:
    """Return which block of a model a layer is of: its name up to the first number, else its first part."""
    name = layer.removesuffix(OPTIMISER).removesuffix(BACKWARD).removesuffix(" again")
    found = BLOCK.match(name)
    return found.group(0) if found else re.split(r"[./ ]", name, maxsplit=1)[0]


def by_block(training: Training) -> BarChart:
    """Return the time of each block of the model, forward against backward against its weights' update.

    Blocks stand in the model's order; of too many those of least time are one.
    """
    sums: dict[str, dict[str, float]] = {}
    for phase in PHASES:
        for x in training.layers_of(phase):
            bar = sums.setdefault(block_of(x.name), dict.fromkeys(PHASES, 0.0))
            bar[phase] += x.seconds
    kept = sorted(sums, key=lambda name: -math.fsum(sums[name].values()))[:MOST_BLOCKS]
    rest = [name for name in sums if name not in kept]
    bars = [StackedBar(n, [sums[n][p] for p in PHASES]) for n in sums if n in kept]
    if rest:
        pooled = [math.fsum(sums[name][phase] for name in rest) for phase in PHASES]
        bars.append(StackedBar(f"{len(rest):,} others", pooled))
    took = training.phases
    ratio = took["backward"] / took["forward"] if took["forward"] else math.nan
    text = f"Backward takes {ratio:.2f} times as long as forward." if math.isfinite(ratio) else ""
    return BarChart("Forward against backward", text or "Nothing ran forward.", TIME, bars, PHASES)


def memory(peak: PeakMemory) -> BarChart:
    """Return what holds memory when most is held, beside what the machine has."""
    largest = max(MEMORY, key=lambda kind: getattr(peak, kind))
    fits = "fits" if peak.fits else "does not fit"
    of = share(getattr(peak, largest) / (peak.total or 1))
    whole, room = units.size(peak.total), units.size(peak.capacity)
    text = f"Most is of {largest}: {of} of {whole}, which {fits} in {room}."
    bars = [StackedBar("at the peak", [float(getattr(peak, kind)) for kind in MEMORY])]
    if peak.capacity <= MANY_TIMES * peak.total:
        bars[0] = StackedBar("at the peak", bars[0].parts, float(peak.total), float(peak.capacity))
        text += " The whisker ends at what the machine has." if peak.fits else ""
    return BarChart("Memory at its peak", text, BYTES, bars, MEMORY)


def losses(found: Losses) -> LineChart:
    """Return the loss of each executed step, beside those of an oracle where there is one."""
    steps = [float(n + 1) for n in range(len(found.losses))]
    lines = [Line("loss", steps, found.losses)]
    text = f"From {found.losses[0]:.4g} to {found.losses[-1]:.4g} in {len(steps)} steps"
    if found.expected:
        lines.append(Line(found.oracle, steps, found.expected))
        state = "passed" if found.passed else "FAILED"
        text += f"; {state}: at most {found.error:.2g} of the largest loss away, {found.tolerance:g} allowed"
    return LineChart("The loss", f"{text}.", STEPS, LOSS, lines)
