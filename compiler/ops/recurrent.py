"""Recurrent layers: one product for the operand of all steps, then a scan; or all steps written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from mtia_emu.kernels.rows.tape import Tape

from mtia_emu.errors import UserError
from mtia_emu.types import BOOL, TensorType

from .activations import Function, activation
from .indexing import backwards, reversed_to
from .matmul import swapped
from .scan import STEPS
from .shapes import take
from .spelling import Call, Unsupported, onnx
from .trace import NoTape, traced


@dataclass(frozen=True)
class Cell:
    """One direction of a layer: transposed weights [in, gates*h] and [h, gates*h], biases [gates*h] or "".

    `peepholes` are those of input, output and forget gate, [h] each, or none.
    """

    weight: str
    recurrent: str
    bias: str
    recurrent_bias: str
    peepholes: tuple[str, ...]
    functions: tuple[Function, ...]
    hidden: int


State = tuple[str, ...]
Gates = tuple[str, ...]
Keep = Callable[[str, str], str]


@dataclass(frozen=True)
class Inputs:
    """What a step reads beside the states: gates [b, h] of operand and of state, and which state it keeps.

    `keep(old, new)` is the new value of a state, or the old one where a sequence has ended.
    """

    left: Gates
    right: Gates
    keep: Keep


Step = Callable[[Call, Cell, Inputs, State], State]


def _pick(c: Call, x: str, axis: int, at: int) -> str:
    """Return one element along an axis, which goes."""
    shape = c.type(x).shape
    return c.reshape(take(c, x, axis, at, at + 1), shape[:axis] + shape[axis + 1 :])


def _gates(c: Call, x: str, size: int) -> Gates:
    """Return the parts, `size` wide, of the last axis; none of ""."""
    if not x:
        return ()
    shape = c.type(x).shape
    return tuple(take(c, x, len(shape) - 1, at, at + size) for at in range(0, shape[-1], size))


def _cell(c: Call, direction: int, gates: int, functions: tuple[Function, ...]) -> Cell:
    hidden = c.attr("hidden_size", 0) or c.type(2).shape[-1]
    weight, recurrent = (swapped(c, _pick(c, c[i], 0, direction)) for i in (1, 2))
    bias = recurrent_bias = ""
    if c.has(3):
        both = _pick(c, c[3], 0, direction)
        size = gates * hidden
        bias, recurrent_bias = (take(c, both, 0, a * size, (a + 1) * size) for a in (0, 1))
    peepholes: tuple[str, ...] = ()
    if c.op == "LSTM" and c.has(7):
        all_three = _pick(c, c[7], 0, direction)
        peepholes = tuple(take(c, all_three, 0, i * hidden, (i + 1) * hidden) for i in range(3))
    if recurrent_bias and c.op != "GRU":  # there a gate lets through what the state adds
        bias, recurrent_bias = c.add("add", bias, recurrent_bias), ""
    return Cell(weight, recurrent, bias, recurrent_bias, peepholes, functions, hidden)


def _lstm_step(c: Call, cell: Cell, x: Inputs, state: State) -> State:
    """Return the next memory and the next output."""
    f, g, h = cell.functions
    old, hidden = state
    i, o, forget, new = (c.add("add", *pair) for pair in zip(x.left, x.right, strict=True))
    if cell.peepholes:
        i = c.add("add", i, c.add("mul", cell.peepholes[0], old))
        forget = c.add("add", forget, c.add("mul", cell.peepholes[2], old))
    opened = f(c, i)
    kept = c.add("sub", c.scalar(1, opened), opened) if c.attr("input_forget", 0) else f(c, forget)
    memory = x.keep(old, c.add("add", c.add("mul", kept, old), c.add("mul", opened, g(c, new))))
    if cell.peepholes:
        o = c.add("add", o, c.add("mul", cell.peepholes[1], memory))
    return memory, x.keep(hidden, c.add("mul", f(c, o), h(c, memory)))


def _gru_step(c: Call, cell: Cell, x: Inputs, state: State) -> State:
    f, g = cell.functions
    (old,) = state
    if c.attr("linear_before_reset", 0):
        z, r = (f(c, c.add("add", *pair)) for pair in zip(x.left[:2], x.right[:2], strict=True))
        inner = c.add("mul", r, x.right[2])
    else:
        z, r, inner = _reset_first(c, cell, x, old)
    new = g(c, c.add("add", x.left[2], inner))
    # (1 - z) * new + z * h
    return (x.keep(old, c.add("add", new, c.add("mul", z, c.add("sub", old, new)))),)


def _reset_first(c: Call, cell: Cell, x: Inputs, old: str) -> tuple[str, str, str]:
    """Return both gates and what a second product makes of the state that the reset gate lets through."""
    f, size = cell.functions[0], cell.hidden
    two, last = take(c, cell.recurrent, 1, 0, 2 * size), take(c, cell.recurrent, 1, 2 * size, 3 * size)
    cuts = ((0, 2 * size), (2 * size, 3 * size))
    biases = [take(c, cell.recurrent_bias, 0, *cut) if cell.recurrent_bias else "" for cut in cuts]
    right = _gates(c, c.add("matmul", old, two, biases[0]), size)
    z, r = (f(c, c.add("add", *pair)) for pair in zip(x.left[:2], right, strict=True))
    return z, r, c.add("matmul", c.add("mul", r, old), last, biases[1])


def _rnn_step(c: Call, cell: Cell, x: Inputs, state: State) -> State:
    return (x.keep(state[0], cell.functions[0](c, c.add("add", x.left[0], x.right[0]))),)


def _functions(c: Call, default: tuple[str, ...], directions: int) -> list[tuple[Function, ...]]:
    """Return the activations of each direction, with their parameters, after clipping.

    An LSTM's memory is not clipped on its way to the output, only the gates are: as onnxruntime does it.
    """
    names = tuple(c.attr("activations", ())) or default * directions
    if len(names) != len(default) * directions:
        raise UserError(f"{c.op}: {len(names)} activations, not {len(default)} for each direction")
    alphas, betas = (list(c.attr(name, ())) for name in ("activation_alpha", "activation_beta"))
    ours = [activation(name, alphas, betas) for name in names]
    each = [ours[i : i + len(default)] for i in range(0, len(ours), len(default))]
    if "clip" in c.attrs:
        limit = c.attr("clip", 0.0)
        each = [[*(_clipped(function, limit) for function in x[:2]), *x[2:]] for x in each]
    return [tuple(x) for x in each]


def _clipped(function: Function, limit: float) -> Function:
    def held(c: Call, x: str) -> str:
        return function(c, c.add("min", c.add("max", x, c.scalar(-limit, x)), c.scalar(limit, x)))

    return held


def _run(c: Call, gates: int, default: tuple[str, ...], states: int, step: Step) -> tuple[str, ...]:
    """Return all outputs [s,d,b,h] and the last states [d,b,h] of a layer over operand 0, [s,b,in].

    With `layout` 1 the batch comes first in operand and results.
    """
    way = c.attr("direction", "forward")
    directions = 2 if way == "bidirectional" else 1
    x = c.add("transpose", c[0], perm=(1, 0, 2)) if c.attr("layout", 0) else c[0]
    _check(c, way, directions, c.type(x).shape[0])
    ways, finals = [], []
    for d, functions in enumerate(_functions(c, default, directions)):
        cell = _cell(c, d, gates, functions)
        start = tuple(_start(c, 5 + i, d, c.type(x).shape[1], cell.hidden) for i in reversed(range(states)))
        outputs, last = _sweep(c, cell, x, start, step, back=way == "reverse" or d == 1)
        ways.append(outputs)
        finals.append(last[::-1])
    batch_first = bool(c.attr("layout", 0))
    result = _stack(c, ways, 1)  # [s,d,b,h]
    if batch_first:
        result = c.add("transpose", result, perm=(2, 0, 1, 3))
    return result, *(_stack(c, [f[i] for f in finals], 1 if batch_first else 0) for i in range(states))


def _sweep(c: Call, cell: Cell, x: str, start: State, step: Step, *, back: bool) -> tuple[str, State]:
    """Return all outputs [s,b,h] of one direction, and the states at each sequence's end, the output last."""
    lengths = _lengths(c, c.type(x).shape[0])
    if back:
        x = reversed_to(c, x, lengths, 0) if lengths else backwards(c, x, 0)
    going = _going(c, lengths, c.type(x).shape[0]) if lengths else ""
    layer = _Layer(c, cell, step, _left(c, cell, x), going)
    try:
        result, state = layer.as_scan(start)
    except NoTape:
        result, state = layer.written_out(start)
    if lengths:  # a sequence that has ended keeps its states, and shows zeros
        result = c.add("where", going, result, c.scalar(0, result))
        state = tuple(_unless_empty(c, going, x) for x in state)
    if back:
        result = reversed_to(c, result, lengths, 0) if lengths else backwards(c, result, 0)
    return result, state


