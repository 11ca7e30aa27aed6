"""A tape: straight-line SIMD work on one tile, the body of every elementwise, row-wise and epilogue kernel.

Text form, one step after another: `t0 = mul(x0, x1); t1 = fold_sum(t0); y = mul(t0, rsqrt...)`. Operands are
inputs `x0, x1, ...`, earlier results `t0, t1, ...` or numbers; the last `outputs` results are the tape's own.
A step whose type is marked, `t0 = copy(x0) : fp16!`, rounds on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.machine.units.simd import FUNCTIONS, REDUCTIONS, compute, fold
from mtia_emu.program.isa import Shape
from mtia_emu.types import BOOL, FP32, DType, dtype

Array = np.ndarray[Any, Any]
Source = int | float  # input i is i, result i is ~i, a number is a float
ARITY = {f"fold_{name}": 1 for name in REDUCTIONS} | {name: f.arity for name, f in FUNCTIONS.items()}
_STEP = re.compile(r"^t(\d+)\s*=\s*(\w+)\((.*)\)(?:\s*:\s*(\w+)(!?))?$")


@dataclass(frozen=True)
class TapeStep:
    """A command: a SIMD function or a fold (`fold_sum`) of inputs, results or numbers; `to` is its dtype.

    One that `rounds` to it does so on purpose: tapes may not be joined so that its value stays wider.
    """

    function: str
    sources: tuple[Source, ...]
    to: DType = FP32
    rounds: bool = False

    @property
    def folds(self) -> bool:
        """Return whether the step reduces rows to one column."""
        return self.function.startswith("fold_")

    @property
    def reduction(self) -> str:
        """Return the name in REDUCTIONS of a step that folds."""
        return self.function[5:]


@dataclass(frozen=True)
class Tape:
    """Steps over `inputs` inputs; `results` names the steps whose values leave the tape, in order."""

    inputs: int
    steps: tuple[TapeStep, ...]
    results: tuple[Source, ...]

    @property
    def row_wise(self) -> bool:
        """Return whether some step needs whole rows."""
        return any(s.folds for s in self.steps)

    def __str__(self) -> str:
        body = "; ".join(
            f"t{i} = {s.function}({', '.join(map(_name, s.sources))}) : {s.to}{'!' if s.rounds else ''}"
            for i, s in enumerate(self.steps)
        )
        return f"{self.inputs} -> {', '.join(map(_name, self.results))} | {body}"

    def shapes(self, inputs: Sequence[Shape], asked: Mapping[int, Shape] | None = None) -> list[Shape]:
        """Return how each step's value meets the tile, given the inputs'; `asked` says it of some steps."""
        out: list[Shape] = []
        for index, step in enumerate(self.steps):
            met = [out[~s] if s < 0 else inputs[s] for s in step.sources if isinstance(s, int)]
            shape = _fold_shape(met) if step.folds else _meet(met)
            out.append((asked or {}).get(index, shape))
        return out

    def evaluate(
        self,
        inputs: Sequence[Array],
        kinds: Sequence[DType],
        each: Callable[[TapeStep, Array], Array] | None = None,
    ) -> list[Array]:
        """Return the results for whole arrays: the living definition of what the kernels emit.

        Folds reduce the last axis, kept with length 1. `kinds` are the dtypes of the results. What `each`
        makes of a step's value stands in its place.
        """
        values: list[Array] = []
        for step in self.steps:
            sources = [_value(s, inputs, values) for s in step.sources]
            if step.folds:
                values.append(fold(step.reduction, sources[0], step.to.numpy))
            else:
                values.append(compute(step.function, sources, step.to.numpy))
            if each is not None:
                values[-1] = each(step, values[-1])
        return [_value(r, inputs, values).astype(k.numpy) for r, k in zip(self.results, kinds, strict=True)]


def finish(tape: Tape, kinds: Sequence[DType]) -> Tape:
    """Return the tape with each result computed by a step of its own, in the type that it leaves the tape
    with.

    A result that is an input, a number, or a value that other steps read gets a `copy` step.
    """
    steps, results = list(tape.steps), []
    for source, kind in zip(tape.results, kinds, strict=True):
        step = ~source if isinstance(source, int) and source < 0 and ~source not in results else -1
        to = steps[step].to if step >= 0 else kind
        free = step >= 0 and not _is_read(tape, source) and not steps[step].rounds
        if step >= 0 and (to == kind or (free and _narrows(to, kind))):
            steps[step] = replace(steps[step], to=kind, rounds=False)
            results.append(step)
        else:
            steps.append(TapeStep("copy", (source,), kind))
            results.append(len(steps) - 1)
    return Tape(tape.inputs, tuple(steps), tuple(~r for r in results))


def inline(tape: Tape, numbers: Mapping[int, float]) -> tuple[Tape, list[int]]:
    """Return the tape with inputs replaced by numbers, and the inputs that are left.

    A command holds one number: of several that one step would read, only the first is put in.
    """
    values = dict(numbers)
    for step in tape.steps:
        for source in [s for s in step.sources if not isinstance(s, float) and s in values][
            1 if _free(step) else 0 :
        ]:
            values.pop(int(source), None)
    for result in tape.results:
        values.pop(int(result), None)
    left = [i for i in range(tape.inputs) if i not in values]

    def placed(source: Source) -> Source:
        if isinstance(source, float) or source < 0:
            return source
        return values[source] if source in values else left.index(source)

    steps = tuple(replace(s, sources=tuple(map(placed, s.sources))) for s in tape.steps)
    return Tape(len(left), steps, tuple(map(placed, tape.results))), left


def part_of(tape: Tape, results: Sequence[Source], given: Collection[Source]) -> tuple[Tape, list[Source]]:
    """Return the tape of what `results` need beyond values that are `given`, and which of these it reads.

    The values that it reads, inputs or results of steps, are its inputs, in that order.
    """
    names: dict[Source, Source] = {}
    used: list[Source] = []
    steps: list[TapeStep] = []

    def placed(source: Source) -> Source:
        if isinstance(source, float):
            return source
        if source not in names:
            names[source] = taken(source) if source in given else placed_step(tape.steps[~source])
        return names[source]

    def taken(source: Source) -> Source:
        used.append(source)
        return len(used) - 1

    def placed_step(step: TapeStep) -> Source:
        steps.append(replace(step, sources=tuple(map(placed, step.sources))))
        return ~(len(steps) - 1)

    ends = tuple(map(placed, results))
    return Tape(len(used), tuple(steps), ends), used


def _free(step: TapeStep) -> bool:
    """Return whether a step reads no number yet, and is not a fold of one."""
    return not step.folds and not any(isinstance(s, float) for s in step.sources)


def _narrows(wide: DType, kind: DType) -> bool:
    """Return whether rounding to `wide` and then to `kind` is rounding to `kind`."""
    return wide.is_float == kind.is_float and wide.bits > kind.bits and "bool" not in (wide.name, kind.name)


def _is_read(tape: Tape, source: Source) -> bool:
    return any(source in s.sources for s in tape.steps) or tape.results.count(source) > 1


def _name(source: Source) -> str:
    if isinstance(source, float):
        return repr(source)
    return f"x{source}" if source >= 0 else f"t{~source}"


def _value(source: Source, inputs: Sequence[Array], values: Sequence[Array]) -> Array:
    if isinstance(source, float):
        return np.float32(source)  # type: ignore[return-value]
    return inputs[source] if source >= 0 else values[~source]


def _meet(shapes: Sequence[Shape]) -> Shape:
    rows = any(s in (Shape.FULL, Shape.COL) for s in shapes)
    cols = any(s in (Shape.FULL, Shape.ROW) for s in shapes)
    return {
        (True, True): Shape.FULL,
        (False, True): Shape.ROW,
        (True, False): Shape.COL,
        (False, False): Shape.ONE,
    }[rows, cols]


def _fold_shape(shapes: Sequence[Shape]) -> Shape:
    return Shape.COL if _meet(shapes) in (Shape.FULL, Shape.COL) else Shape.ONE


@lru_cache(maxsize=4096)
def parse(text: str) -> Tape:
    """Return the tape that `str` printed; raise `UserError` for other text."""
    head, bar, body = text.partition("|")
    count, arrow, results = head.partition("->")
    if not bar or not arrow or not _is_index(count.strip()):
        raise UserError(f"not a tape: {text[:200]!r} (right: 2 -> t0 | t0 = add(x0, x1) : fp32)")
    inputs, steps = int(count), []
    for index, part in enumerate(p.strip() for p in body.split(";") if p.strip()):
        match = _STEP.match(part)
        if not match or match[1] != str(index):
            raise UserError(f"not a tape step: {part!r} (right: t{index} = add(x0, x1) : fp32)")
        sources = tuple(_source(s, inputs, index) for s in match[3].split(","))
        to = dtype(match[4] or "fp32")
        steps.append(TapeStep(_known(match[2], len(sources)), sources, to, bool(match[5])))
    return Tape(inputs, tuple(steps), tuple(_source(r, inputs, len(steps)) for r in results.split(",")))


def _known(function: str, arity: int) -> str:
    if function not in ARITY:
        raise refuse_unknown("tape function", function, ARITY)
    if ARITY[function] != arity:
        raise UserError(f"tape function {function} takes {ARITY[function]} operands, got {arity}")
    return function


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _source(text: str, inputs: int, results: int) -> Source:
    text = text.strip()
    if text[:1] in ("x", "t") and _is_index(text[1:]):
        index = int(text[1:])
        if index >= (inputs if text[0] == "x" else results):
            raise UserError(f"tape operand {text} is not defined before its use")
        return index if text[0] == "x" else ~index
    try:
        return float(text)
    except ValueError:
        raise UserError(f"tape operand {text!r} is not x0, t0 or a number") from None


class TapeBuilder:
    """Writes a tape step by step: `call` returns the source that names the new value."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.steps: list[TapeStep] = []

    def call(self, function: str, *sources: Source, to: DType = FP32) -> int:
        """Append a step and return its value's name."""
        kind = BOOL if function in FUNCTIONS and FUNCTIONS[function].result == "bool" else to
        self.steps.append(TapeStep(_known(function, len(sources)), sources, kind))
        return ~(len(self.steps) - 1)

    def done(self, *results: Source) -> Tape:
        """Return the tape with these results."""
        return Tape(self.inputs, tuple(self.steps), results)
