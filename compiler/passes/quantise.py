"""Post-training INT8: products with weights in int8, activations quantised as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from mtia_emu.kernels.tape import Tape, TapeBuilder

from mtia_emu.types import FP32, INT8, TensorType

from ..build import Builder
from ..graph import Const, Match, Node, Rewrite, Skip
from ..ops.quantise_rows import LARGEST, LEAST
from .base import Rule, Rules, become, building
from .maps import splice
from .tails import product_extras, product_tape

Loader = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Quantise(Rules):
    """Make x @ weights an int8 product: rows of x are scaled at run time, columns of weights beforehand.

    Sums are exact in int32; scales, bias and activation follow on the tile in fp32. Products of two
    activations stay as they are. Weights that several products read are stored once.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_Quantiser().rule,)


@dataclass
class _Quantiser:
    """The rule for one graph; `stored` has the weights quantised so far: values and scales by old name."""

    stored: dict[str, tuple[str, str]] = field(default_factory=dict)

    def rule(self, node: Node, match: Match) -> Rewrite | Skip | None:
        """x @ weights, with whatever follows on the tile."""
        if node.op not in ("matmul", "matmul_map") or not match.type_of(node.inputs[0]).dtype.is_float:
            return None
        x, name = node.inputs[:2]
        const, kind = match.const(name), match.type_of(x)
        if const is None or const.type.rank != 2:
            return Skip("its right side is not a weight matrix")
        if 0 in (*const.type.shape, *kind.shape):
            return Skip("it is empty")
        b = building(node, match)
        weights, columns = self._weights(b, name, const)
        rows, scale = b.adds("quantise_rows", x)
        shape = node.type.shape
        if len(shape) != kind.rank or shape[:-1] != kind.shape[:-1]:  # the product is seen in another shape
            scale = b.add("reshape", scale, shape=(*shape[:-1], 1))
        names, tape = splice(
            _scaled(),
            ("product", scale, columns),
            product_tape(node),
            ("scaled", *product_extras(node)),
            0,
            FP32,
        )
        attrs: dict[str, Any] = {"tape": str(tape), "shape": shape, "to": node.type.dtype.name}
        return become(node, b, b.add("matmul_map", rows, weights, *names[1:], fold=False, **attrs))

    def _weights(self, b: Builder, name: str, const: Const) -> tuple[str, str]:
        """Return the quantised values and the scales of columns; they are made when they are read."""
        if name not in self.stored:
            columns = TensorType(FP32, const.type.shape[1:])
            self.stored[name] = (
                b.put(
                    b.fresh(f"{name}.int8"), Const(TensorType(INT8, const.type.shape), _values(const, name))
                ),
                b.put(b.fresh(f"{name}.scale"), Const(columns, _scales(const, name))),
            )
        return self.stored[name]


def _scaled() -> Tape:
    """Return product * row's scale * column's scale."""
    t = TapeBuilder(3)
    return t.done(t.call("mul", t.call("mul", 0, 1), 2))


def _scale(const: Const, name: str) -> np.ndarray:
    top = np.abs(const.array(name).astype(np.float32)).max(axis=0)
    return np.maximum(top, np.float32(LEAST)) / np.float32(LARGEST)


def _scales(const: Const, name: str) -> Loader | None:
    return (lambda: _scale(const, name)) if const.present else None


def _values(const: Const, name: str) -> Loader | None:
    if not const.present:
        return None
    return lambda: np.round(const.array(name).astype(np.float32) / _scale(const, name)).astype(np.int8)
