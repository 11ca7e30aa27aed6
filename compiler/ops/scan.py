"""A loop over steps whose states go from one step to the next: recurrent layers, selective scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.errors import UserError
from mtia_emu.types import DType, ScanWork, TensorType, dtype_of

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, broadcast, integer, need, register
from .matmul import product

STEPS = 4096
MOST_STATES = 8


@dataclass(frozen=True)
class ScanBody:
    """What a step does: a tape for each state, and which operands of the node its inputs are.

    Operands of the node are the `states` at the start, all of one type; with `product` the weight [h, g*h]
    that the last state [.., h] is multiplied by; `scanned` tensors, of which step t reads element t of axis
    0; and what every step reads. Inputs of a tape are the states, g pieces [.., h] of the product, the
    scanned elements and the rest, in that order. Tapes run in order: each sees the new values of the states
    before its own. A product is not rounded before they read it.
    """

    states: int
    product: bool
    scanned: int
    tapes: tuple[Tape, ...]

    @staticmethod
    def of(attrs: Attrs) -> ScanBody:
        """Return the body that the attributes of a node spell."""
        given = attrs["tapes"]
        if not isinstance(given, tuple) or not 1 <= len(given) <= MOST_STATES:
            raise UserError(f"a scan has a tape for each state, 1 to {MOST_STATES}, not {given!r:.80}")
        tapes = tuple(parse(str(tape)) for tape in given)
        return ScanBody(len(tapes), bool(attrs.get("product", False)), integer(attrs, "scanned"), tapes)

    @property
    def first_scanned(self) -> int:
        """Return the place of the first scanned operand."""
        return self.states + self.product

    @property
    def first_kept(self) -> int:
        """Return the place of the first operand that every step reads whole."""
        return self.first_scanned + self.scanned


def gates(body: ScanBody, types: Types) -> int:
    """Return in how many pieces, each as wide as a state, the product of a step is read."""
    return need(types[body.states]).shape[1] // need(types[0]).shape[-1] if body.product else 0


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    body = ScanBody.of(attrs)
    if not 0 < body.scanned <= len(types) - body.first_scanned or any(t is None for t in types):
        raise UserError(f"scan of {body.states} states and {body.scanned} scanned operands has {len(types)}")
    state = need(types[0])
    scanned = [need(t) for t in types[body.first_scanned : body.first_kept]]
    lengths = {t.shape[0] if t.rank else 0 for t in scanned}
    if len(lengths) != 1 or not 0 < min(lengths) <= STEPS:
        raise UserError(f"a scan over {sorted(lengths)} steps (right: one length for all, 1 to {STEPS})")
    if any(need(t) != state for t in types[: body.states]):
        raise UserError(f"states of a scan are of one type: {', '.join(map(str, types[: body.states]))}")
    if body.product:
        _check_weight(state, need(types[body.states]))
    kept = [need(t).shape for t in types[body.first_kept :]]
    met = [state.shape, *(t.shape[1:] for t in scanned), *kept]
    if broadcast(met) != state.shape:
        raise UserError(f"an operand of a scan does not broadcast to its state {state}")
    inputs = body.states + gates(body, types) + body.scanned + len(kept)
    for tape in body.tapes:
        if tape.inputs != inputs or len(tape.results) != 1 or tape.row_wise:
            raise UserError(
                f"a tape of this scan takes {inputs} operands and gives one, without folds: {tape}"
            )
    stacked = TensorType(state.dtype, (lengths.pop(), *state.shape))
    return (stacked, *([state] * (body.states - 1)))


def _check_weight(state: TensorType, weight: TensorType) -> None:
    fits = state.rank >= 2 and weight.rank == 2 and weight.shape[0] == state.shape[-1]
    if not fits or not weight.shape[1] or weight.shape[1] % state.shape[-1]:
        raise UserError(f"a scan multiplies a state {state} by [h, g*h], not by {weight}")
    if weight.dtype != state.dtype:
        raise UserError(f"state and weight differ in dtype: {state} and {weight}")


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    body, values = ScanBody.of(attrs), [array(x) for x in arrays]
    states, kind = values[: body.states], dtype_of(values[0])
    shown = []
    for t in range(len(values[body.first_scanned])):
        states = _step(body, states, values, t, kind)
        shown.append(states[-1])
    return (np.stack(shown), *states[:-1])


def _step(body: ScanBody, states: list[Array], values: list[Array], t: int, kind: DType) -> list[Array]:
    """Return the states after step t."""
    pieces: Sequence[Array] = ()
    if body.product:
        whole = product(states[-1], values[body.states])
        pieces = np.split(whole, whole.shape[-1] // states[-1].shape[-1], axis=-1)
    slices = [x[t] for x in values[body.first_scanned : body.first_kept]]
    rest, new = [*pieces, *slices, *values[body.first_kept :]], list(states)
    for index, tape in enumerate(body.tapes):
        (out,) = tape.evaluate([*new, *rest], [kind])
        new[index] = np.broadcast_to(out, states[index].shape).copy()
    return new


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    body, stacked, state = ScanBody.of(attrs), results[0], need(types[0])
    weight = need(types[body.states]) if body.product else None
    sizes = {
        "steps": stacked.shape[0],
        "rows": state.size // max(1, state.shape[-1]) if weight else state.size,
        "k": weight.shape[0] if weight else 0,
        "n": weight.shape[1] if weight else 0,
        "depth": sum(len(tape.steps) for tape in body.tapes),
    }
    return Count(ScanWork, sizes, stacked.size * sizes["depth"])


register(
    Op(
        "scan",
        "states that go through steps: of each step's product, slices of tensors and the states before it",
        (2, 64),
        _infer,
        _reference,
        _count,
        ("scanned", "tapes"),
        ("product",),
    )
)

no_gradient("it keeps the states of its last step only (right: a loop of known length, unrolled)", "scan")
