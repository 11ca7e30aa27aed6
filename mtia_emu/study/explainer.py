"""Why a model takes the time that it takes on a chip: what bounds each layer, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mtia_emu.compiler.pipeline import Progress

from ..engine.bounds import roofs
from ..engine.cost import BlockCost
from ..engine.launches import Counts, costs
from ..engine.lookups import Lookups
from ..engine.sequence import LaunchRun, LayerRun, launch_runs
from ..machine.chip import Chip
from ..program.isa import Program
from ..results.explanation import Explanation, Kind, LayerTime
from ..results.report import LAUNCH, Layer, Report
from ..types import dtype as dtype_named
from .accelerator import Accelerator, GraphModel
from .lookups import known_lookups
from .sensitivity import Vary, effects, steps, varied

MOST_COUNTED = 1 << 21  # commands; counts take some 140 bytes for each
MOST_CLOCKS = 4  # whose times are kept


def explain_program(
    program: Program,
    chip: Chip,
    again: GraphModel | None = None,
    *,
    vary: Vary | None = None,
    what_if: bool = True,
    progress: Progress | None = None,
) -> Explanation:
    """Return the explanation of a program; without `again` it is only retimed.

    `vary` gives the chip with another value of a parameter: by default it and all else as it is.
    """
    if progress is not None:
        progress("time", 0, 1)
    lookups = again.lookups(program) if again is not None else known_lookups(program)
    counts = Counts(program, chip, lookups, keep=_countable(program, lookups))
    known = _Known(program, counts, again)
    base = Accelerator(chip, lambda program, chip, _: known.costs(chip)).report(program)
    now = chip.at_clock(base.clock_hz)
    runs = launch_runs(program, now, known.costs(now))
    explanation = Explanation(base, roofs(now, dtype_named(base.dtype)), layer_times(base, runs))
    if not what_if:
        return explanation
    every = steps(chip, {slot.dtype.name for block in program.blocks for slot in block.slots})
    todo = [s for s in every if again is not None or s.kind != "recompiled"]
    tick = (lambda count, total: progress("what would help", count, total)) if progress else None
    changes = effects(vary or varied(chip), todo, base, known.on, tick)
    return replace(explanation, effects=changes, left_out=tuple(s.key for s in every if s not in todo))


@dataclass
class _Known:
    """A program, its counts, and the model that it is of; times at some clocks of the chip that is explained.

    A step that changes prices only has the times of that chip, at the clock that its limit of power allows.
    """

    program: Program
    counts: Counts
    model: GraphModel | None
    at_clock: dict[float, list[BlockCost]] = field(default_factory=dict)

    def on(self, chip: Chip, kind: Kind) -> Report:
        """Return the report on another chip, of a new program only where the change asks for one."""
        if kind == "recompiled" and self.model is not None:
            return Accelerator(chip).report(self.model)
        return Accelerator(chip, self._repriced if kind == "repriced" else self._retimed).report(self.program)

    def costs(self, chip: Chip) -> list[BlockCost]:
        """Return the costs on the chip that is explained, at one of its clocks."""
        if chip.clock_hz not in self.at_clock:
            if len(self.at_clock) == MOST_CLOCKS:
                del self.at_clock[next(iter(self.at_clock))]
            self.at_clock[chip.clock_hz] = costs(self.program, chip, counts=self.counts)
        return self.at_clock[chip.clock_hz]

    def _repriced(self, program: Program, chip: Chip, _: Mapping[int, Lookups]) -> list[BlockCost]:
        times = {self.counts.key(index): cost.time for index, cost in enumerate(self.costs(chip))}
        return costs(program, chip, counts=self.counts, times=times)

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
