"""A stage whose ranks run different programs: all of them timed, and joined where they exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from ..engine.cost import BlockCost
from ..engine.energy import standing
from ..engine.launches import untimed_costs
from ..engine.power import sustained
from ..engine.run import report
from ..engine.sequence import track_of
from ..machine.chip import Chip
from ..results.report import Joules, Layer, Report, Stretch
from ..results.spans import Span, Task, Track, laid_out
from ..results.system_use import StageUse
from ..system.join import PICOSECONDS, ChipJob, length
from .buckets import bucketed, is_bucketed, together
from .meetings import Meeting, exchange_uses, largest
from .rank_classes import RankClass
from .stage_time import StageRun, StageTime, jobs, layers_among, links_name, memory, moving, stage_name
from .waits import exchanges, waits


@dataclass(frozen=True)
class _Timed:
    """A class of ranks at a clock: its launches alone, and its track."""

    run: StageRun
    each: Sequence[BlockCost]
    alone: Report
    track: Track
    numbers: dict[int, Meeting]


@dataclass(frozen=True)
class UnevenStage:
    """A stage of several classes of ranks, each with the run of its own program.

    All programs have the same exchanges in the same order. An exchange begins when all ranks have come.
    """

    classes: Sequence[RankClass]
    runs: Sequence[StageRun]

    def time(self) -> StageTime:
        """Return the stage's time: at the fastest clock at which the busiest chip keeps to its power."""
        first, last = self.runs[0], dict[float, tuple[Report, list[Report], list[float]]]()

        def at(chip: Chip) -> Report:
            found = self._report(chip)
            last[found[0].clock_hz] = found
            return found[0]

        whole = sustained(first.chip, at)
        _, reports, works = last[whole.clock_hz]
        exchanged = sum(m.time.seconds for m in self._met)
        name = stage_name(first.parts, first.stage)
        uses = tuple(
            StageUse(
                c.name, len(c.chips), whole.seconds, work, exchanged, whole.seconds - work,
                memory(run.program, run.chip, largest(self._met), run.parts.mesh.batches),
            )
            for c, run, work in zip(self.classes, self.runs, works, strict=True)
        )  # fmt: skip
        joules = sum(m.groups * m.time.joules for m in self._met)
        counted = tuple((len(c.chips), r) for c, r in zip(self.classes, reports, strict=True))
        return StageTime(whole, uses, exchange_uses(name, self._met), joules, counted)

    @cached_property
    def _ordinals(self) -> list[tuple[int, ...]]:
        """Return the launches of each class that are exchanges."""
        found = [exchanges(run.program) for run in self.runs]
        if len({len(x) for x in found}) > 1:
            raise AssertionError("ranks of a stage differ in their exchanges")
        return found

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Return which exchanges, by their order, go together: those that do so in every class."""
        keys: list[tuple[int, ...]] = [()] * len(self._ordinals[0])
        for run, numbers in zip(self.runs, self._ordinals, strict=True):
            met, limit = run.meetings(), run.parts.mesh.bucket
            if is_bucketed(met, limit):
                met = bucketed(met, waits(run.program, numbers), run.on, run.stage, limit)
            place = {i: m.launch for m in met for i in (*m.held, m.launch)}
            keys = [(*key, place[i]) for key, i in zip(keys, numbers, strict=True)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, key in enumerate(keys):
            groups.setdefault(key, []).append(number)
        return list(groups.values())

    def _meetings(self, number: int) -> list[Meeting]:
        """Return the exchanges of a class, by its own launches."""
        run = self.runs[number]
        each = run.meetings()
        return [together([each[i] for i in group], run.on, run.stage) for group in self._groups]

    @cached_property
    def _met(self) -> list[Meeting]:
        return self._meetings(0)

    def _timed(self, number: int, chip: Chip) -> _Timed:
        run, own = self.runs[number], self.classes[number]
        met = self._meetings(number)
        numbers = {i: m for m in met for i in (*m.held, m.launch)}
        each = [moving(x) if i in numbers else x for i, x in enumerate(untimed_costs(run.program, chip, {}))]
        track = replace(track_of(chip), name=own.name)
        return _Timed(run, each, report(run.program, chip, each=each), track, numbers)

    def _report(self, chip: Chip) -> tuple[Report, list[Report], list[float]]:
        """Return the report at a clock; those of the classes, and the seconds in which each works."""
        timed = [self._timed(i, chip) for i in range(len(self.runs))]
        links = Track(links_name(self.runs[0].parts, self.runs[0].stage), PICOSECONDS)
        spans = self._joined(timed, chip, links)
        took, flows = max(length(x) for x in spans), standing(chip)
        reports, works, layers = [], [], list[Layer]()
        for t, own in zip(timed, spans, strict=True):
            waited = float(took) - t.alone.seconds
            idle = Joules(*(getattr(flows, f.name) * waited for f in fields(flows)))
            reports.append(replace(t.alone, joules_by=t.alone.joules_by + idle))
            works.append(t.track.seconds(sum(x.ticks for x in own if x.track == t.track)))
            for layer in layers_among(t.alone, own, t.numbers):
                if layer.track != links:
                    layers.append(replace(layer, track=t.track))
                elif t is timed[0]:
                    layers.append(layer)
        most = max(range(len(reports)), key=lambda i: reports[i].joules)
        peak = reports[most].peak_macs
        whole = replace(
            reports[most],
            tracks=(*(t.track for t in timed), links),
            stretches=(Stretch(tuple(layers), took),),
            peak_macs=peak * float(took) / timed[most].alone.seconds if timed[most].alone.seconds else 0.0,
        )
        return whole, reports, works

    def _joined(self, timed: Sequence[_Timed], chip: Chip, links: Track) -> list[list[Span]]:
        """Return when each launch of each class runs, exchanges as all of them have come."""
        every = [jobs(t.run.program, chip, t.each, t.numbers) for t in timed]
        tasks: list[Task] = []
        place: list[dict[int, int]] = [{} for _ in timed]

        def launches(number: int, stop: int) -> None:
            for i in range(len(place[number]), stop):
                job = every[number][i]
                after = tuple(place[number][x] for x in job.after)
                place[number][i] = len(tasks)
                tasks.append(Task(timed[number].track, i, job.setup, job.ticks, after))

        for met in zip(*self._ordinals, strict=True):
            for number, launch in enumerate(met):
                launches(number, launch)
            after = sorted({place[c][x] for c, i in enumerate(met) for x in every[c][i].after})
            seconds = _seconds(every[0][met[0]])
            for number, launch in enumerate(met):
                place[number][launch] = len(tasks)
            tasks.append(Task(links, met[0], 0, round(seconds * links.clock_hz), tuple(after)))
        for number, own in enumerate(every):
            launches(number, len(own))
        spans = laid_out(tasks)
        return [[spans[place[c][i]] for i in range(len(own))] for c, own in enumerate(every)]


def _seconds(job: ChipJob) -> float:
    assert job.seconds is not None
    return max(job.seconds, 0.0)