def _left(c: Call, cell: Cell, x: str) -> str:
    """Return what the operand adds to the gates of all steps, [s, b, gates*h]: one product for all."""
    steps, batch, size = c.type(x).shape
    flat = c.add("matmul", c.reshape(x, (steps * batch, size)), cell.weight, cell.bias)
    return c.reshape(flat, (steps, batch, c.type(flat).shape[1]))


def _going(c: Call, lengths: str, steps: int) -> str:
    """Return whether each sequence is still going at each step, [s, b, 1]."""
    each = c.reshape(lengths, (1, c.type(lengths).size, 1))
    number = c.builder.constant(np.arange(steps).reshape(steps, 1, 1), c.type(lengths).dtype.numpy)
    return c.add("greater", each, number)


def _unless_empty(c: Call, going: str, state: str) -> str:
    """Return the last state [b, h], zeros of a sequence without a step: as onnxruntime does it."""
    known = c.builder.known(c[4])
    if known is not None and bool((known > 0).all()):
        return state
    return c.add("where", _pick(c, going, 0, 0), state, c.scalar(0, state))


@dataclass(frozen=True)
class _Layer:
    """One direction over all steps: gates of the operand, [s, b, gates*h], and which sequences go on."""

    c: Call
    cell: Cell
    step: Step
    left: str
    going: str

    def as_scan(self, start: State) -> tuple[str, State]:
        """Return all outputs, and the last states, of one scan; raise `NoTape` where a step has no tape."""
        c, cell = self.c, self.cell
        scanned = [*_gates(c, self.left, cell.hidden), *([self.going] if self.going else [])]
        kept = [*_gates(c, cell.recurrent_bias, cell.hidden), *cell.peepholes]
        count = c.type(self.left).shape[2] // cell.hidden
        body = _Body(c, cell, self.step, count, bool(cell.recurrent_bias), bool(self.going))
        tapes = tuple(map(str, body.tapes(len(start), c.type(start[0]))))
        operands = (*start, cell.recurrent, *scanned, *kept)
        result, *others = c.builder.adds(
            "scan", *operands, hint=c.hint, product=True, scanned=len(scanned), tapes=tapes
        )
        return result, (*others, _pick(c, result, 0, c.type(result).shape[0] - 1))

    def written_out(self, state: State) -> tuple[str, State]:
        """Return the same, a step after the other."""
        c, cell, outputs = self.c, self.cell, []
        for t in range(c.type(self.left).shape[0]):
            going = _pick(c, self.going, 0, t) if self.going else ""
            left = _gates(c, _pick(c, self.left, 0, t), cell.hidden)
            right = c.add("matmul", state[-1], cell.recurrent, cell.recurrent_bias)
            given = Inputs(left, _gates(c, right, cell.hidden), _keeping(c, going))
            state = self.step(c, cell, given, state)
            outputs.append(state[-1])
        return _stack(c, outputs, 0), state


