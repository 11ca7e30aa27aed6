"""Why a model takes the time that it takes on a chip: what bounds each layer, and what would help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mtia_emu.compiler.pipeline import Progress

from ..engine.bounds import roofs
from ..engine.sequence import LaunchRun, LayerRun, launch_runs
from ..errors import UserError
from ..machine.chip import Chip
from ..program.isa import Program
from ..results.explanation import Explanation, LayerTime, ParameterStep
from ..results.report import LAUNCH, Layer, Report
from ..types import dtype as dtype_named
from .accelerator import GraphModel
from .lookups import known_lookups
from .sensitivity import Vary, effects, steps, varied
from .what_if import Question, WhatIf

Refusable = Question | UserError


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
    lookups = again.lookups(program) if again is not None else known_lookups(program)
    asked = WhatIf(program, chip, lookups, again)
    first = asked.same(chip)
    every = steps(chip, {slot.dtype.name for block in program.blocks for slot in block.slots})
    todo = [s for s in every if what_if and (again is not None or s.kind != "recompiled")]
    others = []
    for number, step in enumerate(todo):
        if progress is not None:
            progress("compile for other chips", number, len(todo))
        others.append(_question(asked, vary or varied(chip), step))
    tick = (lambda count, total: progress("time", count, total)) if progress else None
    asked.answer([first, *(x for x in others if isinstance(x, Question))], tick)
    base = _answer(first)
    if isinstance(base, UserError):
        raise base
    now = chip.at_clock(base.clock_hz)
    runs = launch_runs(program, now, first.costs[now.clock_hz])
    explanation = Explanation(base, roofs(now, dtype_named(base.dtype)), layer_times(base, runs))
    if not what_if:
        return explanation
    changes = effects(todo, base, [_answer(x) for x in others])
    return replace(explanation, effects=changes, left_out=tuple(s.key for s in every if s not in todo))


def _question(asked: WhatIf, vary: Vary, step: ParameterStep) -> Refusable:
    """Return the question what a step brings: of a new program only where the change asks for one."""
    try:
        chip = vary(step.key, step.new)
        return asked.anew(chip) if step.kind == "recompiled" else asked.same(chip)
    except UserError as error:
        return error


def _answer(question: Refusable) -> Report | UserError:
    if isinstance(question, UserError):
        return question
    found = question.report or question.refused
    assert found is not None
    return found


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
