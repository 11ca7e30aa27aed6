"""Memory of the chips of a pipeline through a training step, by what it holds and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mtia_emu.compiler.partition.pieces import BACK, FORWARD, LAST, Piece, StepPieces

from ..results.training import PeakMemory, StagePeak
from ..system.pipeline import alive
from .step_turns import StepTurns


def kind_of(pieces: StepPieces, value: str) -> str:
    """Return what an input of a piece is: weights, optimizer, data, or what another piece gave."""
    if value in pieces.split.inputs:
        step = pieces.staged.step
        return step.kind_of(value)
    makers = {m.kind for received in pieces.received.values() for v, m in received.items() if v == value}
    return "activations" if makers == {FORWARD} else "gradients"


def stage_peaks(turns: StepTurns, held: Mapping[Piece, PeakMemory]) -> tuple[StagePeak, ...]:
    """Return the memory of each chip of a pipeline at its peak; `held` is that of each program by itself.

    To it come the weights and states of all of a chip's stages, and what these hold of other micro-batches.
    """
    chips = turns.on.mesh.sizes["pp"]
    found = []
    for chip in range(chips):
        own = range(chip, turns.pieces.count, chips)
        peak = max(_moments(turns, held, chip), key=lambda m: m.total)
        name = f"stage {chip}" if len(own) == 1 else f"stages {', '.join(map(str, own))}"
        kept = max(_kept(turns, chip))
        found.append(StagePeak(name, alive(turns.passes, own), kept, peak))
    return tuple(found)


def _kept(turns: StepTurns, chip: int) -> Iterator[int]:
    """Yield the bytes that a chip keeps for the way back in each of its turns."""
    kept = 0
    for turn in turns.of_chip(chip):
        size = turns.pieces.bytes_of(turns.pieces.held(turn.piece.stage))
        kept += size if turn.piece.kind == FORWARD else 0
        yield kept
        kept -= size if turn.piece.kind in (BACK, LAST) else 0


def _moments(turns: StepTurns, held: Mapping[Piece, PeakMemory], chip: int) -> Iterator[PeakMemory]:
    """Yield what a chip holds at most in each of its turns."""
    pieces = turns.pieces
    own = [stage for stage in range(pieces.count) if stage % turns.on.mesh.sizes["pp"] == chip]
    weights, optimizer = (sum(_resident(pieces, s, kind) for s in own) for kind in ("weights", "optimizer"))
    size = {stage: pieces.bytes_of(pieces.held(stage)) for stage in own}
    waiting = dict.fromkeys(own, 0)  # micro-batches between their passes forward and back
    for turn in turns.of_chip(chip):
        piece = turn.piece
        if piece.kind in (BACK, LAST) and pieces.count > 1:
            waiting[piece.stage] -= 1
        peak = held[piece]
        others = sum(count * size[stage] for stage, count in waiting.items())
        yield PeakMemory(
            max(weights, peak.weights),
            max(optimizer, peak.optimizer),
            peak.gradients,
            peak.activations + others,
            peak.data,
            peak.capacity,
        )
        if piece.kind == FORWARD:
            waiting[piece.stage] += 1


def _resident(pieces: StepPieces, stage: int, kind: str) -> int:
    """Return the bytes of weights, or of what the optimiser keeps, that a stage's programs read."""
    split = pieces.split
    names = {
        v
        for piece, nodes in pieces.nodes.items()
        if piece.stage == stage
        for node in nodes
        for v in node.inputs
        if v in split.inputs and kind_of(pieces, v) == kind
    }
    return pieces.bytes_of(names)
