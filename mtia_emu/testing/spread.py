"""How far a graph's results move when every rounding in it falls otherwise: its own measure of what is exact.

Monte Carlo arithmetic (Parker, Pierce and Eggert, Computing in Science and Engineering 2(4), 2000): values are
computed some times over, each result a random part of a step off. Where numbers cancel, results move far; where
nothing rounds, they do not move at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ..compiler.graph import Graph, Node
from ..compiler.ops import reference
from ..compiler.reference import evaluate
from ..kernels.tape import Step, parse
from ..types import DTYPES, dtype_of
from ..units.simd import FUNCTIONS

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
DRAWS = 8
MOVES = (
    "reshape transpose expand slice concat append pad tile gather gather_elements gather_nd scatter_elements "
    "scatter_nd one_hot topk range nonzero bitcast ragged_split"
).split()
CHOICES = (
    "copy neg abs sign floor ceil round relu not isnan isinf max min equal less less_equal greater greater_equal "
    "and or xor where reduce_max reduce_min fmod cast quantise_rows"
).split()
EXACT = frozenset((*MOVES, *CHOICES))
"""Ops whose results are the same however they are computed: exact, or rounded once and as the op says."""
UNIT = frozenset("sigmoid tanh erf gelu gelu_tanh silu softplus".split())
"""Functions that others may compute by way of numbers about 1, or as large as the operand."""
SUMMED_IN = np.dtype(np.float32)  # the narrowest type in which products and rows are summed


@dataclass(frozen=True)
class Noise:
    """What is off in a noisy evaluation, by up to one step.

    By default a step of each value's own type. With a number format `floats` all floats are held in it, weights
    and inputs too; its largest number bounds them. With `codes` operands of products are off by half a step of
    int8 as well. With `loose` functions of another library are: by a step of 1.
    """

    floats: str = ""
    codes: bool = False
    loose: bool = False


def spread(
    graph: Graph, inputs: Mapping[str, Array], noise: Noise, draws: int = DRAWS, first: int = 0
) -> dict[str, Array]:
    """Return how far each element of each output moves: the root of the mean square over draws from `first` on.

    Infinite where an element is a number in one draw and none in another. The graph's weights must be present.
    """
    with np.errstate(all="ignore"):
        exact = evaluate(graph, inputs)
        squares = {name: np.zeros(value.shape) for name, value in exact.items()}
        for draw in range(first, first + draws):
            noisy = noisy_outputs(graph, inputs, noise, np.random.default_rng(draw))
            for name, value in exact.items():
                squares[name] += _gap(noisy[name], value) ** 2
    return {name: np.sqrt(square / draws) for name, square in squares.items()}


def _gap(a: Array, b: Array) -> Array:
    same = (_wide(a) == _wide(b)) | (np.isnan(_wide(a)) & np.isnan(_wide(b)))
    gap = np.where(same, 0.0, np.abs(_wide(a) - _wide(b)))
    return np.where(np.isnan(gap), np.inf, gap)


def noisy_outputs(graph: Graph, inputs: Mapping[str, Array], noise: Noise, rng: Rng) -> dict[str, Array]:
    """Return a graph's outputs, every result that is rounded a random part of a step off."""
    values: dict[str, Array] = {}
    for name, array in (*inputs.items(), *((name, const.array(name)) for name, const in graph.consts.items())):
        values[name] = _off(array, _step(array, noise), noise, rng) if noise.floats else array
    last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    for index, node in enumerate(graph.nodes):
        given = [values[v] if v else None for v in node.inputs]
        for name, x in zip(node.outputs, _results(node, given, noise, rng), strict=True):
            values[name] = x
        for name in node.inputs:
            if last[name] == index and name not in graph.outputs:
                values.pop(name, None)
    return {name: values[name] for name in graph.outputs}


