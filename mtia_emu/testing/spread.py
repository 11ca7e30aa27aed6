"""How far a graph's results move when every rounding in it falls otherwise: its own measure of what is exact.

Monte Carlo arithmetic (Parker, Pierce and Eggert, Computing in Science and Engineering 2(4), 2000): values
are computed some times over, each result a random part of a step off. Where numbers cancel, results move far;
where nothing rounds, they do not move at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.ops import reference
from mtia_emu.compiler.ops.matmul import product
from mtia_emu.compiler.reference import evaluate
from mtia_emu.kernels.rows.tape import TapeStep, parse

from ..machine.units.simd import FUNCTIONS, compute
from ..types import DTYPES, dtype_of

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
DRAWS = 8
MOVES = frozenset(
    {"reshape", "transpose", "expand", "slice", "concat", "append", "pad", "tile", "gather",
     "gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "one_hot", "topk", "range", "nonzero",
     "bitcast", "ragged_split"}
)  # fmt: skip
CHOICES = frozenset(
    {"copy", "neg", "abs", "sign", "floor", "ceil", "round", "relu", "not", "isnan", "isinf", "max", "min",
     "equal", "less", "less_equal", "greater", "greater_equal", "and", "or", "xor", "where", "reduce_max",
     "reduce_min", "fmod", "cast", "quantise_rows"}
)  # fmt: skip
EXACT = MOVES | CHOICES
"""Ops whose results are the same however they are computed: exact, or rounded once and as the op says."""
STEEP = frozenset(["add", "sub", "mul", "div", "pow"])
"""Functions that, regrouped, leave a type's range elsewhere; so do all sums but `SOFT` ones."""
SOFT = frozenset(["softmax", "log_softmax"])
"""Sums of powers that no operand makes infinite."""
TAME = SOFT | FUNCTIONS.keys()
UNIT = frozenset(["sigmoid", "tanh", "erf", "gelu", "gelu_tanh", "silu", "softplus"])
"""Functions that others may compute by way of numbers about 1, or as large as the operand."""
PRODUCT = 32.0  # beyond which activations of products give 0 or their operand
MARKS = (
    np.nan,
    1.0,
)  # what stands for a number that may be infinite: whatever reads it changes with one of them
HALF = 2  # bytes of floats that onnxruntime keeps wider where it can
FAR = 0.75  # the power of a type's largest number from which on work may leave its range
SUMMED_IN = np.dtype(np.float32)  # the narrowest type in which products and rows are summed


@dataclass(frozen=True)
class Noise:
    """What is off in a noisy evaluation, by up to one step.

    By default a step of each value's own type. With a number format `floats` all floats are held in it,
    weights and inputs too; its largest number bounds them. With `codes` operands of products are off by half
    a step of int8 as well. With `loose` functions of another library are: by a step of 1.
    """

    floats: str = ""
    codes: bool = False
    loose: bool = False


def spread(
    graph: Graph, inputs: Mapping[str, Array], noise: Noise, draws: int = DRAWS, first: int = 0
) -> dict[str, Array]:
    """Return how far each element of each output moves: the root of the mean square over draws from `first`
    on.

    Infinite where an element is a number in one draw and none in another, and where it depends on what comes
    near the end of a type's range. The graph's weights must be present.
    """
    with np.errstate(all="ignore"):
        exact = evaluate(graph, inputs)
        noisy = [Draw(noise, first + number) for number in range(draws)]
        squares = {name: np.zeros(value.shape) for name, value in exact.items()}
        for draw in noisy:
            for name, value in draw.outputs(graph, inputs).items():
                squares[name] += _gap(value, exact[name]) ** 2
        spreads = {name: np.sqrt(square / draws) for name, square in squares.items()}
        if any(draw.beyond for draw in noisy):
            one, two = (Draw(noise, first, mark).outputs(graph, inputs) for mark in MARKS)
            spreads = {
                name: np.where(_gap(one[name], two[name]) > 0, np.inf, x) for name, x in spreads.items()
            }
    return spreads


def _gap(a: Array, b: Array) -> Array:
    same = (_wide(a) == _wide(b)) | (np.isnan(_wide(a)) & np.isnan(_wide(b)))
    gap = np.where(same, 0.0, np.abs(_wide(a) - _wide(b)))
    return np.where(np.isnan(gap), np.inf, gap)