def _keeping(c: Call, going: str) -> Keep:
    return (lambda old, new: c.add("where", going, new, old)) if going else (lambda old, new: new)


@dataclass(frozen=True)
class _Body:
    """A step on stand-ins, whose nodes become tapes."""

    c: Call
    cell: Cell
    step: Step
    gates: int
    biased: bool
    ends: bool

    def tapes(self, states: int, kind: TensorType) -> tuple[Tape, ...]:
        """Return a tape for each state of that type; raise `NoTape`."""
        scratch, count = self.c.builder.apart(), self.gates
        row = TensorType(kind.dtype, kind.shape[-1:])

        def named(what: str, number: int, like: TensorType) -> Gates:
            names = tuple(f"{what}{i}" for i in range(number))
            for name in names:
                scratch.declare(name, like)
            return names

        state, right, left = named("s", states, kind), named("p", count, kind), named("x", count, kind)
        going = named("going", int(self.ends), TensorType(BOOL, (*kind.shape[:-1], 1)))
        bias = named("b", count if self.biased else 0, row)
        peepholes = named("q", len(self.cell.peepholes), row)
        c, cell = replace(self.c, builder=scratch), replace(self.cell, peepholes=peepholes)
        added = tuple(c.add("add", p, b) for p, b in zip(right, bias, strict=True)) if bias else right
        given = Inputs(left, added, _keeping(c, going[0] if going else ""))
        try:
            new = self.step(c, cell, given, state)
        except UserError:
            raise NoTape("a step reads what is no stand-in") from None
        return traced(scratch, [*state, *right, *left, *going, *bias, *peepholes], new)


def _stack(c: Call, parts: list[str], axis: int) -> str:
    shapes = [c.type(v).shape for v in parts]
    rows = [c.reshape(v, (*s[:axis], 1, *s[axis:])) for v, s in zip(parts, shapes, strict=True)]
    return c.add("concat", *rows, axis=axis)


def _lengths(c: Call, longest: int) -> str:
    """Return the lengths of the sequences; "" where all are as long as the operand."""
    known = c.builder.known(c[4]) if c.has(4) else None
    return "" if not c.has(4) or (known is not None and bool((known == longest).all())) else c[4]


def _check(c: Call, way: str, directions: int, length: int) -> None:
    if way not in ("forward", "reverse", "bidirectional") or c.type(1).shape[0] != directions:
        raise UserError(f"{c.op}: direction {way!r} does not fit weights {c.type(1)}")
    if not 0 < length <= STEPS:
        raise Unsupported(f"it runs {length} steps (right: 1 to {STEPS})")


def _start(c: Call, index: int, direction: int, batch: int, hidden: int) -> str:
    if c.has(index):
        return _pick(c, c[index], 1 if c.attr("layout", 0) else 0, direction)
    return c.add("expand", c.scalar(0, c[0]), shape=(batch, hidden))


@onnx("LSTM")
def _lstm(c: Call) -> tuple[str, ...]:
    return _run(c, 4, ("Sigmoid", "Tanh", "Tanh"), 2, _lstm_step)


@onnx("GRU")
def _gru(c: Call) -> tuple[str, ...]:
    return _run(c, 3, ("Sigmoid", "Tanh"), 1, _gru_step)


@onnx("RNN")
def _rnn(c: Call) -> tuple[str, ...]:
    return _run(c, 1, ("Tanh",), 1, _rnn_step)
