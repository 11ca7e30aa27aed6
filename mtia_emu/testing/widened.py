"""A graph computed once more, its floats of 16 bits and more widened to fp64: what no rounding explains.

Where narrow results are apart because roundings fell otherwise, or because a type's range ended, widened ones
agree. Formats of 8 bits, and casts to them, stay: what they choose is part of what a graph says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.compiler.graph import Attrs, Const, Graph, Node
from mtia_emu.compiler.ops import reference

from ..types import TensorType, dtype_of
from .compare import largest

Array = np.ndarray[Any, Any]
Steps = Mapping[str, Array]
WIDE = np.dtype(np.float64)
EPS = float(np.finfo(WIDE).eps)
NARROW = re.compile(r"\b(fp32|fp16|bf16)\b")
NEAR = 1e-6  # relative: attributes are numbers of fp64, constants were rounded to fp32
FLOOR = 1e-13  # of an output's largest magnitude
TIMES = 2.0  # what moves in so few draws may move further
STEPS_OFF = 4.0  # of fp64, of any result: references may take more steps than one
DRAWS = 3
SHARES = 16  # numbers that are so many parts of 1 were not rounded
SHORT = np.float32  # what holds a number in so few digits was likely computed exactly
SUMS = frozenset(
    ["add", "sub", "reduce_sum", "reduce_mean", "matmul", "cumsum", "matmul_map", "embedding_bag"]
)
POWERS = frozenset(["exp", "softmax", "sigmoid", "silu", "gelu", "gelu_tanh", "softplus", "pow"])
POLES = frozenset(["log", "div", "reciprocal", "rsqrt", "pow", "cast", "max", "min", "where"])
"""Functions that are infinite at numbers, and those that only pass infinities on."""


@dataclass(frozen=True)
class Widened:
    """Outputs of a widened graph; `left` says whether anything was too large or small for fp64 as well."""

    outputs: Mapping[str, Array]
    left: bool


def widened(
    graph: Graph,
    inputs: Mapping[str, Array],
    rng: np.random.Generator | None = None,
    steps: Steps | None = None,
) -> Widened | None:
    """Return the outputs of the graph widened; None where a reference takes no fp64.

    With `rng` inexact results are a random part of a step of fp64 off, and constants of `steps` one of
    theirs.
    """
    try:
        with np.errstate(all="ignore"):
            return _evaluated(graph, inputs, rng, steps or {})
    except Exception:  # of NumPy, of the references: whatever they say of types that they do not know
        return None


def _evaluated(
    graph: Graph, inputs: Mapping[str, Array], rng: np.random.Generator | None, steps: Steps
) -> Widened:
    values = {name: _wide(np.asarray(inputs[name]).astype(k.dtype.numpy)) for name, k in graph.inputs.items()}
    values |= {name: _const(const, name, rng, steps) for name, const in graph.consts.items()}
    last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    left = False
    for index, node in enumerate(graph.nodes):
        given = [values[v] if v else None for v in node.inputs]
        results = reference(node.op, given, _attrs(node.attrs))
        for name, kind, x in zip(node.outputs, node.types, results, strict=True):
            value = _wide(_lasting(x, kind))
            left = left or _leaves(node, given, value)
            values[name] = value if rng is None else _off(node, given, value, rng)
        for name in node.inputs:
            if last[name] == index and name not in graph.outputs:
                values.pop(name, None)
    return Widened({name: values[name] for name in graph.outputs}, left)


def _const(const: Const, name: str, rng: np.random.Generator | None, steps: Steps) -> Array:
    value = _wide(const.array(name))
    if rng is None or name not in steps:
        return value
    return value + steps[name] * rng.choice((-1.0, 1.0), value.shape)


def _attrs(attrs: Attrs) -> dict[str, Any]:
    """Return attributes with every float type of 16 bits and more, of tapes too, made fp64."""
    return {k: NARROW.sub("fp64", v) if isinstance(v, str) else v for k, v in attrs.items()}


def _lasting(x: Array, kind: TensorType) -> Array:
    """Return a result of its type's shape; raise `TypeError` where widening made it another one."""
    if x.shape != kind.shape or (not _narrow(kind) and x.dtype != kind.dtype.numpy):
        raise TypeError(f"{x.dtype}{list(x.shape)} for {kind}")
    return x


def _narrow(kind: TensorType) -> bool:
    return kind.dtype.is_float and kind.dtype.bits >= 16


def _wide(x: Array) -> Array:
    return x.astype(WIDE) if x.dtype.kind not in "iub" and dtype_of(x).bits >= 16 else x


def _floats(given: Sequence[Array | None]) -> list[Array]:
    return [x for x in given if x is not None and x.dtype == WIDE]


def _leaves(node: Node, given: Sequence[Array | None], value: Array) -> bool:
    """Return whether a result of any shape, of numbers alone, is infinite, or a power 0, in fp64 too."""
    floats = _floats(given)
    if value.dtype != WIDE or not floats:
        return False
    if node.op in POWERS and bool((value == 0).any()):
        return bool((floats[0][np.isfinite(floats[0])] != 0).any())
    if node.op in POLES or not np.isinf(value).any():
        return False
    return all(np.isfinite(x).all() for x in floats)


