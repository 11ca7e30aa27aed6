"""Post-training INT8: products with weights in int8, activations quantised as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mtia_emu.kernels.tape import TapeBuilder, parse

from mtia_emu.types import FP32, INT8, TensorType

from ..graph import Const, Match, Node, Rewrite, Skip
from ..ops.quantise_rows import LARGEST, LEAST
from .base import Rule, Rules, become, building
from .maps import splice
from .tails import product_extras, product_tape


@dataclass(frozen=True)
class Quantise(Rules):
    """Make x @ weights an int8 product: a scale a row of x found at run time, a scale a column of the weights stored.

    Sums are exact in int32; scales, bias and activation follow on the tile in fp32. Products of two activations stay
    as they are.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_quantise,)


def _quantise(node: Node, match: Match) -> Rewrite | Skip | None:
    if node.op not in ("matmul", "matmul_map"):
        return None
    x, name = node.inputs[:2]
    const, kind = match.const(name), match.type_of(x)
    if const is None or not kind.dtype.is_float or const.type.rank != 2:
        return Skip("its right side is not a weight matrix") if kind.dtype.is_float else None
    b = building(node, match)
    stored = b.put(b.fresh(f"{name}.int8"), Const(TensorType(INT8, const.type.shape), _values(const, name)))
    columns = b.put(b.fresh(f"{name}.scale"), Const(TensorType(FP32, const.type.shape[1:]), _scales(const, name)))
    rows, scale = b.adds("quantise_rows", x)
    shape = node.type.shape
    if len(shape) != kind.rank or shape[:-1] != kind.shape[:-1]:  # the product is seen in another shape
        scale = b.add("reshape", scale, shape=(*shape[:-1], 1))
    t = TapeBuilder(3)
    scaled = t.done(t.call("mul", t.call("mul", 0, 1), 2))
    names, tape = splice(
        scaled, ("product", scale, columns), product_tape(node), ("scaled", *product_extras(node)), 0, node.type.dtype
    )
    fused = b.add("matmul_map", rows, stored, *names[1:], tape=str(parse(str(tape))), shape=shape, to=node.type.dtype.name,
                  fold=False)
    return become(node, b, fused)


Loader = Callable[[], np.ndarray]


def _scale(const: Const, name: str) -> np.ndarray:
    top = np.abs(const.array(name).astype(np.float32)).max(axis=0)
    return np.maximum(top, np.float32(LEAST)) / np.float32(LARGEST)


def _scales(const: Const, name: str) -> Loader | None:
    return (lambda: _scale(const, name)) if const.present else None


def _values(const: Const, name: str) -> Loader | None:
    if not const.present:
        return None
    return lambda: np.round(const.array(name).astype(np.float32) / _scale(const, name)).astype(np.int8)
