"""Why a model takes the time that it takes on a chip: what bounds each layer, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mtia_emu.compiler.pipeline import Progress

from ..engine.bounds import roofs
from ..engine.cost import BlockCost
from ..engine.launches import Counts, Times, costs
from ..engine.lookups import Lookups
from ..engine.sequence import LaunchRun, LayerRun, launch_runs
from ..machine.chip import Chip
from ..program.isa import Program
from ..results.explanation import Explanation, Kind, LayerTime
from ..results.report import LAUNCH, Layer, Report
from ..types import dtype as dtype_named
from .accelerator import Accelerator, GraphModel
from .lookups import known_lookups
from .sensitivity import effects, steps

MOST_COUNTED = 1 << 21  # commands; counts take some 140 bytes for each


def explain_program(
    program: Program,
    chip: Chip,
    again: GraphModel | None = None,
    *,
    what_if: bool = True,
    progress: Progress | None = None,
) -> Explanation:
    """Return the explanation of a program; without `again` it is only retimed."""
    if progress is not None:
        progress("time", 0, 1)
    lookups = again.lookups(program) if again is not None else known_lookups(program)
    counts = Counts(program, chip, lookups, keep=_countable(program, lookups))
    each = costs(program, chip, counts=counts)
    base = Accelerator(chip, lambda *_: each).report(program)
    runs = launch_runs(program, chip, each)
    explanation = Explanation(base, roofs(chip, dtype_named(base.dtype)), layer_times(base, runs))
    if not what_if:
        return explanation
    every = steps(chip, {slot.dtype.name for block in program.blocks for slot in block.slots})
    todo = [s for s in every if again is not None or s.kind != "recompiled"]
    times = {counts.key(index): cost.time for index, cost in enumerate(each)}
    tick = (lambda count, total: progress("what would help", count, total)) if progress else None
    changes = effects(chip, todo, base, _Known(program, counts, times, again).on, tick)
    return replace(explanation, effects=changes, left_out=tuple(s.key for s in every if s not in todo))


@dataclass(frozen=True)
class _Known:
    """A program, its counts and times on the chip that is explained, and the model that it is of."""

    program: Program
    counts: Counts
    times: Times
    model: GraphModel | None

    def on(self, chip: Chip, kind: Kind) -> Report:
        """Return the report on another chip, of a new program only where the change asks for one."""
        if kind == "recompiled" and self.model is not None:
            return Accelerator(chip).report(self.model)
        return Accelerator(chip, self._repriced if kind == "repriced" else self._retimed).report(self.program)

    def _repriced(self, program: Program, chip: Chip, _: Mapping[int, Lookups]) -> list[BlockCost]:
        return costs(program, chip, counts=self.counts, times=self.times)

    def _retimed(self, program: Program, chip: Chip, _: Mapping[int, Lookups]) -> list[BlockCost]:
        return costs(program, chip, counts=self.counts)


def _countable(program: Program, lookups: Mapping[int, Lookups]) -> bool:
    """Return whether counts of all launches may be kept; they are of one block where data do not differ."""
    commands = sum(len(block.commands) for block in program.blocks)
    commands += sum(len(program.blocks[program.launches[i].block].commands) for i in lookups)
    return commands <= MOST_COUNTED


def layer_times(report: Report, runs: Iterable[LaunchRun]) -> tuple[LayerTime, ...]:
    """Return where the time of each layer of a report went; `runs` are the launches of its program."""
    layers = ((run.launch.block, layer) for run in runs for layer in run.layers)
    return tuple(
        _layer_time(block, x, layer) for (block, x), layer in zip(layers, report.layers, strict=True)
    )


def _layer_time(block: int, run: LayerRun, layer: Layer) -> LayerTime:
    """Return where a layer's own time went: of its span, if it ran beside others, in proportion."""
    span, cost = run.span, run.cost
    share = layer.cycles / max(span.ticks, 1)
    parts = {LAUNCH: float(span.begin - span.start)} | cost.split.parts
    busy = {name: part / max(cost.cycles, 1) for name, part in cost.time.busy.items()}
    own = {name: cycles * share for name, cycles in parts.items()}
    return LayerTime(layer, block, own, busy, cost.roof_cycles / max(span.ticks, 1), run.band)