class Draw:
    """One evaluation of a graph, every result that is rounded a random part of a step off.

    A mark stands in place of what comes near the end of a type's range where, regrouped, work may leave it,
    and of infinities that inputs bring into sums: these give NaN in one order and not in another. `beyond`
    says whether anything came there.
    """

    def __init__(self, noise: Noise, seed: int, mark: float | None = None) -> None:
        self.noise, self.mark, self.beyond, self.infinite = noise, mark, False, False
        self._rng = np.random.default_rng(seed)
        self._held_in = DTYPES[noise.floats].numpy if noise.floats else None

    def outputs(self, graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of a graph on some inputs."""
        self.infinite = any(x.dtype.kind not in "iub" and np.isinf(_wide(x)).any() for x in inputs.values())
        values = {**inputs, **{name: const.array(name) for name, const in graph.consts.items()}}
        if self.noise.floats:
            values = {name: self._off(x, self._step(x)) for name, x in values.items()}
        last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
        for index, node in enumerate(graph.nodes):
            given = [values[v] if v else None for v in node.inputs]
            values.update(zip(node.outputs, self._results(node, given), strict=True))
            for name in node.inputs:
                if last[name] == index and name not in graph.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in graph.outputs}

    def _results(self, node: Node, given: Sequence[Array | None]) -> list[Array]:
        if node.op in EXACT:
            results = [self._held(x) for x in reference(node.op, given, node.attrs)]
            kept = self.noise.loose and node.op == "cast" and results[0].dtype.itemsize == HALF
            return [self._off(x, self._step(x)) for x in results] if kept else results
        calm = _calm(node, [x for x in given if x is not None])
        if node.op == "map":
            return self._map(node, [x for x in given if x is not None], calm)
        if self.noise.codes and node.op == "matmul":
            coded = [self._off(x, _row_step(x, axis)) for x, axis in zip(given[:2], (-1, -2), strict=True)]
            given = [*coded, *given[2:]]
        if node.op in STEEP or node.op not in TAME:
            given = [None if x is None else self._marked(x, np.bool_(self.infinite)) for x in given]
        if node.op not in FUNCTIONS:  # which round their results alone
            steps = _steps(node, given)
            given = [None if x is None else self._summed(x, steps) for x in given]
        if node.op == "matmul" and node.type.dtype.is_float:
            return [self._product(node, given, calm)]
        if self.noise.loose and node.op == "log_softmax":
            results = [np.log(reference("softmax", given, node.attrs)[0])]
        else:
            results = list(reference(node.op, given, node.attrs))
        typed = [x.astype(kind.dtype.numpy) for x, kind in zip(results, node.types, strict=True)]
        size = _unit(node, given) if self.noise.loose else 0.0
        steps = 0.0 if node.op in FUNCTIONS else _steps(node, given)
        if self.noise.loose:  # nearly equal terms, added one by one, are all rounded the same way
            steps *= max(steps, 1.0) * 2
        summed = steps * float(np.finfo(SUMMED_IN).eps)
        terms = self._terms(node, given)
        return [
            self._marked(self._off(x, np.maximum(self._step(x, size) + summed * _size(x), terms)), calm)
            for x in typed
        ]

    def _terms(self, node: Node, given: Sequence[Array | None]) -> Array:
        """Return a step of the larger term of a sum of two, in its shape.

        Where the two cancel, the sum is off by that if its terms are grouped otherwise.
        """
        if node.op not in ("add", "sub"):
            return np.zeros(())
        a, b = (self._step(x) for x in given if x is not None)
        return np.where(np.isfinite(a + b), np.maximum(a, b), 0.0)

    def _product(self, node: Node, given: Sequence[Array | None], calm: Any) -> Array:
        """Return a[..,m,k] @ b[..,k,n] with its bias, scale and activation, each of which may round."""
        a, b, bias, scale = (*given, None, None)[:4]
        kind, activation = node.type.dtype.numpy, str(node.attrs.get("activation", "none"))
        assert a is not None and b is not None
        steps: list[tuple[str, list[Any]]] = [
            ("matmul", [a, b]),
            ("mul", [scale]),
            ("add", [bias]),
            (activation, []),
        ]
        value: Array | None = None
        for name, others in steps:
            if name == "none" or any(x is None for x in others):
                continue
            operands = [*([] if value is None else [value]), *others]
            wide = product(a, b) if name == "matmul" else compute(name, operands, kind)
            result = wide.astype(kind)
            size = PRODUCT if self.noise.loose and name == activation else 0.0
            step = np.maximum(self._step(result, size), (wide != 0) * _least(result))
            value = self._marked(self._off(result, step), calm)
        assert value is not None
        return value

    def _map(self, node: Node, given: Sequence[Array], calm: Any) -> list[Array]:
        def each(step: TapeStep, value: Array) -> Array:
            if step.function in EXACT:
                return value
            return self._marked(self._off(value, self._step(value)), calm)

        (out,) = parse(str(node.attrs["tape"])).evaluate(given, [node.type.dtype], each)
        return [np.broadcast_to(out, node.type.shape).copy()]

    def _marked(self, x: Array, calm: Any) -> Array:
        """Return x of any shape, marked where it nears the end of its range, or, where `calm`, left it."""
        if x.dtype.kind in "iub" or dtype_of(x).bits < 16:
            return x
        kinds = [kind for kind in (self._held_in, x.dtype) if kind is not None]
        most = min(float(ml_dtypes.finfo(kind).max) for kind in kinds) ** FAR
        size = np.abs(_wide(x))
        far = (size > most) & (calm | (size != np.inf))
        if not far.any():
            return x
        self.beyond = True
        return x if self.mark is None else np.where(far, x.dtype.type(self.mark), x)

    def _summed(self, x: Array, steps: float) -> Array:
        """Return x of any shape off by steps of its sum's type: as if summed in another order."""
        if x.dtype.kind in "iub" or dtype_of(x).bits < 16:
            return x
        wide = x.astype(np.promote_types(x.dtype, SUMMED_IN) if x.dtype.kind == "f" else SUMMED_IN)
        own = float(ml_dtypes.finfo(x.dtype).eps) / 2 if wide.dtype != x.dtype else 0.0  # if scaled first
        eps = own + steps * float(np.finfo(wide.dtype).eps)
        return wide * np.asarray(1 + eps * self._rng.uniform(-1, 1, x.shape)).astype(wide.dtype)

    def _step(self, x: Array, size: Any = 0.0) -> Array:
        """Return a step of each element, in the same shape, of its type or that of all floats; 0 for zeros.

        Functions of another library are off by a step of what they are computed in, of `size`.
        """
        if x.dtype.kind in "iub":
            return np.zeros(())
        infos = [ml_dtypes.finfo(kind) for kind in (x.dtype, self._held_in) if kind is not None]
        eps, tiny = (max(float(getattr(i, what)) for i in infos) for what in ("eps", "smallest_subnormal"))
        magnitude = np.abs(_wide(x))
        own = np.where((magnitude == 0) | (magnitude == np.inf), 0.0, np.maximum(eps * magnitude, tiny))
        return (
            np.maximum(own, np.finfo(SUMMED_IN).eps * size + tiny * (size > 0)) if self.noise.loose else own
        )

    def _off(self, x: Array | None, step: Array) -> Array:
        """Return x of any shape with random errors of up to a step; integers and truth values as they are."""
        assert x is not None
        if x.dtype.kind in "iub":
            return x
        return self._held((_wide(x) + step * self._rng.uniform(-1, 1, x.shape)).astype(x.dtype))

    def _held(self, x: Array) -> Array:
        """Return x of any shape as the format of all floats holds it."""
        if self._held_in is None or x.dtype.kind in "iub":
            return x
        return x.astype(self._held_in).astype(x.dtype)


def _least(x: Array) -> float:
    """Return the smallest number above 0 of a float array's type: by which sums rounded to 0 are off."""
    return float(ml_dtypes.finfo(x.dtype).smallest_subnormal)


def _steps(node: Node, given: Sequence[Array | None]) -> float:
    """Return by how many steps operands of a sum, of any shape, are off.

    Summed one after another, k terms are off as if each were by sqrt(k) / 4 steps: what is added to has
    grown.
    """
    shapes = [x.shape for x in given if x is not None and x.ndim]
    axis = int(node.attrs.get("axis", -1))
    rows = [max(s[-1], s[axis] if -len(s) <= axis < len(s) else 1) for s in shapes]
    sizes = rows + [x.size // max(node.type.size, 1) for x in given if x is not None]
    return max(1.0, max(sizes, default=1) ** 0.5 / 4)


def _unit(node: Node, given: Sequence[Array | None]) -> Any:
    """Return the size of numbers, one or one for each element, by which a function may go; 0: none."""
    if node.op == "log_softmax":
        return 1.0
    if node.op not in UNIT or given[0] is None:
        return 0.0
    size = np.abs(_wide(given[0]))
    return np.clip(size, 1.0, PRODUCT) if node.op not in ("sigmoid", "tanh", "erf") else 1.0


def _row_step(x: Array | None, axis: int) -> Array:
    """Return half a step of int8 for each row, or column, with 1 along `axis`: the largest is 127 steps."""
    assert x is not None
    return np.where(_wide(x) == 0, 0.0, np.abs(_wide(x)).max(axis=axis, keepdims=True, initial=0.0) / 254)


def _calm(node: Node, given: Sequence[Array]) -> Any:
    """Return where a result is made of numbers alone, broadcast to it: an infinity would be an overflow."""
    finite: list[Array] = [np.asarray(np.isfinite(_wide(x))) for x in given]
    if node.op == "matmul" and given[0].ndim > 1 and given[1].ndim > 1:
        rows, columns = (
            np.all(x, axis=axis, keepdims=True) for x, axis in zip(finite, (-1, -2), strict=False)
        )
        return rows & columns
    if node.op in FUNCTIONS or node.op == "map":
        return np.logical_and.reduce(np.broadcast_arrays(*finite))
    return np.bool_(all(x.all() for x in finite))


def _size(x: Array) -> Array:
    """Return the magnitudes of numbers in the same shape, 0 for what is none."""
    return np.nan_to_num(np.abs(_wide(x)), posinf=0.0)


def _wide(x: Array) -> Array:
    return x.astype(np.float64)
