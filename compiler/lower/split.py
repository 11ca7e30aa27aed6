"""Steps that are too large for a block as several, each of which computes a part of the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any

from mtia_emu.kernels.builder import TooLarge, at_most, round_up

from mtia_emu.program.isa import MOST_COMMANDS

from .steps import Schedule, Step
from .views import View

SMALL_MACS, SMALL_ELEMENTS = 1 << 34, 1 << 26  # blocks of so little work have few commands
LARGE_MACS = 1 << 39  # blocks of so much have more commands than is worth while
CUT_COMMANDS = 1 << 21  # of a block, where it can be cut: parts of one size share one, which is soon timed
MOST_PARTS = 1 << 12  # of a step
TILE = 64  # parts are whole tiles where they can be
Params = dict[str, Any]


def split(plan: Schedule, make: Callable[[Step], object]) -> Schedule:
    """Return the schedule with steps cut in two until what `make` makes of each has not too many commands.

    Steps beside one that is cut run one after another, as its parts do. Raises what `make` raises for a step
    that cannot be cut.
    """
    parts = {i: _parts(step, make) for i, step in enumerate(plan.steps) if _may_be_large(step)}
    if all(len(each) == 1 for each in parts.values()):
        return plan
    steps: list[Step] = []
    moments: list[int] = []
    for _, group in groupby(enumerate(plan.moments or range(len(plan.steps))), lambda x: x[1]):
        numbers = [i for i, _ in group]
        made = [part for i in numbers for part in parts.get(i, [plan.steps[i]])]
        first = moments[-1] + 1 if moments else 0
        together = len(made) == len(numbers)
        moments += [first if together else first + i for i in range(len(made))]
        steps += made
    return replace(plan, steps=steps, moments=moments if plan.moments else [])


def _parts(step: Step, make: Callable[[Step], object]) -> list[Step]:
    parts = list(islice(_fitting(step, make, set()), MOST_PARTS + 1))
    if len(parts) > MOST_PARTS:
        raise TooLarge(
            f"{step.kernel}: takes more than {MOST_PARTS} launches, a block has at most {MOST_COMMANDS} "
            "commands; make the problem smaller (a smaller batch, say)"
        )
    return parts


def _fitting(step: Step, make: Callable[[Step], object], large: set[Any]) -> Iterator[Step]:
    """Yield parts of a step for which blocks of few commands do; `large` has the forms of other steps."""
    form = (step.params, *((v.shape, v.strides) for v in (*step.inputs, *step.outputs)))
    parts = halves(step) if form in large or _macs(step) > LARGE_MACS else []
    if not parts:
        try:
            with at_most(CUT_COMMANDS):
                make(step)
        except TooLarge:
            large.add(form)
            parts = halves(step)
            if not parts:
                make(step)
    for part in parts:
        yield from _fitting(part, make, large)
    if not parts:
        yield step


def _may_be_large(step: Step) -> bool:
    """Return whether a step multiplies or moves so much that a block of it may have many commands."""
    sizes = [v.type.size for v in (*_gone_over(step), *step.outputs)]
    return _macs(step) > SMALL_MACS or max(sizes, default=0) > SMALL_ELEMENTS


def _macs(step: Step) -> int:
    """Return about how many multiply-adds a step takes; 0 for what is no product."""
    p = dict(step.params)
    if step.kernel == "attention":
        return int(p["problem"].groups * p["problem"].heads * p["problem"].queries * p["problem"].keys)
    return p.get("batch", 1) * p["m"] * p["k"] * p["n"] if {"m", "k", "n"} <= set(p) else 0


def _gone_over(step: Step) -> Sequence[View]:
    """Return the operands of which a step reads all: not the tables that it looks rows up in."""
    if step.kernel not in ("embedding_bag", "gather"):
        return step.inputs
    each = len(step.inputs) // len(step.outputs)
    return [v for i, v in enumerate(step.inputs) if i % each]


def halves(step: Step) -> list[Step]:
    """Return two steps that do what one does, each some part of the results; [] for what cannot be cut."""
    cut = _CUTS.get(step.kernel)
    return cut(step) if cut is not None else []


def _bounds(size: int) -> list[tuple[int, int]]:
    """Return (start, count) of two parts of a dimension."""
    first = round_up(-(-size // 2), TILE)
    first = first if first < size else -(-size // 2)
    return [(0, first), (first, size - first)]


def _part(view: View, dim: int, start: int, count: int) -> View:
    """Return a part of a view along a dimension; what is broadcast along it stays whole."""
    if view.shape[dim] == 1:
        return view
    dim %= len(view.shape)
    starts = [start if i == dim else 0 for i in range(len(view.shape))]
    shape = [count if i == dim else n for i, n in enumerate(view.shape)]
    return view.slice(starts, shape, [1] * len(shape))


def _rows(view: View, total: int, start: int, count: int) -> View | None:
    """Return some of `total` rows of an operand, all of what has one row; None where that is no view."""
    if math.prod(view.shape[:-1]) != total or total == 1:
        return view
    dim = next(i for i, n in enumerate(view.shape) if n > 1)
    inner = total // view.shape[dim]
    if start % inner or count % inner:
        return None
    return _part(view, dim, start // inner, count // inner)


def _made(
    step: Step, inputs: Sequence[View | None], outputs: Sequence[View | None], **changes: Any
) -> Step | None:
    """Return a step on parts of the operands; None where there is no view of one."""
    read, written = (tuple(v for v in views if v is not None) for views in (inputs, outputs))
    if len(read) + len(written) < len(inputs) + len(outputs):
        return None
    params = tuple(sorted((dict(step.params) | changes).items()))
    return replace(step, inputs=read, outputs=written, params=params)


def _both(parts: Sequence[Step | None]) -> list[Step]:
    return [p for p in parts if p is not None] if None not in parts else []


def _elementwise(step: Step) -> list[Step]:
    """Cut the longest dimension; of what folds rows not the last."""
    shape = step.outputs[0].shape
    open_dims = range(len(shape) - (step.kernel == "row"))
    dim = max(open_dims, key=lambda i: shape[i], default=0)
    if not open_dims or shape[dim] < 2:
        return []
    return _both(
        [
            _made(step, *([_part(v, dim, *at) for v in views] for views in (step.inputs, step.outputs)))
            for at in _bounds(shape[dim])
        ]
    )


def _product(step: Step) -> list[Step]:
    """Cut the batch, else the longer side of the result."""
    p: Params = dict(step.params)
    rights = 1 if step.kernel == "matmul" else 2 + bool(p["zeros"])  # b; codes, scales, zero points
    a, b, *rest = step.inputs
    edges, rights_behind = (rest, []) if rights == 1 else (rest[: -(rights - 1)], rest[-(rights - 1) :])
    (out,), batch = step.outputs, p.get("batch", 1)
    if batch > 1:
        return _batches(step, p, a, b, edges)
    if p["m"] >= p["n"] and p["m"] > 1:
        made = []
        for at in _bounds(p["m"]):
            cut = [_part(a, -2, *at), b, *(_rows(e, p["m"], *at) for e in edges), *rights_behind]
            made.append(_made(step, cut, [_rows(out, p["m"], *at)], m=at[1]))
        return _both(made)
    if p["n"] < 2:
        return []
    made = []
    for at in _bounds(p["n"]):
        cut = [a, *(_part(v, -1, *at) for v in (b, *edges, *rights_behind))]
        made.append(_made(step, cut, [_part(out, -1, *at)], n=at[1]))
    return _both(made)


def _batches(step: Step, p: Params, a: View, b: View, edges: Sequence[View]) -> list[Step]:
    (out,), dim = step.outputs, next(i for i, n in enumerate(a.shape) if n > 1)
    rows = p["batch"] * p["m"]
    each, made = rows // a.shape[dim], []
    half = -(-a.shape[dim] // 2)
    for start, count in ((0, half), (half, a.shape[dim] - half)):
        at = (start * each, count * each)
        factors = [_part(v, dim, start, count) for v in (a, b)]
        cut = [*factors, *(_rows(e, rows, *at) for e in edges)]
        made.append(_made(step, cut, [_rows(out, rows, *at)], batch=p["batch"] * count // a.shape[dim]))
    return _both(made)


def _attention(step: Step) -> list[Step]:
    """Cut the batch, else the groups of heads."""
    problem = dict(step.params)["problem"]
    dim = next((i for i in (0, 1) if step.inputs[0].shape[i] > 1), None)
    if dim is None:
        return []
    size, made = step.inputs[0].shape[dim], []
    half = -(-size // 2)
    for at in ((0, half), (half, size - half)):
        part = replace(problem, groups=problem.groups * at[1] // size)
        inputs, outputs = ([_part(v, dim, *at) for v in views] for views in (step.inputs, step.outputs))
        made.append(_made(step, inputs, outputs, problem=part))
    return _both(made)


def _gather(step: Step) -> list[Step]:
    """Cut the indices, else what lies before the axis."""
    (table, indices), (out,) = step.inputs, step.outputs
    outer, count = table.shape[0], indices.shape[1]
    if outer > 1:
        return _both(
            [
                _made(step, [_part(table, 0, s, c), indices], [_part(out, 0, s * count, c * count)])
                for s, c in _bounds(outer)
            ]
        )
    if count < 2:
        return []
    parts = [([table, _part(indices, 1, *at)], [_part(out, 0, *at)]) for at in _bounds(count)]
    return _both([_made(step, *part) for part in parts])


def _bags(step: Step) -> list[Step]:
    """Cut the tables, else the bags of one."""
    tables = len(step.outputs)
    each = len(step.inputs) // tables
    if tables > 1:
        half = tables // 2
        sides = [(0, half), (half, tables)]
        return _both([_made(step, step.inputs[a * each : b * each], step.outputs[a:b]) for a, b in sides])
    table, indices, offsets, *weights = step.inputs
    (out,), bags = step.outputs, step.outputs[0].shape[0]
    if bags < 2:
        return []
    return _both(
        [
            _made(step, [table, indices, _part(offsets, 1, s, c + 1), *weights], [_part(out, 0, s, c)])
            for s, c in _bounds(bags)
        ]
    )


_CUTS: dict[str, Callable[[Step], list[Step]]] = {
    "attention": _attention,
    "copy": _elementwise,
    "embedding_bag": _bags,
    "gather": _gather,
    "map": _elementwise,
    "matmul": _product,
    "matmul_packed": _product,
    "rotary": _elementwise,
    "row": _elementwise,
}