def _off(node: Node, given: Sequence[Array | None], value: Array, rng: np.random.Generator) -> Array:
    """Return a result of the same shape off by up to a step, of its largest term if a sum; or exact."""
    if value.dtype != WIDE:
        return value
    size, floats = np.abs(value), _floats(given)
    inexact = value != value.astype(SHORT).astype(WIDE)
    if node.op in ("add", "sub") and len(floats) == 2:
        a, b = floats[0], -floats[1] if node.op == "sub" else floats[1]
        kept = value - a
        lost = (a - (value - kept)) + (b - kept)  # Knuth's two-sum: what the sum does not hold
        inexact, size = inexact | (lost != 0), np.maximum(np.abs(a), np.abs(b))
    elif node.op in SUMS and floats:
        most = max(largest(x) for x in floats)
        least = min((float(np.abs(x[x != 0]).min(initial=np.inf)) for x in floats), default=np.inf)
        if most * EPS > least:
            inexact, size = np.ones_like(inexact), np.maximum(size, most)
    step = np.where(inexact & np.isfinite(size), STEPS_OFF * EPS * size, 0.0)
    return value + step * rng.choice((-1.0, 1.0), value.shape)


def agreement(
    before: Graph,
    after: Graph,
    inputs: Mapping[str, Array],
    first: Widened,
    second: Widened,
    share: float = 0.0,
) -> dict[str, Array] | None:
    """Return where widened results of two graphs agree, or cannot tell; None where neither can be moved.

    What rounding of constants that only one of the graphs has, and of fp64 itself, explains is allowed.
    """
    unlike = any(first.outputs[k].shape != x.shape for k, x in second.outputs.items())
    if unlike or list(first.outputs) != list(second.outputs):
        return None
    untold = any(not np.isfinite(x.astype(WIDE)).all() for x in map(np.asarray, inputs.values()))
    untold = untold or first.left or second.left
    with np.errstate(all="ignore"):
        near = {k: _near(x, second.outputs[k], untold, share) for k, x in first.outputs.items()}
        if all(x.all() for x in near.values()):
            return near
        moved = _moved(before, after, inputs, first, second)
        return (
            None
            if moved is None
            else {
                k: near[k] | (_gap(x, second.outputs[k]) <= TIMES * moved[k])
                for k, x in first.outputs.items()
            }
        )


def _near(a: Array, b: Array, untold: bool, share: float) -> Array:
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        return np.asarray(a == b)
    p, q = a.astype(WIDE), b.astype(WIDE)
    numbers = np.isfinite(p), np.isfinite(q)
    silent = ~numbers[0] & ~numbers[1] if not untold else ~numbers[0] | ~numbers[1]
    finite = numbers[0] & numbers[1]
    return (p == q) | silent | finite & (np.abs(p - q) <= NEAR * np.abs(p) + (FLOOR + share) * largest(p))


def _gap(a: Array, b: Array) -> Array:
    gap = np.abs(a.astype(WIDE) - b.astype(WIDE))
    return np.where(np.isnan(gap), np.inf, gap)


def _moved(
    before: Graph, after: Graph, inputs: Mapping[str, Array], first: Widened, second: Widened
) -> dict[str, Array] | None:
    """Return the furthest that outputs move by steps of fp64, and of constants that are new."""
    gone, came = _new(after, before), _new(before, after)
    moved = {k: np.zeros(x.shape) for k, x in first.outputs.items()}
    for seed in range(DRAWS):
        for graph, exact, new in ((before, first, gone), (after, second, came)):
            noisy = widened(graph, inputs, np.random.default_rng(seed), new)
            if noisy is None:
                return None
            for name, x in noisy.outputs.items():
                gap = np.abs(x.astype(WIDE) - exact.outputs[name].astype(WIDE))
                moved[name] = np.maximum(moved[name], np.nan_to_num(gap, nan=0.0, posinf=np.inf))
    return moved


def _new(before: Graph, after: Graph) -> dict[str, Array]:
    """Return a step of each number in constants that only the second graph has; 0 for those of few digits."""
    known = {id(c.data) for c in before.consts.values()}
    new = {k: c for k, c in after.consts.items() if _narrow(c.type) and id(c.data) not in known}
    if not new:
        return {}
    old = [
        np.asarray(c.array(k)).reshape(-1).astype(WIDE) for k, c in before.consts.items() if _narrow(c.type)
    ]
    numbers = np.concatenate([np.zeros(1), *old])
    return {name: _const_step(const.array(name), numbers) for name, const in new.items()}


def _const_step(x: Array, numbers: Array) -> Array:
    wide = x.astype(WIDE)
    exact = (wide * SHARES == np.round(wide * SHARES)) | np.isin(wide, numbers)
    info = ml_dtypes.finfo(x.dtype)
    step = np.maximum(float(info.eps) * np.abs(wide), float(info.smallest_subnormal))
    return np.where(exact | ~np.isfinite(wide), 0.0, step)
