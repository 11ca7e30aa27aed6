"""Many chips as one machine: a model is split over them, each kind of program timed once, and all joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from mtia_emu.compiler.partition.mesh import Mesh

from ..engine.energy import standing
from ..errors import UserError
from ..gpu import load_gpu
from ..machine.chip import Chip, load_chip
from ..results.basis import Around
from ..results.machine import Computation
from ..results.report import Joules, Layer, Report, Stretch
from ..results.spans import Track
from ..results.system_use import StageUse, SystemUse
from ..reuse.memo import Memoise, unmemoised
from ..system.collectives import CollectiveTime
from ..system.join import PICOSECONDS, StageTurn, pipelined, waiting
from ..system.load import settings_of_chips
from ..system.topology import System
from ..zoo.models import MODELS
from .accelerator import Accelerator, GraphModel
from .gpu_stage import gpu_stage, slowest_stage
from .partition import Exchanges, Partition, balanced, partition
from .rank_classes import rank_classes, shards
from .stage_time import LINKS, StageRun, StageTime
from .table_places import UNIFORM, planned_places
from .uneven import UnevenStage

NO_TIME = Fraction(0)
SHARED_SRAM = "each of a chip's stages is timed as if SRAM were its own from one micro-batch to the next"
CUTS_TRIED = 4  # of a pipeline whose stages are to take equal times


@dataclass(frozen=True)
class SystemMachine:
    """A system on which a model runs split over a mesh: a chip's `Machine`, for many of them.

    `settings` change the chips' parameters, by dotted key; `changed` is a chip in place of the system's, of
    the same name; the system is one with the same changes (`changed_system`). Raises `UserError` for a mesh
    of more chips than the system has, and for one whose chips differ.
    """

    system: System
    mesh: Mesh
    settings: dict[str, object] = field(default_factory=dict)
    memoise: Memoise = unmemoised
    changed: Chip | None = None

    def __post_init__(self) -> None:
        have = len(self.system.chips)
        if self.mesh.chips > have:
            raise UserError(
                f"--parallel {self.mesh} takes {self.mesh.chips} chips, {self.system.name} has {have} "
                f"(right: at most {have})"
            )
        if self.changed is not None and self.changed.name != self.system.chips[0]:
            raise UserError(
                f"{self.system.name} is of {self.system.chips[0]}, the chip at hand is {self.changed.name} "
                f"(right: {self.system.chips[0]})"
            )
        kinds = sorted(set(self.system.chips[: self.mesh.chips]))
        if len(kinds) > 1:
            raise UserError(
                f"{self.system.name}: the first {self.mesh.chips} chips are {', '.join(kinds)} (right: a "
                "system whose chips are alike)"
            )

    @property
    def name(self) -> str:
        """Return the system's name and how it is used."""
        return f"{self.system.name} ({self.mesh})"

    @cached_property
    def chip(self) -> Chip:
        """Return the chip of every rank. Raises `UserError` where they are GPUs."""
        if self.is_gpu:
            raise UserError(f"{self.system.name} is of GPUs ({self.system.chips[0]}): they run no programs")
        return self.changed or load_chip(self.system.endpoints[0].source, settings_of_chips(self.settings))

    @cached_property
    def capacity(self) -> int:
        """Return the bytes of memory of a chip."""
        return int(load_gpu(self.system.chips[0]).dram_bytes) if self.is_gpu else self.chip.dram.bytes

    @property
    def is_gpu(self) -> bool:
        """Return whether the ranks are GPUs."""
        return self.system.endpoints[0].is_gpu

    def partition(self, model: GraphModel) -> Partition:
        """Return a model split over the mesh."""
        if not self.mesh.planned:
            return partition(model.graph, self.mesh)
        places = planned_places(model.graph, self.mesh, self.system, _skew(model))
        return partition(model.graph, self.mesh, places)

    def runs(self, model: GraphModel, parts: Partition) -> list[StageRun]:
        """Return the stages of a split model, the first rank's program of each compiled for the chip."""
        return [self._run(model, parts, stage, 0) for stage in range(len(parts.stages))]

    def _run(self, model: GraphModel, parts: Partition, stage: int, rank: int) -> StageRun:
        machine, on = Accelerator(self.chip, memoise=self.memoise), Exchanges(self.system, self.mesh)
        return StageRun(parts, stage, machine.program(_of_rank(model, parts, stage, rank)), self.chip, on)

    def report(self, work: Computation, /) -> Report:
        """Return the report of one run of a model over all chips of the mesh.

        Its amounts are of all chips together; its layers are those of one chip of each stage, a track each,
        and of the links. Raises `UserError` for what is no graph, and where it cannot be split.
        """
        if not isinstance(work, GraphModel):
            raise UserError(
                f"{self.name} cannot run {work.model}: a system splits a model's graph, not a program"
            )
        return self.timed(work, self.parts(work))

    def parts(self, model: GraphModel) -> Partition:
        """Return a model split over the mesh, its stages cut anew where they are to take equal times."""
        parts = self.partition(model)
        return parts if self.mesh.cut != "time" else self._balanced(model, parts)

    def _balanced(self, model: GraphModel, parts: Partition) -> Partition:
        """Return stages whose slowest is the fastest of a few cuts, each by the times of the one before."""
        best, least = parts, NO_TIME
        for _ in range(CUTS_TRIED):
            lengths = [stage.report.length for stage in self._stages(model, parts)]
            if not least or max(lengths) < least:
                best, least = parts, max(lengths)
            parts = balanced(parts, [float(length) for length in lengths])
        return best

    def timed(self, model: GraphModel, parts: Partition, runs: Sequence[StageRun] = ()) -> Report:
        """Return the report of a split model; `runs` are its stages, compiled, where they are known."""
        return _Joined(self, parts, self._stages(model, parts, runs)).report(model)

    def _stages(self, model: GraphModel, parts: Partition, runs: Sequence[StageRun] = ()) -> list[StageTime]:
        if runs:
            return [run.time() for run in runs]
        return [self._stage(model, parts, stage) for stage in range(len(parts.stages))]

    def _stage(self, model: GraphModel, parts: Partition, stage: int) -> StageTime:
        """Return the time of a stage: of one rank where all are alike, else of one of each class."""
        classes, on = rank_classes(parts, stage), Exchanges(self.system, self.mesh)
        if self.is_gpu:
            each = [gpu_stage(_of_rank(model, parts, stage, c.rank), parts, stage, on) for c in classes]
            return each[0] if len(each) == 1 else slowest_stage(classes, each)
        made = [self._run(model, parts, stage, c.rank) for c in classes]
        return made[0].time() if len(made) == 1 else UnevenStage(classes, made).time()


