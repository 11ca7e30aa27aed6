"""The records that a graph is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType, dtype_of

Attr = int | float | str | bool | tuple["Attr", ...]
Attrs = Mapping[str, Any]  # values are `Attr`; Any, so that they pass as keyword arguments
Loader = Callable[[], np.ndarray]


def _plain(value: object, where: str) -> Attr:
    """Return an attribute value made of Python's own types; raise `UserError` for what a text cannot hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_plain(v, where) for v in value)
    raise UserError(f"{where}: an attribute is int, float, str, bool or a tuple of these, not {value!r}")


def freeze_attrs(attrs: Mapping[str, object], where: str = "node") -> Attrs:
    """Return a read-only mapping of the attributes, sorted by name, with lists as tuples."""
    return MappingProxyType({k: _plain(attrs[k], f"{where}.{k}") for k in sorted(attrs)})


@dataclass(frozen=True)
class Node:
    """One operator: result names with a type each; "" in `inputs` is an omitted optional operand.

    `origin` is the name of the ONNX node that it came from, for messages.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[TensorType, ...]
    attrs: Attrs = field(default_factory=dict)
    origin: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.attrs, MappingProxyType):
            object.__setattr__(self, "attrs", freeze_attrs(self.attrs, self.name))
        if len(self.outputs) != len(self.types):
            raise UserError(
                f"node {self.name} ({self.op}): {len(self.outputs)} outputs, {len(self.types)} types"
            )

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[object, ...]:
        return Node, (
            self.name,
            self.op,
            self.inputs,
            self.outputs,
            self.types,
            dict(self.attrs),
            self.origin,
        )

    @property
    def output(self) -> str:
        """Return the name of the only (or first) result."""
        return self.outputs[0]

    @property
    def type(self) -> TensorType:
        """Return the type of the only (or first) result."""
        return self.types[0]

    def renamed(self, mapping: Mapping[str, str]) -> Node:
        """Return the node with its operands renamed; itself when none is in `mapping`."""
        if not any(v in mapping for v in self.inputs):
            return self
        return replace(self, inputs=tuple(mapping.get(v, v) for v in self.inputs))


@dataclass(frozen=True, eq=False)
class Const:
    """A constant: its type, and its data: an array, a function that reads one, or None where absent.

    Graphs share constants, so arrays are read-only: a pass puts another constant in place of one.
    """

    type: TensorType
    data: np.ndarray | Loader | None = None

    def __post_init__(self) -> None:
        if isinstance(self.data, np.ndarray):
            object.__setattr__(self, "data", _read_only(self.data))

    @staticmethod
    def of(array: np.ndarray) -> Const:
        """Return a present constant of the array's own type and shape."""
        return Const(TensorType(dtype_of(array), array.shape), array)

    @property
    def present(self) -> bool:
        """Return whether the data can be had."""
        return self.data is not None

    @property
    def loaded(self) -> np.ndarray | None:
        """Return the data, in its type's shape, when it is in memory already, else None."""
        return self.data if isinstance(self.data, np.ndarray) else None

    def array(self, name: str = "constant") -> np.ndarray:
        """Return the data, read-only, in its type's shape; raise `UserError` if absent or of another type."""
        if self.data is None:
            raise UserError(f"%{name} : {self.type} has no data: its weights are absent from the model")
        array = self.data if isinstance(self.data, np.ndarray) else self.data()
        if array.shape != self.type.shape or array.dtype != self.type.dtype.numpy:
            raise UserError(f"%{name} : {self.type} holds data of {array.dtype}{list(array.shape)}")
        return _read_only(array)


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return an array of the same shape whose elements cannot be changed: itself, or a view of it."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
