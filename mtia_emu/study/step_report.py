"""The report of a training step over the stages of a pipeline: all chips, all micro-batches, in one time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from mtia_emu.compiler.partition.pieces import BACK, FORWARD, LAST, UPDATE, Piece

from ..engine.energy import standing
from ..results.report import Joules, Layer, Report, Stretch
from ..results.spans import Track
from ..results.system_use import ExchangeUse, MemoryUse, StageUse, SystemUse
from ..results.training import StagePeak
from ..system.collectives import CollectiveTime
from ..system.join import PICOSECONDS
from .accelerator import GraphModel
from .stage_time import LINKS
from .step_turns import StepTurns, TimedPiece
from .system_machine import SystemMachine, around_all

WARM, NO_ROOM = "warm: ", "found no room in SRAM"  # in notes on a program by itself
SHARED_SRAM = "each program of a chip is timed as if SRAM were its own from one micro-batch to the next"


@dataclass(frozen=True)
class StepReport:
    """A step's programs in time, on a machine of many chips; `peaks` are the memory of each."""

    machine: SystemMachine
    turns: StepTurns
    peaks: tuple[StagePeak, ...] = ()

    @property
    def busy_s(self) -> float:
        """Return the seconds in which an average chip of the pipeline has something to run."""
        return float(sum(t.end - t.start for t in self.turns.turns)) / self.machine.mesh.sizes["pp"]

    @property
    def idle_s(self) -> float:
        """Return the seconds in which it waits for other stages."""
        return max(float(self.turns.took) - self.busy_s, 0.0)

    def report(self, model: GraphModel) -> Report:
        """Return the report of a step of a model: amounts of all chips, layers of one chip of each stage."""
        took, times = self.turns.took, self.turns.times
        counted = [(count, r) for t in self.turns.turns for count, r in times[t.piece].classes]
        first = times[self.turns.turns[0].piece].report
        rate = max(
            (t.report.peak_macs / t.report.seconds for t in times.values() if t.report.seconds), default=0.0
        )
        joules = Joules.sum([count * r.joules_by for count, r in counted]) + self._idle()
        layers = tuple(self._layers())
        tracks = tuple(dict.fromkeys(layer.track for layer in layers))
        return Report(
            model.model, self.machine.name, first.dtype, dict(model.dims), tracks,
            (Stretch(layers, took),), joules,
            type(first.traffic).sum([count * r.traffic for count, r in counted]),
            sum(count * r.macs for count, r in counted),
            rate * float(took) * self.machine.mesh.chips,
            self._notes(),
            seconds_band=first.seconds_band, around=around_all(first.around, self.machine.mesh.chips),
            system=self._use(),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        """Return the notes on the model; what single programs find in SRAM is left out."""
        every = dict.fromkeys(note for t in self.turns.times.values() for note in t.report.notes)
        notes = [note for note in every if not note.startswith(WARM) and NO_ROOM not in note]
        return tuple(notes) if self.machine.is_gpu else (*notes, SHARED_SRAM)

    def _idle(self) -> Joules:
        """Return the joules of chips that wait for other stages: what flows all the time."""
        if self.machine.is_gpu:
            return Joules()
        power, mesh = standing(self.machine.chip), self.machine.mesh
        idle = self.idle_s * mesh.sizes["pp"] * mesh.each
        return Joules(static=power.static * idle, clock=power.clock * idle, dram=power.dram * idle)

    def _layers(self) -> list[Layer]:
        """Return all layers in time, on the tracks of their stages, and what is sent."""
        out: list[Layer] = []
        for turn in self.turns.turns:
            for layer in self.turns.times[turn.piece].report.layers:
                out.append(replace(layer.later(turn.start, 0), track=self._track(layer.track, turn)))
        for one in self.turns.passes:
            send = self.turns.sends.get((one.of.stage, one.of.back))
            if send is not None:
                to = one.of.stage + (-1 if one.of.back else 1)
                name = f"stage {one.of.stage} to {to}"
                out.append(_sent(name, "send", send, one.sent, f"{LINKS} of stage {one.of.stage} to {to}"))
        exchange = self.turns.exchange
        if exchange is not None:
            begun = max(t.end for t in self.turns.turns if t.piece.kind != UPDATE)
            end = begun + Fraction(exchange.seconds)
            out.append(_sent("between stages", "all_to_all", exchange, end, f"{LINKS} between stages"))
        return out

    def _track(self, track: Track, turn: TimedPiece) -> Track:
        several = self.turns.pieces.count > 1
        return (
            replace(track, name=f"{track.name} of stage {turn.piece.stage}")
            if several and LINKS not in track.name
            else track
        )

    @cached_property
    def _uses(self) -> tuple[StageUse, ...]:
        """Return what a chip of each stage does with a micro-batch, forward and back."""
        times, found = self.turns.times, list[StageUse]()
        for stage in range(self.turns.pieces.count):
            kinds = [FORWARD, BACK if Piece(BACK, stage) in times else LAST]
            each = [times[Piece(k, stage)].uses[0] for k in kinds if Piece(k, stage) in times]
            whole = StageUse(
                each[0].name,
                each[0].chips,
                sum(u.seconds for u in each),
                sum(u.compute_s for u in each),
                sum(u.exchange_s for u in each),
                sum(u.exposed_s for u in each),
                self._memory(stage),
            )
            found.append(whole)
        return tuple(found)

    def _memory(self, stage: int) -> MemoryUse:
        chip = stage % self.machine.mesh.sizes["pp"]
        most = max(u.memory.buffers for p, t in self.turns.times.items() if p.stage == stage for u in t.uses)
        if not self.peaks:
            return MemoryUse(0, 0, 0, most, self.machine.capacity)
        m = self.peaks[chip].memory
        return MemoryUse(m.weights, m.optimizer, m.activations + m.gradients + m.data, most, m.capacity)

    def _use(self) -> SystemUse:
        mesh, system = self.machine.mesh, self.machine.system
        links = sum(self.turns.times[t.piece].link_joules for t in self.turns.turns)
        links += len(mesh.ranks) * sum(
            self.turns.sends[p.of.stage, p.of.back].joules
            for p in self.turns.passes
            if (p.of.stage, p.of.back) in self.turns.sends
        )
        if self.turns.exchange is not None:
            links += len(mesh.ranks) * self.turns.exchange.joules
        return SystemUse(
            system.name, str(mesh), mesh.chips, system.chips[0], self._uses, tuple(self._exchanges()),
            self.turns.batches, self.idle_s, links, system.host_w * mesh.chips / len(system.chips),
        )  # fmt: skip

    def _exchanges(self) -> list[ExchangeUse]:
        """Return the exchanges of a micro-batch, and those of the step under the program that has them."""
        found = []
        for piece, time in self.turns.times.items():
            name = {FORWARD: "forward", BACK: "back", LAST: "last back", UPDATE: "update"}[piece.kind]
            found += [replace(x, stage=f"{x.stage} {name}") for x in time.exchanges]
        return found


def _sent(name: str, op: str, took: CollectiveTime, end: Fraction, track: str) -> Layer:
    """Return the layer of something sent between stages."""
    on = Track(track, PICOSECONDS)
    last = on.ticks_in(end)
    begin = max(last - round(took.seconds * PICOSECONDS), 0)
    how = f"{took.algorithm}, {took.protocol}"
    return Layer(name, op, how, begin, last, 0, 0, 0, 0.0, LINKS, track=on)
