"""How a loop over states is scheduled: kernel calls of each step, all of one launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, part_of

from mtia_emu.types import FP32, DType, TensorType

from ...graph import Node
from ...ops.scan import ScanBody, gates
from ..steps import Schedule
from ..views import View
from .products import UNFIT


def scan(schedule: Schedule, node: Node) -> list[View]:
    """Schedule each step of a loop: its product, then the tape of each state; one core where none fits."""
    kinds = [schedule.values[v].type for v in node.inputs]
    body = ScanBody.of(node.attrs)
    if any(kind.dtype.name in UNFIT and kind.dtype.name != "bool" for kind in kinds):
        return schedule.on_core(node)
    if body.states == 1 and not body.product:
        return _columns(schedule, node, body)
    return _Loop(schedule, node, body, gates(body, kinds)).run()


def _columns(schedule: Schedule, node: Node, body: ScanBody) -> list[View]:
    """Schedule a loop whose elements go their own ways as one kernel call, on rows of all elements."""
    steps, *shape = node.type.shape
    width = math.prod(shape)
    views = []
    for index, view in enumerate(schedule.operands(node)):
        moves = body.first_scanned <= index < body.first_kept
        whole = _spread(view, tuple(shape)) if moves else view.expand(shape)
        flat = whole.reshape((steps if moves else 1, width))
        views.append(flat or schedule.packed(node, whole).reshape((steps if moves else 1, width)))
    out = schedule.result(node)
    schedule.step(node, "scan", views, [out.reshape((steps, width))], tape=str(body.tapes[0]))
    return [out]


def _spread(view: View, shape: tuple[int, ...]) -> View:
    """Return a scanned operand whose elements of the first axis are broadcast to a shape."""
    (steps, *rest), (stride, *strides) = view.shape, view.strides
    extra = len(shape) - len(rest)
    wide = View(
        view.buffer, view.dtype, (steps, *(1,) * extra, *rest), (stride, *(0,) * extra, *strides), view.offset
    )
    return wide.expand((steps, *shape))


@dataclass(frozen=True)
class _Loop:
    schedule: Schedule
    node: Node
    body: ScanBody
    gates: int

    def run(self) -> list[View]:
        """Schedule all steps; return where the stacked states lie, and the last ones of the others."""
        schedule, node, body = self.schedule, self.node, self.body
        operands = schedule.operands(node)
        kept = [self._near(view) for view in operands[body.first_kept :]]
        results = [schedule.result(node, i) for i in range(len(node.outputs))]
        states, shape = operands[: body.states], node.types[0].shape[1:]
        scanned = operands[body.first_scanned : body.first_kept]
        kind = node.type.dtype
        spare = [[self._buffer(f"state{i}", shape, kind) for _ in range(2)] for i in range(body.states - 1)]
        pieces = self._buffer("product", (*shape[:-1], self.gates * shape[-1]), FP32) if self.gates else None
        steps = node.types[0].shape[0]
        for t in range(steps):
            into = [r if t == steps - 1 else s[t % 2] for r, s in zip(results[1:], spare, strict=True)]
            into.append(_element(results[0], t))
            self._product(states[-1], operands, pieces)
            rest = [*self._pieces(pieces), *(_element(x, t) for x in scanned), *kept]
            states = self._tapes(states, rest, into)
        return results

    def _near(self, view: View) -> View:
        """Return a constant that every step reads as a temporary, which may lie in SRAM."""
        if self.schedule.buffers[view.buffer].role != "const" or self.node.types[0].shape[0] == 1:
            return view
        near = self._buffer("kept", view.shape, view.dtype)
        self.schedule.step(self.node, "copy", [view], [near])
        return near

    def _buffer(self, what: str, shape: tuple[int, ...], kind: DType) -> View:
        return self.schedule.buffer(f"{self.node.name}.{what}", TensorType(kind, shape))

    def _product(self, state: View, operands: Sequence[View], into: View | None) -> None:
        """Multiply the last state with the weight, where there is one."""
        if into is None:
            return
        weight, k = operands[self.body.states], state.shape[-1]
        m, n = state.type.size // k, weight.shape[1]
        flat, target = state.reshape((m, k)), into.reshape((m, n))
        if flat is None:
            flat = self.schedule.packed(self.node, state).reshape((m, k))
        assert flat is not None and target is not None
        params = {"batch": 1, "m": m, "k": k, "n": n, "epilogue": ""}
        self.schedule.step(self.node, "matmul", [flat, weight], [target], **params)

    def _pieces(self, product: View | None) -> list[View]:
        """Return the parts of a product, each as wide as a state."""
        if product is None:
            return []
        *lead, width = product.shape
        size = width // self.gates
        starts = ([0] * len(lead) + [at * size] for at in range(self.gates))
        return [product.slice(start, (*lead, size), [1] * (len(lead) + 1)) for start in starts]

    def _tapes(self, states: Sequence[View], rest: Sequence[View], into: Sequence[View]) -> list[View]:
        """Run the tapes of all states as one kernel call; return the new states."""
        views = [*states, *rest]
        read = [views[int(i)].expand(into[0].shape) for i in self.joined[1]]
        self.schedule.step(self.node, "map", read, into, tape=str(self.joined[0]))
        return list(into)

    @cached_property
    def joined(self) -> tuple[Tape, list[Source]]:
        """Return the tapes of all states as one, and which inputs it reads."""
        whole = joined_tapes(self.body.tapes)
        return part_of(whole, whole.results, range(whole.inputs))


def joined_tapes(tapes: Sequence[Tape]) -> Tape:
    """Return tapes of the states as one, with a result for each: a tape reads what those before it gave."""
    steps: list[TapeStep] = []
    results: list[Source] = []
    for tape in tapes:
        base = len(steps)

        def placed(source: Source, base: int = base) -> Source:
            if isinstance(source, float):
                return source
            if source < 0:
                return source - base
            return results[source] if source < len(results) else source

        made = [replace(s, sources=tuple(map(placed, s.sources))) for s in tape.steps]
        steps += made
        results.append(placed(tape.results[0]))
    return Tape(tapes[0].inputs, tuple(steps), tuple(results))


def _element(view: View, at: int) -> View:
    """Return one element along the first axis, which goes."""
    part = view.slice([at, *([0] * (len(view.shape) - 1))], (1, *view.shape[1:]), [1] * len(view.shape))
    return View(part.buffer, part.dtype, part.shape[1:], part.strides[1:], part.offset)