def _of_rank(model: GraphModel, parts: Partition, stage: int, rank: int) -> GraphModel:
    """Return the model of a rank of a stage."""
    return replace(model, graph=parts.graph(stage, rank), fused=None)


def _skew(model: GraphModel) -> str:
    """Return the law by which a model of the zoo asks for rows, else an even one."""
    return str(getattr(MODELS.get(model.model.removeprefix("zoo:")), "skew", UNIFORM))


@dataclass(frozen=True)
class _Joined:
    """Stages joined into one report."""

    machine: SystemMachine
    parts: Partition
    stages: Sequence[StageTime]

    @cached_property
    def sends(self) -> list[CollectiveTime]:
        """Return what each stage but the last takes to send a micro-batch on."""
        on, count = Exchanges(self.machine.system, self.machine.mesh), len(self.stages)
        return [on.send(s, self.parts.sent_bytes(s)) for s in range(count - 1)]

    @cached_property
    def turns(self) -> tuple[StageTurn, ...]:
        """Return when each stage runs each micro-batch."""
        lengths = [s.report.length for s in self.stages]
        sends = [*(Fraction(x.seconds) for x in self.sends), NO_TIME]
        return pipelined(lengths, sends, self.machine.mesh.batches, self.machine.mesh.chunks)

    def report(self, model: GraphModel) -> Report:
        """Return the report of all chips."""
        took = max(t.sent for t in self.turns)
        first, batches = self.stages[0].report, self.machine.mesh.batches
        counted = [(count * batches, r) for s in self.stages for count, r in s.classes]
        joules = Joules.sum([times * r.joules_by for times, r in counted]) + self._idle(took)
        traffic = [times * r.traffic for times, r in counted]
        macs = sum(times * r.macs for times, r in counted)
        rate = max(
            (s.report.peak_macs / s.report.seconds for s in self.stages if s.report.seconds), default=0.0
        )
        tracks, layers = self._layers()
        return Report(
            model.model, self.machine.name, first.dtype, dict(model.dims), tracks,
            (Stretch(layers, took),), joules, type(first.traffic).sum(traffic), macs,
            rate * float(took) * self.machine.mesh.chips, self._notes(),
            seconds_band=first.seconds_band, around=around_all(first.around, self.machine.mesh.chips),
            system=self._use(took),
        )  # fmt: skip

    def _idle(self, took: Fraction) -> Joules:
        """Return the joules of chips that wait for other stages: what flows all the time."""
        mesh = self.machine.mesh
        if self.machine.is_gpu:
            return Joules()
        power = standing(self.machine.chip)
        busy = sum(mesh.batches * s.report.length for s in self.stages)
        idle = mesh.each * float(mesh.sizes["pp"] * took - busy)
        return Joules(static=power.static * idle, clock=power.clock * idle, dram=power.dram * idle)

    def _layers(self) -> tuple[tuple[Track, ...], tuple[Layer, ...]]:
        """Return the tracks of stages and links, and their layers in time, micro-batch by micro-batch."""
        several = len(self.stages) > 1
        named: dict[tuple[int, Track], Track] = {}
        layers: list[Layer] = []
        for turn in self.turns:
            report = self.stages[turn.stage].report
            for track in report.tracks:
                own = f"{track.name} of stage {turn.stage}"
                plain = not several or LINKS in track.name
                named.setdefault((turn.stage, track), track if plain else replace(track, name=own))
            for layer in report.layers:
                track = named[turn.stage, layer.track]
                layers.append(replace(layer.later(turn.start, 0), track=track))
            if turn.stage < len(self.stages) - 1:
                layers.append(self._send(turn))
        tracks = dict.fromkeys([*named.values(), *(x.track for x in layers)])
        return tuple(tracks), tuple(layers)

    def _send(self, turn: StageTurn) -> Layer:
        """Return the layer of what a stage sends on."""
        track, sent = Track(f"{LINKS} after stage {turn.stage}", PICOSECONDS), self.sends[turn.stage]
        end = track.ticks_in(turn.sent)
        begin = max(end - round(sent.seconds * PICOSECONDS), 0)
        how = f"{sent.algorithm}, {sent.protocol}"
        return Layer(
            f"stage {turn.stage} to {turn.stage + 1}",
            "send",
            how,
            begin,
            end,
            0,
            0,
            0,
            0.0,
            LINKS,
            track=track,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = dict.fromkeys(
            note for s in self.stages for note in s.report.notes if "chips' share" not in note
        )
        lacking = [use for use in self.uses if use.memory.short]
        shared = (SHARED_SRAM,) if self.machine.mesh.chunks > 1 and not self.machine.is_gpu else ()
        return (*notes, *shared, *(_lacks(use, self.machine) for use in lacking[:1]))

    @cached_property
    def uses(self) -> tuple[StageUse, ...]:
        """Return what chips came to, with the memory of all stages that a chip has.

        Micro-batches that wait at a stage, but the one that it takes, are held in what it receives.
        """
        count, found = self.machine.mesh.sizes["pp"], list[StageUse]()
        waits = [
            (waiting(self.turns, s) - 1) * self.parts.sent_bytes(s - 1) if s else 0
            for s in range(len(self.stages))
        ]
        most = [[use.memory for use in stage.uses] for stage in self.stages]
        for number, stage in enumerate(self.stages):
            own = range(number % count, len(self.stages), count)
            others = [s for s in own if s != number]
            held = sum(waits[s] for s in own)
            for use in stage.uses:
                there = replace(
                    use.memory,
                    weights=use.memory.weights + sum(max(m.weights for m in most[s]) for s in others),
                    state=use.memory.state + sum(max(m.state for m in most[s]) for s in others),
                    buffers=use.memory.buffers + held,
                )
                found.append(replace(use, memory=there))
        return tuple(found)

    def _use(self, took: Fraction) -> SystemUse:
        mesh, system = self.machine.mesh, self.machine.system
        busy = sum(float(s.report.length) for s in self.stages) * mesh.batches / mesh.sizes["pp"]
        joules = mesh.batches * (
            sum(s.link_joules for s in self.stages) + len(mesh.ranks) * sum(x.joules for x in self.sends)
        )
        return SystemUse(
            system.name, str(mesh), mesh.chips, system.chips[0],
            self.uses,
            tuple(x for s in self.stages for x in s.exchanges), mesh.batches,
            max(float(took) - busy, 0.0), joules, system.host_w * mesh.chips / len(system.chips),
            shards(self.parts),
        )  # fmt: skip


def around_all(one: Around | None, chips: int) -> Around | None:
    """Return what stands around so many chips together."""
    if one is None:
        return None
    return replace(one, board_w=one.board_w * chips, server_w=one.server_w * chips)


def _lacks(use: StageUse, machine: SystemMachine) -> str:
    """Return the note on a chip that does not hold its share: by how much, and what would."""
    memory, chips = use.memory, machine.mesh.chips
    split = memory.weights + memory.state
    room = max(memory.capacity - memory.activations - memory.buffers, 1)
    need = -(-split * chips // room)
    return (
        f"does not fit: a chip of {use.name} needs {memory.needed / 1e9:.1f} GB and has "
        f"{memory.capacity / 1e9:.1f}, {memory.short / 1e9:.1f} too few; about {need} chips of that memory "
        f"hold it, or fewer bytes a weight (--dtype)"
    )
