"""Values of a step in pieces: what each rank keeps, and what passes from piece to piece of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .lockstep import stepped
from .pieces import UPDATE, Piece, StepPieces
from .ranks import joined, part_of

Arrays = dict[str, np.ndarray]
Run = Callable[
    [Piece, Sequence[Arrays]], Sequence[Arrays]
]  # the outputs of each rank of a piece, from inputs


@dataclass(frozen=True)
class PieceTurn:
    """A piece with a micro-batch."""

    piece: Piece
    batch: int


def stepped_through(
    pieces: StepPieces,
    turns: Iterable[PieceTurn],
    kept: Mapping[str, np.ndarray],
    batches: Sequence[Mapping[str, np.ndarray]],
    run: Run,
) -> tuple[Arrays, list[Arrays]]:
    """Return weights and states, by input name, behind a step, and the further outputs of each micro-batch.

    All of `kept` and of `batches` is whole; pieces take `turns`, those of the update follow. A piece sees
    what it is given by others alone, and what nobody behind it reads is dropped.
    """
    split, mesh, count = pieces.split, pieces.split.mesh, len(batches)
    own = [_parts(pieces, kept, place) for place in mesh.ranks]
    flow = [[_parts(pieces, batch, place) for place in mesh.ranks] for batch in batches]
    states = {local: split.graph.states.get(name) for name, (local, _) in split.outputs.items()}
    for turn in (*turns, *(PieceTurn(p, count - 1) for p in pieces.nodes if p.kind == UPDATE)):
        names = list(pieces.graph(turn.piece, 0).inputs)
        held = flow[turn.batch]
        made = run(
            turn.piece, [{n: (o if n in o else h)[n] for n in names} for o, h in zip(own, held, strict=True)]
        )
        after = pieces.graph(turn.piece, 0).states
        for rank, values in enumerate(made):
            for name, value in values.items():
                old = after.get(name) or states.get(name)
                (held[rank] if old is None else own[rank])[old or name] = value
    changed = {old: split.outputs[name][1] for name, old in split.graph.states.items()}
    whole = {old: joined({r: x[old] for r, x in enumerate(own)}, y, mesh) for old, y in changed.items()}
    more = {name: out for name, out in split.outputs.items() if name not in split.graph.states}
    return whole, [
        {
            name: joined({r: values[local] for r, values in enumerate(held)}, layout, mesh)
            for name, (local, layout) in more.items()
            if local in held[0]
        }
        for held in flow
    ]


def _parts(pieces: StepPieces, whole: Mapping[str, np.ndarray], place: Mapping[str, int]) -> Arrays:
    """Return a rank's parts of inputs."""
    split = pieces.split
    return {
        name: part_of(np.asarray(array), split.inputs[name], place, split.mesh)
        for name, array in whole.items()
        if name in split.inputs
    }


def by_references(pieces: StepPieces) -> Run:
    """Return what runs pieces by the references of ops, all ranks node by node."""

    def run(piece: Piece, given: Sequence[Arrays]) -> list[Arrays]:
        graphs = [pieces.graph(piece, rank) for rank in range(len(given))]
        values = stepped(pieces.split, graphs, given)
        return [{name: made[name] for name in g.outputs} for g, made in zip(graphs, values, strict=True)]

    return run
