"""Recurrent layers, written out step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mtia_emu.errors import UserError

from .matmul import swapped
from .spelling import Call, Unsupported, onnx

STEPS = 4096
ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}


@dataclass(frozen=True)
class Cell:
    """One direction of a layer: transposed weights [in, gates*h] and [h, gates*h], biases [gates*h] or ""."""

    weight: str
    recurrent: str
    bias: str
    recurrent_bias: str
    functions: tuple[str, ...]
    hidden: int


State = tuple[str, ...]
Step = Callable[[Call, Cell, str, State], State]


def _cut(c: Call, x: str, axis: int, start: int, end: int) -> str:
    shape = c.type(x).shape
    starts = [start if i == axis else 0 for i in range(len(shape))]
    ends = [end if i == axis else s for i, s in enumerate(shape)]
    return c.add("slice", x, starts=starts, ends=ends, steps=(1,) * len(shape))


def _pick(c: Call, x: str, axis: int, at: int) -> str:
    """Return one element along an axis, which goes."""
    shape = c.type(x).shape
    return c.reshape(_cut(c, x, axis, at, at + 1), shape[:axis] + shape[axis + 1 :])


def _gate(c: Call, x: str, index: int, size: int) -> str:
    return _cut(c, x, 1, index * size, (index + 1) * size)


def _cell(c: Call, direction: int, gates: int, functions: tuple[str, ...]) -> Cell:
    hidden = c.attr("hidden_size", 0) or c.type(2).shape[-1]
    weight, recurrent = (swapped(c, _pick(c, c[i], 0, direction)) for i in (1, 2))
    bias = recurrent_bias = ""
    if c.has(3):
        both = _pick(c, c[3], 0, direction)
        size = gates * hidden
        bias, recurrent_bias = (_cut(c, both, 0, a * size, (a + 1) * size) for a in (0, 1))
    return Cell(weight, recurrent, bias, recurrent_bias, functions, hidden)


def _lstm_step(c: Call, cell: Cell, x: str, state: State) -> State:
    f, g, h = cell.functions
    total = c.add("matmul", x, cell.weight, cell.bias)
    total = c.add("add", total, c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias))
    i, o, forget, new = (_gate(c, total, n, cell.hidden) for n in range(4))
    kept = c.add("mul", c.add(f, forget), state[1])
    memory = c.add("add", kept, c.add("mul", c.add(f, i), c.add(g, new)))
    return c.add("mul", c.add(f, o), c.add(h, memory)), memory


def _gru_step(c: Call, cell: Cell, x: str, state: State) -> State:
    f, g = cell.functions
    left = c.add("matmul", x, cell.weight, cell.bias)
    if c.attr("linear_before_reset", 0):
        right = c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias)
        z, r = (c.add(f, c.add("add", *(_gate(c, v, n, cell.hidden) for v in (left, right)))) for n in (0, 1))
        inner = c.add("mul", r, _gate(c, right, 2, cell.hidden))
    else:
        two = _cut(c, cell.recurrent, 1, 0, 2 * cell.hidden)
        last = _cut(c, cell.recurrent, 1, 2 * cell.hidden, 3 * cell.hidden)
        biases = [_cut(c, cell.recurrent_bias, 0, *cut) if cell.recurrent_bias else "" for cut in _cuts(cell)]
        right = c.add("matmul", state[0], two, biases[0])
        z, r = (c.add(f, c.add("add", *(_gate(c, v, n, cell.hidden) for v in (left, right)))) for n in (0, 1))
        inner = c.add("matmul", c.add("mul", r, state[0]), last, biases[1])
    new = c.add(g, c.add("add", _gate(c, left, 2, cell.hidden), inner))
    # (1 - z) * new + z * h
    return (c.add("add", new, c.add("mul", z, c.add("sub", state[0], new))),)


def _cuts(cell: Cell) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, 2 * cell.hidden), (2 * cell.hidden, 3 * cell.hidden)


def _rnn_step(c: Call, cell: Cell, x: str, state: State) -> State:
    total = c.add("matmul", x, cell.weight, cell.bias)
    total = c.add("add", total, c.add("matmul", state[0], cell.recurrent, cell.recurrent_bias))
    return (c.add(cell.functions[0], total),)


def _functions(c: Call, default: tuple[str, ...], directions: int) -> list[tuple[str, ...]]:
    """Return the activations of each direction, by our names."""
    names = tuple(c.attr("activations", ())) or default * directions
    if len(names) != len(default) * directions or any(n not in ACTIVATIONS for n in names):
        raise Unsupported(f"its activations are {', '.join(names)}")
    ours = [ACTIVATIONS[n] for n in names]
    return [tuple(ours[i : i + len(default)]) for i in range(0, len(ours), len(default))]


def _run(c: Call, gates: int, default: tuple[str, ...], states: int, step: Step) -> tuple[str, ...]:
    """Return all outputs [s,d,b,h] and the last states [d,b,h] of a layer over operand 0, [s,b,in]."""
    way = c.attr("direction", "forward")
    directions = 2 if way == "bidirectional" else 1
    _check(c, way, directions, states)
    length, batch = c.type(0).shape[:2]
    per_direction: list[tuple[list[str], State]] = []
    for d, functions in enumerate(_functions(c, default, directions)):
        cell = _cell(c, d, gates, functions)
        state = tuple(_start(c, 5 + i, d, batch, cell.hidden) for i in range(states))
        backwards = way == "reverse" or d == 1
        outputs: list[str] = []
        for t in reversed(range(length)) if backwards else range(length):
            state = step(c, cell, _pick(c, c[0], 0, t), state)
            outputs.append(state[0])
        per_direction.append((outputs[::-1] if backwards else outputs, state))
    shape = (1, 1, batch, c.type(per_direction[0][1][0]).shape[1])
    ways = [c.add("concat", *(c.reshape(v, shape) for v in outputs), axis=0) for outputs, _ in per_direction]
    finals = [
        c.add("concat", *(c.reshape(state[i], shape[1:]) for _, state in per_direction), axis=0)
        for i in range(states)
    ]
    return c.add("concat", *ways, axis=1), *finals


def _check(c: Call, way: str, directions: int, states: int) -> None:
    lengths = c.builder.known(c[4]) if c.has(4) else None
    if c.has(4) and (lengths is None or (lengths != c.type(0).shape[0]).any()):
        raise Unsupported("its sequences are of unequal length")
    if "clip" in c.attrs or c.attr("layout", 0) or c.attr("input_forget", 0) or c.has(5 + states):
        raise Unsupported("it clips, couples gates, has peepholes, or is laid out batch first")
    if way not in ("forward", "reverse", "bidirectional") or c.type(1).shape[0] != directions:
        raise UserError(f"{c.op}: direction {way!r} does not fit weights {c.type(1)}")
    if not 0 < c.type(0).shape[0] <= STEPS:
        raise Unsupported(f"it runs {c.type(0).shape[0]} steps (1 to {STEPS} are written out)")


def _start(c: Call, index: int, direction: int, batch: int, hidden: int) -> str:
    if c.has(index):
        return _pick(c, c[index], 0, direction)
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
