"""Why a model takes the time that it takes on a chip: what bounds each layer, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from mtia_emu.compiler.pipeline import Compiled, compile_graph

from .. import api
from ..engine.bounds import roofs
from ..engine.launches import Counts, costs
from ..engine.lookups import Lookups
from ..engine.run import report as make_report
from ..engine.sequence import LaunchRun, LayerRun, launch_runs
from ..machine.chip import Chip, load_chip
from ..options import Options, Words
from ..program.isa import Program
from ..results.explanation import Effect, Explanation, Kind, LayerTime
from ..results.report import LAUNCH, Layer, Report
from ..types import dtype as dtype_named
from .lookups import example_lookups, known_lookups
from .sensitivity import effects, steps
from .tuning import tuning

MOST_COUNTED = 1 << 21  # commands; counts take some 140 bytes for each


def explain(
    model: str | Path | Program,
    chip: str | Chip | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    what_if: bool = True,
    progress: api.Progress | None = None,
    **options: Unpack[Words],
) -> Explanation:
    """Return what bounds each layer of a model on a chip and, with `what_if`, what would help.

    All but `what_if` are those of `run`. A step of a parameter on which a program's tiles and addresses
    depend is judged with a new program, every other with the same one.
    """
    chosen = Options.of(**options)
    if isinstance(model, Program) or api.is_program(model):
        api.refuse_compiled(dims, chosen)
        program = model if isinstance(model, Program) else api.load_program(model)
        machine = api.machine_of(program, chip, settings)
        return explain_program(program, machine, what_if=what_if, progress=progress)
    machine = chip if isinstance(chip, Chip) else load_chip(chip or api.DEFAULT_CHIP, settings)
    with api.open_model(str(model), dims or {}) as source:
        compiled = api.compile_stages(source, machine, progress=progress, options=chosen)
        again = _Again(source, compiled, chosen)
        return explain_program(compiled.program, machine, again, what_if=what_if, progress=progress)


@dataclass(frozen=True)
class _Again:
    """What a model is compiled from: for another chip, or to know its look-ups."""

    source: api.Source
    compiled: Compiled
    options: Options

    def report(self, chip: Chip) -> Report:
        """Return the report of the model compiled anew."""
        graph, fused = self.compiled.imported, self.compiled.fused
        how = tuning(self.options)
        program = compile_graph(graph, chip, options=self.options, tuning=how, fused=fused).program
        return make_report(program, chip, self.lookups(program))

    def lookups(self, program: Program) -> dict[int, Lookups]:
        """Return the look-ups that `run` would time the program with."""
        return example_lookups(self.source, program)


def explain_program(
    program: Program,
    chip: Chip,
    again: _Again | None = None,
    *,
    what_if: bool = True,
    progress: api.Progress | None = None,
) -> Explanation:
    """Return the explanation of a program; without `again` it is only retimed."""
    if progress is not None:
        progress("time", 0, 1)
    lookups = again.lookups(program) if again is not None else known_lookups(program)
    counts = Counts(program, chip, lookups, keep=_countable(program, lookups))
    each = costs(program, chip, counts=counts)
    times = {counts.key(index): cost.time for index, cost in enumerate(each)}
    base = make_report(program, chip, each=each)
    found: tuple[Effect, ...] | None = None
    left_out: tuple[str, ...] = ()
    if what_if:

        def run(other: Chip, kind: Kind) -> Report:
            if kind == "recompiled" and again is not None:
                return again.report(other)
            known = times if kind == "repriced" else None
            return make_report(program, other, each=costs(program, other, counts=counts, times=known))

        every = steps(chip, {slot.dtype.name for block in program.blocks for slot in block.slots})
        todo = [s for s in every if again is not None or s.kind != "recompiled"]
        left_out = tuple(s.key for s in every if s not in todo)
        tick = (lambda done, total: progress("what would help", done, total)) if progress else None
        found = effects(chip, todo, base, run, tick)
    peaks = roofs(chip, dtype_named(base.dtype))
    return Explanation(base, peaks, layer_times(base, launch_runs(program, chip, each)), found, left_out)


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
