"""In which order the programs of a training step run on the chips of a pipeline, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.piece_values import PieceTurn
from mtia_emu.compiler.partition.pieces import BACK, FORWARD, LAST, UPDATE, Piece, StepPieces

from ..system.collectives import CollectiveTime
from ..system.pipeline import ONE_F_ONE_B, PassTurn, PipelinePass, passes, timed_passes
from .partition import Exchanges
from .stage_time import StageTime

NOW = Fraction(0)


def orders(mesh: Mesh, batches: int) -> list[tuple[PipelinePass, ...]]:
    """Return the passes of each chip of a mesh's pipeline, in their order."""
    count, schedule = mesh.sizes["pp"], mesh.schedule or ONE_F_ONE_B
    return [passes(schedule, chip, count, batches, mesh.chunks) for chip in range(count)]


def piece_of(one: PipelinePass, pieces: StepPieces, batches: int) -> Piece | None:
    """Return the program of a pass; None of one forward that is part of the one back."""
    if not one.back:
        return Piece(FORWARD, one.stage) if pieces.count > 1 else None
    return Piece(LAST if one.batch == batches - 1 else BACK, one.stage)


def in_order(pieces: StepPieces, batches: int) -> list[PieceTurn]:
    """Return the programs of a step in an order in which they can run, that of its schedule."""
    even = timed_passes(orders(pieces.split.mesh, batches), lambda _: Fraction(1), lambda _: NOW)
    each = [(piece_of(turn.of, pieces, batches), turn.of.batch) for turn in even]
    return [PieceTurn(piece, batch) for piece, batch in each if piece is not None]


@dataclass(frozen=True)
class TimedPiece:
    """When a program runs, in seconds."""

    piece: Piece
    batch: int
    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class StepTurns:
    """The programs of a step in time: `times` of each on a chip, `batches` micro-batches, on a system."""

    pieces: StepPieces
    times: Mapping[Piece, StageTime]
    batches: int
    on: Exchanges

    @cached_property
    def sends(self) -> dict[tuple[int, bool], CollectiveTime]:
        """Return what a micro-batch takes from a stage to the next one, and back: by (stage, back)."""
        found = {}
        for stage in range(self.pieces.count):
            for back, to in ((False, stage + 1), (True, stage - 1)):
                if 0 <= to < self.pieces.count:
                    size = self.pieces.bytes_of(self.pieces.sent(stage, back=back))
                    found[stage, back] = self.on.send(stage, size, to)
        return found

    @cached_property
    def passes(self) -> tuple[PassTurn, ...]:
        """Return the turns of passes, forward and back."""
        return timed_passes(orders(self.on.mesh, self.batches), self._length, self._sent)

    @cached_property
    def exchange(self) -> CollectiveTime | None:
        """Return what stages give one another for the update; None where they give nothing."""
        sizes = {ends: self.pieces.bytes_of(v) for ends, v in self.pieces.exchanged().items()}
        return self.on.between(sizes)

    @cached_property
    def turns(self) -> tuple[TimedPiece, ...]:
        """Return all programs in time; those of the update begin when all that stages exchange is there."""
        out = []
        for turn in self.passes:
            piece = piece_of(turn.of, self.pieces, self.batches)
            if piece is not None:
                out.append(TimedPiece(piece, turn.of.batch, turn.start, turn.end))
        begin = max(t.end for t in out) + (NOW if self.exchange is None else Fraction(self.exchange.seconds))
        free: dict[int, Fraction] = {}
        for piece in sorted(p for p in self.times if p.kind == UPDATE):
            chip = self.chip_of(piece)
            start = free.get(chip, begin)
            free[chip] = start + self.times[piece].report.length
            out.append(TimedPiece(piece, self.batches - 1, start, free[chip]))
        return tuple(out)

    @property
    def took(self) -> Fraction:
        """Return the seconds of the step."""
        return max(turn.end for turn in self.turns)

    def chip_of(self, piece: Piece) -> int:
        """Return the number of the chip in the pipeline that runs a piece."""
        return piece.stage % self.on.mesh.sizes["pp"]

    def of_chip(self, chip: int) -> Sequence[TimedPiece]:
        """Return the turns of a chip of the pipeline, by their starts."""
        return sorted(
            (t for t in self.turns if self.chip_of(t.piece) == chip), key=lambda t: (t.start, t.end)
        )

    def _length(self, one: PipelinePass) -> Fraction:
        piece = piece_of(one, self.pieces, self.batches)
        return NOW if piece is None else self.times[piece].report.length

    def _sent(self, one: PipelinePass) -> Fraction:
        return Fraction(self.sends[one.stage, one.back].seconds)
