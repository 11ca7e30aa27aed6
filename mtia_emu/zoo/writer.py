"""Collect the nodes, weights and constants of a model, and write them as an ONNX file."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 10  # what torch.onnx.export writes with opset 20
WEIGHT_BYTES = 2  # fp16
ONNX_TYPES: dict[type[np.generic], int] = {np.float32: 1, np.float16: 10}  # onnx.proto, TensorProto.DataType

Attribute = int | float | str | list[int]


class Fact(TypedDict):
    """One parameter of a model: its value, its unit of measure, and where the value comes from."""

    value: int | float | str | list[int]
    unit: str
    source: str


def fact(value: int | float | str | list[int], unit: str, source: str) -> Fact:
    """Return the three as a `Fact`."""
    return Fact(value=value, unit=unit, source=source)


def megabytes(size: int) -> str:
    """Return a size in bytes as text in units of 2**20 bytes, as in '512.0 MB'."""
    return f"{size / 2**20:,.1f} MB"


@dataclass(frozen=True)
class Weight:
    """An fp16 parameter, and the normal distribution from which random values of it are drawn."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def values(self, seed: int) -> np.ndarray:
        """Return random fp16 values of its shape, which depend on the seed and the name only."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        drawn = rng.standard_normal(self.shape, dtype=np.float32)
        return (drawn * np.float32(self.std) + np.float32(self.mean)).astype(np.float16)


@dataclass(frozen=True)
class Port:
    """A graph input or output."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A node with one result, which has the node's name, or two: that and `second`."""

    name: str
    op_type: str
    operands: tuple[str, ...]
    attributes: dict[str, Attribute]
    second: str = ""

    def node(self) -> onnx.NodeProto:
        """Return the ONNX node."""
        from onnx import helper

        results = [self.name, self.second] if self.second else [self.name]
        node = helper.make_node(self.op_type, self.operands, results, self.name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in self.attributes.items())
        return node


@dataclass
class ModelWriter:
    """A model in the making: every method that adds something returns the name of the value it adds.

    Equal constants are stored once. `name` names the data file in which absent weights would lie.
    """

    name: str
    ops: list[Operation] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    _constant_names: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Return the number of weight elements."""
        return sum(weight.size for weight in self.weights)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights."""
        return self.parameters * WEIGHT_BYTES

    def input(self, name: str, dtype: type[np.generic], *shape: int) -> str:
        """Add a graph input."""
        self.inputs.append(Port(name, np.dtype(dtype), shape))
        return name

    def output(self, name: str, dtype: type[np.generic], *shape: int) -> str:
        """Declare a value to be a graph output."""
        self.outputs.append(Port(name, np.dtype(dtype), shape))
        return name

    def weight(self, name: str, *shape: int, std: float, mean: float = 0.0) -> str:
        """Add an fp16 parameter."""
        self.weights.append(Weight(name, shape, std, mean))
        return name

    def constant(self, value: np.ndarray | np.generic) -> str:
        """Add a constant of any shape whose value is always stored."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constant_names:
            self._constant_names[key] = f"const_{len(self.constants)}"
            self.constants[self._constant_names[key]] = array
        return self._constant_names[key]

    def ints(self, *values: int) -> str:
        """Add an int64 vector: a shape, or a list of axes."""
        return self.constant(np.array(values, np.int64))

    def op(self, op_type: str, *operands: str, name: str, **attributes: Attribute) -> str:
        """Add a node; its result has its name."""
        self.ops.append(Operation(name, op_type, operands, attributes))
        return name

    def top(self, x: str, k: int, *, name: str) -> tuple[str, str]:
        """Add the k largest elements of rows; return them and their places."""
        operation = Operation(name, "TopK", (x, self.ints(k)), {"axis": -1}, f"{name}.places")
        self.ops.append(operation)
        return name, operation.second

    def cast(self, x: str, dtype: type[np.generic], *, name: str) -> str:
        """Add the conversion of `x` to fp32 or fp16."""
        return self.op("Cast", x, name=name, to=ONNX_TYPES[dtype])

    def save(self, path: Path, seed: int | None) -> Path:
        """Write the ONNX file, with random weights where a seed is given, and return its path."""
        import onnx
        from onnx import helper, numpy_helper

        nodes = [operation.node() for operation in self.ops]
        stored = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(
            nodes, self.name, _infos(self.inputs), _infos(self.outputs), stored + self._initializers(seed)
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mtia-emu"
        )
        onnx.save(model, path)
        return path

    def _initializers(self, seed: int | None) -> list[onnx.TensorProto]:
        from onnx import numpy_helper

        if seed is not None:
            return [numpy_helper.from_array(weight.values(seed), weight.name) for weight in self.weights]
        offset, tensors = 0, []
        for weight in self.weights:
            tensors.append(_absent(weight, f"{self.name}.weights", offset))
            offset += weight.size * WEIGHT_BYTES
        return tensors


def _infos(ports: list[Port]) -> list[onnx.ValueInfoProto]:
    from onnx import helper

    return [
        helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), port.shape)
        for port in ports
    ]


def _absent(weight: Weight, location: str, offset: int) -> onnx.TensorProto:
    """Return a tensor whose data would lie at `offset` of a file that nobody writes."""
    import onnx

    tensor = onnx.TensorProto(
        name=weight.name,
        dims=weight.shape,
        data_type=onnx.TensorProto.FLOAT16,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", weight.size * WEIGHT_BYTES)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
