"""Arithmetic on values of a graph that is being written, in their own types."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.types import FP32, DType

from ..build import NodeBuilder


@dataclass(frozen=True)
class Arithmetic:
    """Makes nodes by name, all under one hint; a number beside a value is of the value's type."""

    builder: NodeBuilder
    hint: str

    def __call__(self, op: str, *operands: str | float, **attrs: object) -> str:
        """Return the result of an op on values and numbers, of which the first value gives the type."""
        like = next((v for v in operands if isinstance(v, str)), "")
        values = [v if isinstance(v, str) else self.number(v, like) for v in operands]
        return self.builder.add(op, *values, hint=self.hint, **attrs)  # type: ignore[arg-type]

    def number(self, value: float, like: str) -> str:
        """Return a number in the dtype of a value."""
        return self.builder.constant(value, self.builder.type_of(like).dtype.numpy)

    def cast(self, value: str, to: DType) -> str:
        """Return a value in another dtype; one that is narrower is stored so, whatever the model runs in."""
        kind = self.builder.type_of(value).dtype
        if kind == to:
            return value
        rounds = {"rounds": True} if kind.is_float and to.is_float and to.bits < kind.bits else {}
        return self("cast", value, to=to.name, **rounds)

    def wide(self, value: str) -> str:
        """Return a value in fp32."""
        return self.cast(value, FP32)

    def total(self, value: str, kind: str = "sum") -> str:
        """Return the sum of all elements, or another reduction of them."""
        axes = tuple(range(self.builder.type_of(value).rank))
        return self(f"reduce_{kind}", value, axes=axes, keepdims=False) if axes else value
