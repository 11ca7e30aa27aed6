"""Import of a model whose weights are to change: its stored floats become inputs, under their own names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..graph import Const, Graph
from ..ops.onnx_types import DTYPE_OF_ONNX
from .failures import NotImported
from .files import initializers, read, shape_of, tensor_const
from .load import InputBindings, import_model

ROUNDS = 8  # times that stored values which the import must know are put back


def load_trainable(
    path: str | Path,
    dims: Mapping[str, int] | None = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Graph, dict[str, Const]]:
    """Return the graph of an ONNX file with its stored floats as inputs, and these floats by name.

    Numbers alone stay constants, and so does what the import must know (sizes, pads). More: `load`.
    """
    path = Path(path)
    model = read(path)
    stored = {
        name: tensor
        for name, tensor in initializers(model.graph).items()
        if hasattr(tensor, "data_type") and _is_weight(tensor, name)
    }
    given = InputBindings(dims or {}, input_shapes or {})
    for _ in range(ROUNDS):
        try:
            graph = import_model(_with_inputs(model, stored), path, given, allow_missing_weights=True)
            break
        except NotImported as failed:
            known = failed.inputs & stored.keys()
            if not known:
                raise
            stored = {name: tensor for name, tensor in stored.items() if name not in known}
    else:
        graph = import_model(model, path, given, allow_missing_weights=True)
        stored = {}
    consts = {n: tensor_const(t, path.parent, True) for n, t in stored.items() if n in graph.inputs}
    return graph, consts


def _is_weight(tensor: Any, name: str) -> bool:
    kind, size = DTYPE_OF_ONNX.get(tensor.data_type), 1
    for extent in shape_of(tensor.dims, name):
        size *= extent
    return kind is not None and kind.is_float and kind.bits >= 16 and size > 1


def _with_inputs(model: Any, stored: Mapping[str, Any]) -> Any:
    """Return a copy of a model in which stored tensors are inputs."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [t for t in copy.graph.initializer if t.name not in stored]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    there = {i.name for i in copy.graph.input}
    for name, tensor in stored.items():
        if name not in there:
            kind = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            copy.graph.input.append(kind)
    return copy
