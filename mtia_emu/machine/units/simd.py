"""The SIMD engine: elementwise functions and row reductions over tiles in local memory.

`FUNCTIONS` is the whole language of elementwise work: the graph's elementwise ops, the fused chains and the
engine's commands all use these names, so that a value is computed by one rule wherever it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...types import DType
from .random_bits import PASSES, philox, round_random

Array = np.ndarray[Any, Any]
Numbers = Array | float


@dataclass(frozen=True)
class Function:
    """One SIMD function: operands, the passes through the lanes that it takes, and its values.

    `passes` is 1 for what an ALU does at once; functions read from a table and interpolated take 2; those
    iterated from a table seed (division, roots) take 4; random bits and rounding by them are so many integer
    operations. Estimates: no source gives rates by function.
    `result` is "same" (the type of the operands), "bool", or "float" (fp32 when the operands are integers).
    """

    name: str
    arity: int
    passes: int
    result: str
    apply: Callable[..., Array]


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x) if x.size else x


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + _erf(np.asarray(x, np.float64) / math.sqrt(2.0)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def _sigmoid(x: Array) -> Array:
    # exp of a non-positive number only: no overflow for any x
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def _div(a: Array, b: Array) -> Array:
    if np.issubdtype(np.result_type(a, b), np.integer):  # ONNX integer division truncates towards zero
        b = np.where(b == 0, 1, b)
        below = np.floor_divide(a, b)  # not by magnitudes: the lowest integer has none
        return below + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0)))
    return np.divide(a, b)


def _fmod(a: Array, b: Array) -> Array:
    if np.issubdtype(np.result_type(a, b), np.integer):
        b = np.where(b == 0, 1, b)
    return np.fmod(a, b)


def _mod(a: Array, b: Array) -> Array:
    if np.issubdtype(np.result_type(a, b), np.integer):
        b = np.where(b == 0, 1, b)
    return np.mod(a, b)


def _nibble(x: Array, shift: int) -> Array:
    """Return four bits of each element as a signed whole number, -8 to 7, in the same shape."""
    return (((x >> shift) & 15) ^ 8).astype(np.int8) - np.int8(8)


def _table(rows: list[tuple[str, int, int, str, Callable[..., Array]]]) -> dict[str, Function]:
    return {row[0]: Function(*row) for row in rows}


FUNCTIONS: dict[str, Function] = _table(
    [
        ("copy", 1, 1, "same", lambda x: x),
        ("neg", 1, 1, "same", np.negative),
        ("abs", 1, 1, "same", np.abs),
        ("sign", 1, 1, "same", np.sign),
        ("floor", 1, 1, "same", np.floor),
        ("ceil", 1, 1, "same", np.ceil),
        ("round", 1, 1, "same", np.round),
        ("relu", 1, 1, "same", lambda x: np.maximum(x, 0)),
        ("not", 1, 1, "bool", np.logical_not),
        ("isnan", 1, 1, "bool", np.isnan),
        ("isinf", 1, 1, "bool", np.isinf),
        ("exp", 1, 2, "float", np.exp),
        ("log", 1, 2, "float", np.log),
        ("sin", 1, 2, "float", np.sin),
        ("cos", 1, 2, "float", np.cos),
        ("tanh", 1, 2, "float", np.tanh),
        ("sigmoid", 1, 2, "float", _sigmoid),
        ("erf", 1, 2, "float", _erf),
        ("gelu", 1, 2, "float", _gelu),
        ("gelu_tanh", 1, 2, "float", _gelu_tanh),
        ("silu", 1, 2, "float", lambda x: x * _sigmoid(x)),
        ("softplus", 1, 2, "float", lambda x: np.logaddexp(x, 0)),
        ("sqrt", 1, 4, "float", np.sqrt),
        ("rsqrt", 1, 4, "float", lambda x: 1.0 / np.sqrt(x)),
        ("reciprocal", 1, 4, "float", lambda x: 1.0 / x),
        ("add", 2, 1, "same", np.add),
        ("sub", 2, 1, "same", np.subtract),
        ("mul", 2, 1, "same", np.multiply),
        ("max", 2, 1, "same", np.maximum),
        ("min", 2, 1, "same", np.minimum),
        ("div", 2, 4, "same", _div),
        ("mod", 2, 4, "same", _mod),
        ("fmod", 2, 4, "same", _fmod),
        ("pow", 2, 4, "same", np.power),
        ("prelu", 2, 1, "same", lambda x, slope: np.where(x >= 0, x, x * slope)),
        ("equal", 2, 1, "bool", np.equal),
        ("less", 2, 1, "bool", np.less),
        ("less_equal", 2, 1, "bool", np.less_equal),
        ("greater", 2, 1, "bool", np.greater),
        ("greater_equal", 2, 1, "bool", np.greater_equal),
        ("and", 2, 1, "bool", np.logical_and),
        ("or", 2, 1, "bool", np.logical_or),
        ("xor", 2, 1, "bool", np.logical_xor),
        ("where", 3, 1, "same", np.where),
        ("asin", 1, 2, "float", np.arcsin),
        ("acos", 1, 2, "float", np.arccos),
        ("atan", 1, 2, "float", np.arctan),
        ("sinh", 1, 2, "float", np.sinh),
        ("cosh", 1, 2, "float", np.cosh),
        ("asinh", 1, 2, "float", np.arcsinh),
        ("acosh", 1, 2, "float", np.arccosh),
        ("atanh", 1, 2, "float", np.arctanh),
        ("bit_not", 1, 1, "same", np.invert),
        ("bit_and", 2, 1, "same", np.bitwise_and),
        ("bit_or", 2, 1, "same", np.bitwise_or),
        ("bit_xor", 2, 1, "same", np.bitwise_xor),
        ("bit_low4", 1, 1, "float", lambda x: _nibble(x, 0)),
        ("bit_high4", 1, 1, "float", lambda x: _nibble(x, 4)),
        ("shift_left", 2, 1, "same", np.left_shift),
        ("shift_right", 2, 1, "same", np.right_shift),
        ("philox", 3, PASSES, "same", philox),
        ("round_random", 2, 4, "same", round_random),
    ]
)

REDUCTIONS: dict[str, Callable[..., Array]] = {
    "sum": np.add.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "prod": np.multiply.reduce,
}


SCATTERS: dict[str, np.ufunc | None] = {  # how an update changes what is there: None replaces it
    "none": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def scatter(name: str, out: Array, at: tuple[Array, ...], updates: Array) -> Array:
    """Return `out` with updates at places of it, one after another, by SCATTERS[name].

    Narrow floats are combined in fp32 and rounded once.
    """
    combine = SCATTERS[name]
    if combine is None:
        changed = out.copy()
        changed[at] = updates
        return changed
    wide = _widen(out) if out.dtype.kind not in "iub" else out.copy()
    wide = wide.copy() if wide is out else wide
    combine.at(wide, at, updates.astype(wide.dtype))
    return wide.astype(out.dtype)


def compute(name: str, operands: list[Array], out: np.dtype[Any]) -> Array:
    """Return FUNCTIONS[name] of the operands, computed in fp32 (in their own type where they are integers).

    Narrow floats are widened to fp32, fp64 stays fp64; the result is converted to `out`.
    """
    with np.errstate(all="ignore"):
        if name == "copy":
            return rounded(_widen(operands[0]), out)
        return np.asarray(FUNCTIONS[name].apply(*map(_widen, operands))).astype(out)


def rounded(x: Array, to: np.dtype[Any]) -> Array:
    """Return x in another type and the same shape, rounded once.

    ml_dtypes passes through fp32 to its narrow floats, which rounds twice: what fp32 does not hold is made
    odd in its last digit there, so that it stands on its own side of every tie.
    """
    if to.isbuiltin == 1 or x.dtype not in (np.float64, np.int32, np.int64, np.uint32, np.uint64):
        return x.astype(to)
    with np.errstate(over="ignore"):
        exact = x.astype(np.float64)
        near = exact.astype(np.float32)
        down = np.where(np.abs(near) > np.abs(exact), np.nextafter(near, np.float32(0)), near)
        odd = (down.view(np.uint32) | 1).view(np.float32)
        return np.where((near == exact) | np.isnan(exact), near, odd).astype(to)


def fold(name: str, x: Array, out: np.dtype[Any]) -> Array:
    """Return REDUCTIONS[name] of x along its last axis, kept with length 1, in `out`.

    Narrow floats are summed in fp32, fp64 and integers in their own type. NumPy sums in an order that depends
    on strides: rows are packed first, so that equal rows have equal sums.
    """
    with np.errstate(all="ignore"):
        return np.asarray(REDUCTIONS[name](np.ascontiguousarray(_widen(x)), axis=-1, keepdims=True)).astype(
            out
        )


def _widen(x: Array) -> Array:
    """Return x, in any shape, as lanes hold it: NumPy negates no truth values and has no narrow floats."""
    if x.dtype == np.bool_:
        return x.astype(np.int8)
    return x if x.dtype.kind in "iu" or x.dtype == np.float64 else x.astype(np.float32)


class Simd(BaseModel):
    """The SIMD engine of one processing element."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bytes_per_cycle: float = Field(
        gt=0,
        description="bytes of one operand that pass the lanes each cycle",
        json_schema_extra={"unit": "B/cycle"},
    )
    fp32_macs_per_cycle: float = Field(
        gt=0, description="fp32 multiply-adds each cycle", json_schema_extra={"unit": "MAC/cycle"}
    )
    startup_cycles: int = Field(
        ge=0,
        description="cycles from a command's start to its first result",
        json_schema_extra={"unit": "cycles"},
    )

    row_startup_cycles: float = Field(
        ge=0,
        description="cycles that each row of an accumulate takes besides its elements",
        json_schema_extra={"unit": "cycles/row"},
    )

    def cost(self, elements: Numbers, bytes_each: Numbers, passes: Numbers) -> tuple[Array, int]:
        """Return the cycles of functions of `passes` over so many elements, in any shape, and the latency."""
        passed = np.asarray(elements) * bytes_each * passes
        return np.asarray(passed / self.bytes_per_cycle), self.startup_cycles

    def product_cost(self, macs: Numbers, kind: DType) -> tuple[Array, int]:
        """Return the cycles of so many multiply-adds, in any shape, and the latency."""
        return np.asarray(macs) / self.macs_per_cycle(kind), self.startup_cycles

    def row_cost(self, passed: Numbers) -> tuple[Array, int]:
        """Return the cycles to add looked-up rows whose fp32 elements pass `passed` times, in any shape."""
        return self.row_startup_cycles + np.asarray(passed) * 4 / self.bytes_per_cycle, self.startup_cycles

    def macs_per_cycle(self, kind: DType) -> float:
        """Return multiply-adds a cycle; types wider than fp32 run at a rate inverse to their width."""
        return self.fp32_macs_per_cycle * min(1.0, 32 / kind.bits)
