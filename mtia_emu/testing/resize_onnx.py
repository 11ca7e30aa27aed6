"""Smaller sizes of ONNX models, as `resize` makes them of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .resize import Change, cut, halved

Model = Any  # onnx.ModelProto
MOST_SIZES = 16  # elements of a tensor of integers that may be a shape


def shrink_onnx_sizes(model: Model, fails: Callable[[Model], bool]) -> Model:
    """Return a model that still fails, with sizes of its inputs and weights halved as often as can be."""
    return halved(model, _shapes, resized_onnx, fails)


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs and weights; a dimension without a number is 0, which none is halved to."""
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in model.graph.input
        if v.type.HasField("tensor_type")
    }
    return shapes | {w.name: tuple(w.dims) for w in model.graph.initializer if not _may_be_shape(w)}


def resized_onnx(model: Model, change: Change) -> Model | None:
    """Return the model with sizes changed, types found anew; None where onnx does not take it.

    Small tensors of integers are taken to hold sizes, as those that a Reshape reads do.
    """
    import onnx

    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    for value in graph.input:
        for axis, d in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in change.places:
                d.dim_value = change.places[value.name, axis]
    known = {n for shape in _shapes(model).values() for n in shape}
    reshaped = {node.input[1] for node in graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for weight in graph.initializer:
        if weight.name in reshaped:
            _open(weight, known)
        _resize(weight, change.shape(weight.name, tuple(weight.dims)), change.sizes)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                _resize(attribute.t, tuple(attribute.t.dims), change.sizes)
    graph.ClearField("value_info")
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred: Model = onnx.shape_inference.infer_shapes(small, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
    except Exception:  # onnx raises errors of many kinds
        return None
    inferred.graph.ClearField("value_info")
    return inferred


def _resize(tensor: Any, shape: tuple[int, ...], sizes: Mapping[int, int]) -> None:
    """Cut a tensor to a shape; replace the sizes that it holds, where it may be a shape."""
    from onnx import numpy_helper

    if shape == tuple(tensor.dims) and not _may_be_shape(tensor):
        return
    array = cut(numpy_helper.to_array(tensor), shape)
    if _may_be_shape(tensor):
        array = np.array([sizes.get(n, n) for n in array.ravel().tolist()], array.dtype).reshape(array.shape)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _open(tensor: Any, known: set[int]) -> None:
    """Let a size of what a Reshape reads follow from the others (-1): one that is no input's or weight's."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor).copy()
    derived = [i for i, n in enumerate(array.ravel().tolist()) if n not in known]
    if derived and array.ndim == 1 and (array > 0).all():
        array[derived[0]] = -1
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _may_be_shape(tensor: Any) -> bool:
    import onnx

    whole = tensor.data_type == onnx.TensorProto.INT64
    return whole and len(tensor.dims) < 2 and int(np.prod(tensor.dims)) <= MOST_SIZES
