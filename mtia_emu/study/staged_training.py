"""A training step in stages on the chips of a system: compiled, timed, its memory counted, and executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mtia_emu.compiler.gradients.step import TrainingStep
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.piece_values import Arrays, stepped_through
from mtia_emu.compiler.partition.pieces import BACK, FORWARD, LAST, Piece, StepPieces, pieces_of
from mtia_emu.compiler.partition.ranks import run_alike
from mtia_emu.compiler.partition.staged import staged, weighed
from mtia_emu.compiler.partition.stages import PipelineStage
from mtia_emu.compiler.partition.step import split_step
from mtia_emu.compiler.pipeline import Compiled

from ..errors import UserError, refuse_unknown
from ..program.isa import Program
from ..results.report import Report
from ..results.training import PeakMemory, PipelineUse
from ..system.pipeline import ONE_F_ONE_B, SCHEDULES
from .accelerator import GraphModel
from .gpu_stage import gpu_stage
from .partition import Exchanges, Partition
from .peak_memory import peak_memory
from .rank_runs import Ranks
from .stage_time import StageRun, StageTime
from .step_memory import kind_of, stage_peaks
from .step_report import StepReport
from .step_turns import StepTurns, in_order
from .system_machine import CUTS_TRIED, SystemMachine

Compile = Callable[[Graph], Compiled]


def refuse_schedule(mesh: Mesh, batches: int) -> None:
    """Raise `UserError` for a schedule that there is not, and for micro-batches that it cannot deal out."""
    if mesh.schedule and mesh.schedule not in SCHEDULES:
        raise refuse_unknown("schedule of --parallel", mesh.schedule, SCHEDULES)
    count = mesh.sizes["pp"]
    if mesh.chunks > 1 and batches % count:
        raise UserError(
            f"--accumulate {batches}: interleaved stages (vp={mesh.chunks}) take micro-batches in groups of "
            f"pp={count} (right: --accumulate {-(-batches // count) * count})"
        )


def in_pieces(
    step: TrainingStep, mesh: Mesh, zero: int, weighs: Mapping[str, float] | None = None
) -> StepPieces:
    """Return a step in the stages of a mesh, split over its other axes. Raises `UserError` as both do."""
    refuse_schedule(mesh, step.recipe.accumulate)
    cut = staged(step, mesh.stages, weighs=weighs)
    split = split_step(cut.step, mesh, zero)
    return pieces_of(cut, split.split, split.stage.nodes)


def even(step: TrainingStep, first: StagedTraining, zero: int) -> StagedTraining:
    """Return the fastest of a few cuts of a step, by its slowest stage: each by the times before it."""
    best, least, now = first, 0.0, first
    for _ in range(CUTS_TRIED):
        took = now.seconds()
        if not least or max(took) < least:
            best, least = now, max(took)
        weighs = weighed(now.pieces.staged, took)
        now = replace(now, pieces=in_pieces(step, now.machine.mesh, zero, weighs), programs={})
    return best


@dataclass
class StagedTraining:
    """A step in pieces on a machine. `compiled` makes the program of a rank's graph, once for each piece."""

    pieces: StepPieces
    machine: SystemMachine
    compiled: Compile
    programs: dict[tuple[Piece, int], Compiled] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """Return the micro-batches of a step."""
        return self.pieces.staged.step.recipe.accumulate

    def program(self, piece: Piece, rank: int) -> Compiled:
        """Return what the graph of a rank compiles to; ranks of one graph share it."""
        if run_alike(self.pieces.split, self.pieces.nodes[piece]):
            rank = 0
        if (piece, rank) not in self.programs:
            self.programs[piece, rank] = self.compiled(self.pieces.graph(piece, rank))
        return self.programs[piece, rank]

    def seconds(self) -> list[float]:
        """Return what each stage takes for a micro-batch there and back."""
        parts, on = self._parts(), Exchanges(self.machine.system, self.machine.mesh)
        took = [0.0] * self.pieces.count
        for piece in self.pieces.nodes:
            if piece.kind in (FORWARD, BACK if self.batches > 1 else LAST):
                run = StageRun(parts, piece.stage, self.program(piece, 0).program, self.machine.chip, on)
                took[piece.stage] += run.time().report.seconds
        return took

    def timed(self, model: GraphModel) -> tuple[Report, PipelineUse]:
        """Return the report of a step, and what its pipeline came to; `model` says what it is called."""
        parts, on = self._parts(), Exchanges(self.machine.system, self.machine.mesh)
        times, held = dict[Piece, StageTime](), dict[Piece, PeakMemory]()
        for piece in self.pieces.nodes:
            made = self.program(piece, 0)
            times[piece] = StageRun(parts, piece.stage, made.program, self.machine.chip, on).time()
            held[piece] = peak_memory(made.schedule, lambda name: kind_of(self.pieces, name))
        turns = StepTurns(self.pieces, times, self.batches, on)
        joined = StepReport(self.machine, turns, stage_peaks(turns, held))
        return joined.report(model), self._use(joined)

    def beside(self, machine: SystemMachine, model: GraphModel) -> Report:
        """Return the report of the same step on a system of GPUs, split alike."""
        parts, on = self._parts(), Exchanges(machine.system, machine.mesh)
        times = {
            piece: gpu_stage(
                replace(model, graph=self.pieces.graph(piece, 0), fused=None), parts, piece.stage, on
            )
            for piece in self.pieces.nodes
        }
        return StepReport(machine, StepTurns(self.pieces, times, self.batches, on)).report(model)

    def execute(self, batches: Sequence[Arrays], kept: Arrays) -> tuple[Arrays, list[Arrays]]:
        """Return weights and states behind a step, and its further outputs by micro-batch."""
        ranks = Ranks(self.machine.mesh, self.machine.system, self.machine.chip)

        def run(piece: Piece, given: Sequence[Mapping[str, object]]) -> list[Arrays]:
            programs: list[Program] = [self.program(piece, r).program for r in range(len(given))]
            return ranks.run(piece.stage, self.pieces.nodes[piece], programs, given)  # type: ignore[arg-type]

        return stepped_through(self.pieces, in_order(self.pieces, self.batches), kept, batches, run)

    def _parts(self) -> Partition:
        """Return the stages by their number alone, as exchanges and names are of them."""
        return Partition(self.pieces.split, tuple(PipelineStage((), {}) for _ in range(self.pieces.count)))

    def _use(self, joined: StepReport) -> PipelineUse:
        mesh = self.machine.mesh
        return PipelineUse(
            mesh.schedule or ONE_F_ONE_B,
            mesh.sizes["pp"],
            mesh.chunks,
            self.batches,
            joined.busy_s,
            joined.idle_s,
            joined.peaks,
        )
