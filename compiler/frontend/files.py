"""Reading ONNX files and their tensors without trusting them."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import DType, TensorType

from ..build import MAX_ELEMENTS
from ..graph import Const
from ..ops.onnx_types import DTYPE_OF_ONNX
from ..ops.spelling import Unsupported

FILE_BYTES = 1 << 31  # what protobuf can hold
EAGER_BYTES = 1 << 16  # tensors up to this size are decoded at once


def read(path: Path) -> Any:
    """Return the ModelProto of a file; raise `UserError` when it is not one."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{path} is not a regular file (right: an .onnx file)")
        if info.st_size >= FILE_BYTES:
            raise UserError(
                f"{path} is of {info.st_size} bytes; an ONNX file is below {FILE_BYTES} (right: weights in a "
                "file beside it, as onnx.save writes them with save_as_external_data=True)"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is not an ONNX model, or is cut short: {error}") from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise UserError(f"{path} is not an ONNX model: it holds no graph")
    if not model.graph.output:
        raise UserError(f"{path}: the graph has no output")
    if any(isinstance(name, bytes) for name in _names(model)):
        raise UserError(f"{path} is not an ONNX model: it has a name that is not UTF-8")
    return model


def _names(model: Any) -> Iterator[str | bytes]:
    """Yield the names in a model; protobuf gives as bytes those that are not UTF-8."""
    yield from (o.domain for o in model.opset_import)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from (o.domain for o in function.opset_import)
        yield from _names_of_nodes(function.node)
    yield from _names_of_graph(model.graph)


def _names_of_graph(graph: Any) -> Iterator[str | bytes]:
    yield graph.name
    yield from (t.name for t in graph.initializer)
    yield from (t.values.name for t in graph.sparse_initializer)
    for value in (*graph.input, *graph.output):
        yield value.name
        if value.type.HasField("tensor_type"):
            yield from (d.dim_param for d in value.type.tensor_type.shape.dim)
    yield from _names_of_nodes(graph.node)


def _names_of_nodes(nodes: Any) -> Iterator[str | bytes]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attr in node.attribute:
            yield from (attr.name, attr.ref_attr_name, attr.t.name)
            for graph in (*([attr.g] if attr.type == 5 else []), *attr.graphs):
                yield from _names_of_graph(graph)


def initializers(graph: Any) -> dict[str, Any]:
    """Return the constants of a graph by name, dense and sparse; raise `UserError` for a name given twice."""
    tensors: dict[str, Any] = {}
    named = [(t.name, t) for t in graph.initializer] + [(t.values.name, t) for t in graph.sparse_initializer]
    for name, tensor in named:
        if name in tensors:
            raise UserError(f"constant %{name} is given twice, as two initializers (right: once)")
        tensors[name] = tensor
    return tensors


def text_of(value: str | bytes) -> str:
    """Return a protobuf string as text, whatever its bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def shape_of(dims: Any, name: str) -> tuple[int, ...]:
    """Return a tensor's dimensions; raise `UserError` for negative or absurd ones."""
    shape = tuple(int(d) for d in dims)
    if any(d < 0 for d in shape):
        raise UserError(f"tensor %{name} has a negative dimension: {list(shape)}")
    if len(shape) > 64 or math.prod(shape) > MAX_ELEMENTS:
        raise UserError(f"tensor %{name}, of shape {list(shape)}, has more than {MAX_ELEMENTS} elements")
    return shape


def tensor_const(tensor: Any, folder: Path, allow_missing: bool) -> Const:
    """Return a TensorProto as a constant, its data read when first needed.

    Raises `Unsupported` for element types that we do not have, `UserError` for tensors that are inconsistent.
    """
    name = tensor.name or "constant"
    shape = shape_of(tensor.dims, name)
    element = DTYPE_OF_ONNX.get(tensor.data_type)
    external = tensor.data_location == 1  # EXTERNAL
    if element is None:
        if external:
            _external_file(tensor, folder)
        raise Unsupported(f"%{name} is of ONNX element type {tensor.data_type}, which we do not have")
    kind = TensorType(element, shape)
    if external:
        return _external(tensor, kind, folder, allow_missing)
    if kind.bytes <= EAGER_BYTES:
        return Const(kind, _inline(tensor, kind))
    _check_length(tensor, kind)
    return Const(kind, lambda: _inline(tensor, kind))


_FIELDS = {
    "fp32": "float_data",
    "fp64": "double_data",
    "int64": "int64_data",
    "uint64": "uint64_data",
    "uint32": "uint64_data",
}


def _field(tensor: Any, element: DType) -> Any:
    return getattr(tensor, _FIELDS.get(element.name, "int32_data"))


def stored_bytes(kind: TensorType) -> int:
    """Return the bytes that a tensor takes in a file: elements below a byte are packed."""
    return -(-kind.size * kind.dtype.bits // 8) if kind.dtype.bits < 8 else kind.bytes


def _check_length(tensor: Any, kind: TensorType) -> None:
    name, size = tensor.name or "constant", stored_bytes(kind)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            raise UserError(
                f"tensor %{name} : {kind} takes {size} bytes, its data has {len(tensor.raw_data)}"
            )
        return
    count = len(_field(tensor, kind.dtype))
    if count != (size if kind.dtype.bits < 8 else kind.size):
        raise UserError(f"tensor %{name} : {kind} has {kind.size} elements, its data has {count}")


def _inline(tensor: Any, kind: TensorType) -> np.ndarray:
    """Return the data that stands in the file itself, in its type's shape."""
    _check_length(tensor, kind)
    element = kind.dtype
    if tensor.HasField("raw_data"):
        return _from_bytes(tensor.raw_data, kind)
    values = np.array(_field(tensor, element))
    if element.bits < 8:
        return _from_bytes(values.astype(np.uint8).tobytes(), kind)
    if element.is_float and element.bits <= 16:  # bit patterns
        return (
            values.astype(np.uint16 if element.bits == 16 else np.uint8)
            .view(element.numpy)
            .reshape(kind.shape)
        )
    return values.astype(element.numpy).reshape(kind.shape)


def _from_bytes(data: bytes, kind: TensorType) -> np.ndarray:
    if kind.dtype.name == "bool":
        return (np.frombuffer(data, np.uint8) != 0).reshape(kind.shape)
    if kind.dtype.bits < 8:
        from ..ops.nbits import unpack

        codes = unpack(np.frombuffer(data, np.uint8), kind.dtype.bits)[: kind.size]
        return _signed(codes, kind.dtype).reshape(kind.shape)
    return np.frombuffer(data, kind.dtype.numpy).reshape(kind.shape)


def _signed(codes: np.ndarray, element: DType) -> np.ndarray:
    """Return bit patterns of less than a byte as numbers of that type, in the same shape."""
    if element.is_float:
        return codes.view(element.numpy)
    if element.name.startswith("int"):
        codes = codes.astype(np.int8)
        codes = np.where(codes >> (element.bits - 1), codes - np.int8(1 << element.bits), codes)
    return codes.astype(element.numpy)


def _external_file(tensor: Any, folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the file that a tensor names, which must be in the model's folder, and its other entries."""
    entries = {text_of(e.key): text_of(e.value) for e in tensor.external_data}
    name, location = tensor.name or "constant", entries.get("location", "")
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or os.path.isabs(location) or location[0] in "/\\" or ".." in parts:
        raise UserError(
            f"tensor %{name}: external data at {location!r} must be inside the model's folder, without '..'"
        )
    root = os.path.realpath(folder)
    real = os.path.realpath(os.path.join(root, location))
    if os.path.commonpath([root, real]) != root:
        raise UserError(
            f"tensor %{name}: external data at {location!r} leads out of the model's folder, to {real}"
        )
    return Path(real), entries


def _external(tensor: Any, kind: TensorType, folder: Path, allow_missing: bool) -> Const:
    """Return a constant read from a file beside the model; without data when that file is not there."""
    path, entries = _external_file(tensor, folder)
    name = tensor.name or "constant"
    offset, length = (
        _count(entries.get(key, default), name, key) for key, default in (("offset", "0"), ("length", ""))
    )
    size = stored_bytes(kind)
    if length not in (-1, size):
        raise UserError(f"tensor %{name} : {kind} takes {size} bytes, its external data has {length}")
    try:
        info = path.stat()
    except OSError:
        if allow_missing:
            return Const(kind)
        raise UserError(f"tensor %{name}: its data file {path} is missing") from None
    if not stat.S_ISREG(info.st_mode):
        raise UserError(f"tensor %{name}: external data {path} is not a regular file")
    if offset + size > info.st_size:
        raise UserError(
            f"tensor %{name} : {kind} is at bytes {offset} to {offset + size} of {path}, "
            f"which has {info.st_size}"
        )
    return Const(kind, lambda: _read_at(path, offset, kind))


def _read_at(path: Path, offset: int, kind: TensorType) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(stored_bytes(kind))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) != stored_bytes(kind):
        raise UserError(f"{path} was cut short while it was read")
    return _from_bytes(data, kind)


def _count(text: str, name: str, key: str) -> int:
    """Return a byte count from an external-data entry; -1 when it is not given."""
    if text == "":
        return -1
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UserError(f"tensor %{name}: {key} of external data must be a byte count, not {text!r}")
    return int(text)