def _results(node: Node, given: Sequence[Array | None], noise: Noise, rng: Rng) -> list[Array]:
    if noise.codes and node.op == "matmul":
        coded = [_off(x, _row_step(x, axis), noise, rng) for x, axis in zip(given[:2], (-1, -2), strict=True)]
        given = [*coded, *given[2:]]
    if node.op == "map":
        return _map(node, given, noise, rng)
    if node.op in EXACT:
        made = reference(node.op, given, node.attrs)
        return [_held(x, noise) for x in made]
    if node.op not in FUNCTIONS:  # which round their results alone
        given = [None if x is None else _summed(x, rng) for x in given]
    made = reference(node.op, given, node.attrs)
    typed = [x.astype(kind.dtype.numpy) for x, kind in zip(made, node.types, strict=True)]
    size = _unit(node, given) if noise.loose else 0.0
    return [_off(x, _step(x, noise, size), noise, rng) for x in typed]


def _map(node: Node, given: Sequence[Array | None], noise: Noise, rng: Rng) -> list[Array]:
    arrays = [x for x in given if x is not None]

    def each(step: Step, value: Array) -> Array:
        return value if step.function in EXACT else _off(value, _step(value, noise), noise, rng)

    (out,) = parse(str(node.attrs["tape"])).evaluate(arrays, [node.type.dtype], each)
    return [np.broadcast_to(out, node.type.shape).copy()]


def _unit(node: Node, given: Sequence[Array | None]) -> Array | float:
    """Return the size of the numbers by way of which a function may be computed; 0 for none but its result."""
    if node.op == "matmul" and node.attrs.get("activation", "none") != "none":
        return 1.0
    if node.op not in UNIT or given[0] is None:
        return 0.0
    return np.maximum(1.0, np.abs(_wide(given[0]))) if node.op not in ("sigmoid", "tanh", "erf") else 1.0


def _summed(x: Array, rng: Rng) -> Array:
    """Return an operand of a sum off by a step of what it is summed in: as if summed in another order."""
    if x.dtype.kind in "iub" or dtype_of(x).bits < 16:
        return x
    wide = x.astype(np.promote_types(x.dtype, SUMMED_IN) if x.dtype.kind == "f" else SUMMED_IN)
    eps = np.finfo(wide.dtype).eps
    return wide * (1 + eps * rng.uniform(-1, 1, x.shape)).astype(wide.dtype)


def _step(x: Array, noise: Noise, size: Array | float = 0.0) -> Array:
    """Return a step of each element, in its own type or the format that all are held in; of `size` at least."""
    if x.dtype.kind in "iub":
        return np.zeros(())
    own = ml_dtypes.finfo(x.dtype)
    eps, tiny = float(own.eps), float(own.smallest_subnormal)
    if noise.floats:
        held = ml_dtypes.finfo(DTYPES[noise.floats].numpy)
        eps, tiny = max(eps, float(held.eps)), max(tiny, float(held.smallest_subnormal))
    wide = np.abs(_wide(x))
    return np.maximum(eps * np.maximum(wide, size), tiny)


def _row_step(x: Array | None, axis: int) -> Array:
    """Return half a step of int8 for each row, or column: its largest magnitude is 127 steps."""
    assert x is not None
    return np.abs(_wide(x)).max(axis=axis, keepdims=True, initial=0.0) / 254


def _off(x: Array | None, step: Array, noise: Noise, rng: Rng) -> Array:
    """Return an array with random errors of up to a step; zeros, integers and truth values as they are."""
    assert x is not None
    if x.dtype.kind in "iub":
        return x
    wide = _wide(x)
    return _held((wide + np.where(wide == 0, 0.0, step) * rng.uniform(-1, 1, x.shape)).astype(x.dtype), noise)


def _held(x: Array, noise: Noise) -> Array:
    """Return an array as the format of all floats holds it."""
    if not noise.floats or x.dtype.kind in "iub":
        return x
    return x.astype(DTYPES[noise.floats].numpy).astype(x.dtype)


def _wide(x: Array) -> Array:
    return x.astype(np.float64)

