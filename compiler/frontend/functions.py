"""The bodies that the ONNX standard gives to composite operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtia_emu.types import TensorType

from ..ops.onnx_types import DTYPE_OF_ONNX

_NUMBER = {dtype.name: number for number, dtype in DTYPE_OF_ONNX.items()}


def body_of_schema(
    node: Any, opsets: Mapping[str, int], types: Sequence[TensorType | None] | None = None
) -> Any | None:
    """Return the FunctionProto of a standard operator, defaults included; None when it has no body.

    Bodies that depend on operand types need `types`; without them, not None says only that there is one.
    """
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    version = opsets.get(domain, 1)
    schema: Any
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        return _with_defaults(schema.function_body, schema)
    if not schema.has_context_dependent_function:
        return None
    if types is None:
        return schema
    return _specialise(schema, node, version, types)


def same_since(node: Any, old: int, new: int) -> bool:
    """Return whether an operator of the standard set is the same in two versions of that set."""
    import onnx

    try:
        versions = {onnx.defs.get_schema(node.op_type, v, "").since_version for v in (old, new)}
    except onnx.defs.SchemaError:
        return False
    return len(versions) == 1


def _specialise(schema: Any, node: Any, version: int, types: Sequence[TensorType | None]) -> Any | None:
    import onnx

    versions = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if not versions:
        return None
    protos = [
        onnx.helper.make_tensor_type_proto(_NUMBER[t.dtype.name], t.shape).SerializeToString()
        if t is not None
        else onnx.TypeProto().SerializeToString()
        for t in types
    ]
    data = schema.get_context_dependent_function_with_opset_version(
        max(versions), node.SerializeToString(), protos
    )
    return _with_defaults(onnx.FunctionProto.FromString(data), schema) if data else None


def _with_defaults(body: Any, schema: Any) -> Any:
    """Return a function's body that carries the defaults of its operator's attributes."""
    import onnx

    function = onnx.FunctionProto()
    function.CopyFrom(body)
    for attr in schema.attributes.values():
        if attr.default_value.name:
            function.attribute_proto.append(attr.default_value)
    return function
