"""A small model that is annotated by hand for two devices: columns of one weight, rows of the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Edit = Callable[[Any], None]


def spec(model: Any, node: int = 0, tensor: int = 0) -> Any:
    """Return the sharding of a tensor of a node: of node 0 those of %w1 and %x, of node 2 that of %w2."""
    return model.graph.node[node].device_configurations[0].sharding_spec[tensor]


def annotated_mlp(path: Path, edit: Edit | None = None) -> Path:
    """Write the model, after what `edit` does to it."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (64, 128)), ("w2", (128, 64)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="up"),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="down"),
    ]
    _shard(nodes[0], "w1", 1)
    _shard(nodes[0], "x", None)
    _shard(nodes[2], "w2", 0)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8, 64]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, ir_version=11, opset_imports=[helper.make_opsetid("", 20)])
    model.configuration.add(name="two", num_devices=2)
    if edit is not None:
        edit(model)
    onnx.save(model, path)
    return path


def _shard(node: Any, tensor: str, axis: int | None) -> None:
    said = node.device_configurations
    of = said[0] if said else said.add(configuration_id="two")
    added = of.sharding_spec.add(tensor_name=tensor, device=[0, 1])
    if axis is not None:
        added.sharded_dim.add(axis=axis).simple_sharding.add(num_shards=2)
