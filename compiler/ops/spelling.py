"""How ONNX spells the ops: `ONNX` maps an ONNX op type to the function that makes it of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

if TYPE_CHECKING:
    from ..build import NodeBuilder


LIMIT = 1 << 24  # elements of a constant made here, which the node's few bytes may ask for


class Unsupported(Exception):
    """An ONNX node that cannot be imported, and why; `value` would have to be known for it to be."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(reason)
        self.value = value


def bounded(count: float) -> None:
    """Raise `Unsupported` for a constant of more than `LIMIT` elements, before it is made."""
    if count > LIMIT:
        raise Unsupported(f"it makes a constant of {int(count)} elements (right: at most {LIMIT})")


def counted(count: int) -> np.ndarray:
    """Return 0, 1, .. count - 1 as int64[count]; raise `Unsupported` where they are too many."""
    bounded(count)
    return np.arange(count, dtype=np.int64)


@dataclass
class Call:
    """One ONNX node being imported: operands are values of ours, attributes Python values and arrays."""

    builder: NodeBuilder
    op: str
    opset: int
    inputs: tuple[str, ...]
    outputs: int
    attrs: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""
    used: tuple[bool, ...] = ()

    def has(self, index: int) -> bool:
        """Return whether an optional operand is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def __getitem__(self, index: int) -> str:
        """Return an operand; raise `UserError` when it is missing."""
        if not self.has(index):
            raise UserError(f"{self.op} has no operand {index}")
        return self.inputs[index]

    def optional(self, index: int) -> str:
        """Return an operand, or "" when it is missing."""
        return self.inputs[index] if self.has(index) else ""

    def wants(self, output: int) -> bool:
        """Return whether anything reads that result."""
        return output < len(self.used) and self.used[output]

    def type(self, value: str | int) -> TensorType:
        """Return the type of a value, or of an operand given by its position."""
        return self.builder.type_of(self[value] if isinstance(value, int) else value)

    def attr(self, name: str, default: Any) -> Any:
        """Return an attribute of the default's kind; raise `UserError` for another."""
        value = self.attrs.get(name, default)
        wrong = (isinstance(default, int) and not isinstance(value, int)) or (
            isinstance(default, float) and not isinstance(value, (int, float))
        )
        if wrong or (isinstance(default, (str, tuple)) and not isinstance(value, type(default))):
            raise UserError(f"{self.op}: attribute '{name}' is {value!r}, not like {default!r}")
        return value

    def known(self, index: int, what: str) -> np.ndarray:
        """Return an operand's value, of any shape; raise `Unsupported` if it depends on inputs."""
        data = self.builder.known(self[index])
        if data is None:
            reason = f"its {what}, %{self[index]}, depends on the data (it must be a constant)"
            raise Unsupported(reason, self[index])
        return data

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Return an operand that is a known list of integers."""
        data = self.known(index, what)
        if data.dtype.kind not in "iu" or data.ndim > 1:
            raise UserError(
                f"{self.op}: {what} must be a list of integers, not {data.dtype}{list(data.shape)}"
            )
        return tuple(int(v) for v in data.reshape(-1))

    def list_of(self, name: str, index: int) -> tuple[int, ...] | None:
        """Return integers given as an attribute (older opsets) or an operand; None when neither is there."""
        if name in self.attrs:
            return tuple(self.attr(name, ()))
        return self.integers(index, name) if self.has(index) else None

    def axis(self, default: int, rank: int | None = None, name: str = "axis") -> int:
        """Return an axis attribute, counted from the front."""
        return self.wrap(self.attr(name, default), self.type(0).rank if rank is None else rank)

    def wrap(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front; raise `UserError` when it is not one of `rank`."""
        if not -rank <= axis < rank:
            raise UserError(f"{self.op}: axis {axis} is outside a tensor of rank {rank}")
        return axis % rank

    def add(self, op: str, *inputs: str, **attrs: object) -> str:
        """Return the result of an op of ours on values."""
        return self.builder.add(op, *inputs, hint=self.hint, **attrs)  # type: ignore[arg-type]

    def scalar(self, value: float, like: str) -> str:
        """Return a scalar constant of the dtype of a value."""
        return self.builder.constant(np.asarray(value), self.type(like).dtype.numpy)

    def constant(self, array: np.ndarray | Sequence[Any]) -> str:
        """Return the name of a constant of that value and shape."""
        return self.builder.constant(np.asarray(array), hint=self.hint or "c")

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Return a value in another shape."""
        return self.add("reshape", value, shape=tuple(shape))

    def cast(self, value: str, to: str) -> str:
        """Return a value in another dtype, given by name."""
        return self.add("cast", value, to=to)

    def compose(self, op: str, *inputs: str, **attrs: object) -> str:
        """Return what another ONNX op makes of values."""
        result = ONNX[op](Call(self.builder, op, self.opset, inputs, 1, attrs, self.hint))
        return result if isinstance(result, str) else result[0]


Spelling = Callable[[Call], "str | Sequence[str]"]
S = TypeVar("S", bound=Spelling)
ONNX: dict[str, Spelling] = {}


def onnx(*names: str) -> Callable[[S], S]:
    """List a function as importer of ONNX op types; other domains are spelt `com.microsoft::Gelu`."""

    def listed(function: S) -> S:
        for name in names:
            if name in ONNX:
                raise ValueError(f"ONNX op {name} is listed twice")
            ONNX[name] = function
        return function

    return listed
