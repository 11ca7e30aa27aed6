"""What collectives compute: the rounds of an algorithm, run over ranks' buffers in the order that it adds.

A result is the same bit for bit whenever the algorithm, the ranks and the buffers are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError, refuse_unknown
from .algorithms import ALGORITHMS, KINDS, Arrangement
from .schedule import SWITCH, CollectiveSchedule, Round

Array = np.ndarray


def collective(
    kind: str, buffers: Sequence[Array], algorithm: str = "ring", shape: Arrangement | None = None
) -> list[Array]:
    """Return what each rank has after a collective on one buffer a rank, all of one dtype.

    - all_reduce: buffers of one shape -> their sum, in each rank's.
    - reduce_scatter: buffers of one shape -> rank i has part i of their flat sum, by `numpy.array_split`.
    - all_gather: buffers of any shapes -> each rank has them all, flat, one after another.
    - all_to_all: see `all_to_all`; here each flat buffer is cut into a part a rank by `numpy.array_split`.
    - broadcast: rank 0's buffer in each; send: two ranks, the first one's buffer in both.

    Sums are made in the buffers' dtype, rounded after each addition in the algorithm's order; a switch adds
    floats in fp32 and rounds once. `shape` gives groups for "hierarchical". Raises `UserError` where the
    algorithm cannot do it, and for buffers that do not fit together.
    """
    if kind not in KINDS:
        raise refuse_unknown("collective", kind, KINDS)
    if not buffers:
        raise UserError(f"{kind} of no buffers; it takes one a rank")
    _check_alike(kind, buffers)
    flat = [np.ascontiguousarray(b).ravel() for b in buffers]
    if len(buffers) == 1:
        return [flat[0].reshape(buffers[0].shape).copy()] if kind in SHAPED else [flat[0].copy()]
    plan = schedule(kind, shape or Arrangement(len(buffers), switch=True), algorithm)
    return _FORMS[kind](flat, plan, buffers)


SHAPED = ("all_reduce", "broadcast", "send")


def schedule(kind: str, shape: Arrangement, algorithm: str) -> CollectiveSchedule:
    """Return an algorithm's schedule; raise `UserError` where it has none for the kind or the ranks."""
    if algorithm not in ALGORITHMS:
        raise refuse_unknown("algorithm", algorithm, ALGORITHMS)
    if kind == "send" and shape.ranks != 2:
        raise UserError(f"a send between {shape.ranks} ranks; it takes 2")
    found = ALGORITHMS[algorithm](kind, shape)
    if found is None:
        able = [name for name, make in ALGORITHMS.items() if make(kind, shape) is not None]
        raise UserError(
            f"'{algorithm}' does no {kind} between {shape.ranks} ranks here; right: {', '.join(able)}"
        )
    return found


def all_to_all(parts: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """Return what comes in: entry [j][i] is what rank i sent to rank j, `parts[i][j]`, of any shape."""
    if any(len(row) != len(parts) for row in parts):
        raise UserError(f"all_to_all: each of {len(parts)} ranks gives {len(parts)} parts, one to each")
    return [[np.array(row[j]) for row in parts] for j in range(len(parts))]


def _check_alike(kind: str, buffers: Sequence[Array]) -> None:
    kinds = {b.dtype for b in buffers}
    if len(kinds) > 1:
        raise UserError(f"{kind}: buffers of {', '.join(sorted(map(str, kinds)))}; all have one dtype")
    shapes = {b.shape for b in buffers}
    if kind in ("all_reduce", "reduce_scatter") and len(shapes) > 1:
        raise UserError(
            f"{kind}: buffers of shapes {', '.join(sorted(map(str, shapes)))}; all have one shape"
        )


def _all_reduce(flat: list[Array], plan: CollectiveSchedule, like: Sequence[Array]) -> list[Array]:
    memory = [np.array_split(x, plan.pieces) for x in flat]
    return [np.concatenate(x).reshape(like[0].shape) for x in _executed(memory, plan)]


def _reduce_scatter(flat: list[Array], plan: CollectiveSchedule, like: Sequence[Array]) -> list[Array]:
    memory = [np.array_split(x, plan.pieces) for x in flat]
    return [pieces[rank].copy() for rank, pieces in enumerate(_executed(memory, plan))]


def _all_gather(flat: list[Array], plan: CollectiveSchedule, like: Sequence[Array]) -> list[Array]:
    memory = [[x if i == rank else x[:0] for i in range(len(flat))] for rank, x in enumerate(flat)]
    return [np.concatenate(x) for x in _executed(memory, plan)]


def _all_to_all(flat: list[Array], plan: CollectiveSchedule, like: Sequence[Array]) -> list[Array]:
    n = len(flat)
    memory = []
    for rank, x in enumerate(flat):
        cut = np.array_split(x, n)
        memory.append([*cut, *(cut[rank] if i == rank else x[:0] for i in range(n))])
    return [np.concatenate(x[n:]) for x in _executed(memory, plan)]


def _spread(flat: list[Array], plan: CollectiveSchedule, like: Sequence[Array]) -> list[Array]:
    memory = [np.array_split(flat[0] if rank == 0 else flat[0][:0], plan.pieces) for rank in range(len(flat))]
    return [np.concatenate(x).reshape(like[0].shape) for x in _executed(memory, plan)]


_FORMS = {
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "all_gather": _all_gather,
    "all_to_all": _all_to_all,
    "broadcast": _spread,
    "send": _spread,
}


def _executed(memory: list[list[Array]], plan: CollectiveSchedule) -> list[list[Array]]:
    """Return ranks' pieces after all rounds; `memory` itself is changed."""
    switch: dict[int, Array] = {}
    for step in plan.rounds:
        _run(step, memory, switch)
    return memory


def _run(step: Round, memory: list[list[Array]], switch: dict[int, Array]) -> None:
    """Run one round: all that is sent is read before any of it arrives."""
    arriving: dict[tuple[int, int], list[tuple[int, Array]]] = {}
    columns = (step.source, step.target, step.at, step.to, step.pieces)
    for source, target, at, to, pieces in zip(*(c.tolist() for c in columns), strict=True):
        for k in range(pieces):
            sent = switch[at + k] if source == SWITCH else memory[source][at + k]
            arriving.setdefault((target, to + k), []).append((source, sent))
    if any(target == SWITCH for target, _ in arriving):
        switch.clear()
    for (target, piece), came in arriving.items():
        if not step.adds:
            value = came[-1][1]
        elif target == SWITCH:
            value = _in_switch([x for _, x in sorted(came, key=lambda pair: pair[0])])
        else:
            value = _sum(sorted([*came, (target, memory[target][piece])], key=lambda pair: pair[0]))
        if target == SWITCH:
            switch[piece] = value
        else:
            memory[target][piece] = value


def _sum(terms: list[tuple[int, Array]]) -> Array:
    """Return the sum of terms in their order, rounded to their dtype after each addition."""
    total = terms[0][1]
    for _, term in terms[1:]:
        total = (total + term).astype(term.dtype, copy=False)
    return total


def _in_switch(terms: list[Array]) -> Array:
    """Return the sum as a switch makes it: narrow floats in fp32, rounded once."""
    kind = terms[0].dtype
    wide = np.float32 if kind.itemsize < 4 and kind.kind not in "iub" else kind
    total = terms[0].astype(wide)
    for term in terms[1:]:
        total = total + term.astype(wide)
    return np.asarray(total.astype(kind))
