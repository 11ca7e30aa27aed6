"""Recurrent layers, written out step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mtia_emu.errors import UserError

from .activations import Function, activation
from .indexing import backwards, reversed_to
from .matmul import swapped
from .shapes import take
from .spelling import Call, Unsupported, onnx

STEPS = 4096


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
Step = Callable[[Call, Cell, str, State], State]


def _pick(c: Call, x: str, axis: int, at: int) -> str:
    """Return one element along an axis, which goes."""
    shape = c.type(x).shape
    return c.reshape(take(c, x, axis, at, at + 1), shape[:axis] + shape[axis + 1 :])


def _gate(c: Call, x: str, index: int, size: int) -> str:
    return take(c, x, 1, index * size, (index + 1) * size)


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
    return Cell(weight, recurrent, bias, recurrent_bias, peepholes, functions, hidden)


def _lstm_step(c: Call, cell: Cell, x: str, state: State) -> State:
    f, g, h = cell.functions
    total = c.add("matmul", x, cell.weight, cell.bias)
    total = c.add("add", total, c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias))
    i, o, forget, new = (_gate(c, total, n, cell.hidden) for n in range(4))
    if cell.peepholes:
        i = c.add("add", i, c.add("mul", cell.peepholes[0], state[1]))
        forget = c.add("add", forget, c.add("mul", cell.peepholes[2], state[1]))
    opened = f(c, i)
    kept = c.add("sub", c.scalar(1, opened), opened) if c.attr("input_forget", 0) else f(c, forget)
    memory = c.add("add", c.add("mul", kept, state[1]), c.add("mul", opened, g(c, new)))
    if cell.peepholes:
        o = c.add("add", o, c.add("mul", cell.peepholes[1], memory))
    return c.add("mul", f(c, o), h(c, memory)), memory


def _gru_step(c: Call, cell: Cell, x: str, state: State) -> State:
    f, g = cell.functions
    size = cell.hidden
    left = c.add("matmul", x, cell.weight, cell.bias)
    if c.attr("linear_before_reset", 0):
        right = c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias)
        z, r = (f(c, c.add("add", *(_gate(c, v, n, size) for v in (left, right)))) for n in (0, 1))
        inner = c.add("mul", r, _gate(c, right, 2, size))
    else:
        two, last = take(c, cell.recurrent, 1, 0, 2 * size), take(c, cell.recurrent, 1, 2 * size, 3 * size)
        cuts = ((0, 2 * size), (2 * size, 3 * size))
        biases = [take(c, cell.recurrent_bias, 0, *cut) if cell.recurrent_bias else "" for cut in cuts]
        right = c.add("matmul", state[0], two, biases[0])
        z, r = (f(c, c.add("add", *(_gate(c, v, n, size) for v in (left, right)))) for n in (0, 1))
        inner = c.add("matmul", c.add("mul", r, state[0]), last, biases[1])
    new = g(c, c.add("add", _gate(c, left, 2, size), inner))
    # (1 - z) * new + z * h
    return (c.add("add", new, c.add("mul", z, c.add("sub", state[0], new))),)


def _rnn_step(c: Call, cell: Cell, x: str, state: State) -> State:
    total = c.add("matmul", x, cell.weight, cell.bias)
    total = c.add("add", total, c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias))
    return (cell.functions[0](c, total),)


def _functions(c: Call, default: tuple[str, ...], directions: int) -> list[tuple[Function, ...]]:
    """Return the activations of each direction, with their parameters, after clipping."""
    names = tuple(c.attr("activations", ())) or default * directions
    if len(names) != len(default) * directions:
        raise UserError(f"{c.op}: {len(names)} activations, not {len(default)} for each direction")
    alphas, betas = (list(c.attr(name, ())) for name in ("activation_alpha", "activation_beta"))
    ours = [activation(name, alphas, betas) for name in names]
    if "clip" in c.attrs:
        ours = [_clipped(function, c.attr("clip", 0.0)) for function in ours]
    return [tuple(ours[i : i + len(default)]) for i in range(0, len(ours), len(default))]


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
        start = tuple(_start(c, 5 + i, d, c.type(x).shape[1], cell.hidden) for i in range(states))
        outputs, last = _sweep(c, cell, x, start, step, way == "reverse" or d == 1)
        ways.append(outputs)
        finals.append(last)
    batch_first = bool(c.attr("layout", 0))
    result = _stack(c, ways, 1)  # [s,d,b,h]
    if batch_first:
        result = c.add("transpose", result, perm=(2, 0, 1, 3))
    return result, *(_stack(c, [f[i] for f in finals], 1 if batch_first else 0) for i in range(states))


def _sweep(c: Call, cell: Cell, x: str, state: State, step: Step, back: bool) -> tuple[str, State]:
    """Return all outputs [s,b,h] of one direction, and the states at each sequence's end."""
    lengths = _lengths(c, c.type(x).shape[0])
    if back:
        x = reversed_to(c, x, lengths, 0) if lengths else backwards(c, x, 0)
    outputs = []
    for t in range(c.type(x).shape[0]):
        new = step(c, cell, _pick(c, x, 0, t), state)
        shown = new[0]
        if lengths:  # a sequence that has ended keeps its states, and shows zeros
            going = c.add("greater", c.reshape(lengths, (c.type(lengths).size, 1)), c.scalar(t, lengths))
            shown = c.add("where", going, new[0], c.scalar(0, new[0]))
            new = tuple(c.add("where", going, a, b) for a, b in zip(new, state, strict=True))
        state = new
        outputs.append(shown)
    result = _stack(c, outputs, 0)
    if back:
        result = reversed_to(c, result, lengths, 0) if lengths else backwards(c, result, 0)
    return result, state


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
        raise Unsupported(f"it runs {length} steps (1 to {STEPS} are written out)")


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
