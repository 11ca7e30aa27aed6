"""A mixture of experts in ONNX: a router, and onnxruntime's own MoE node behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS, WIDE, INNER, EXPERTS, EACH = 8, 16, 32, 4, 2


def write(folder: Path) -> Path:
    """Write the model, fp32 with seeded weights; return its file."""
    rng = np.random.default_rng(0)
    shapes = {"router": (WIDE, EXPERTS), "fc1": (EXPERTS, INNER, WIDE), "fc2": (EXPERTS, WIDE, INNER)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "router"], ["scores"]),
        helper.make_node(
            "MoE", ["x", "scores", "fc1", "", "fc2"], ["y"], domain="com.microsoft",
            k=EACH, activation_type="silu", normalize_routing_weights=1,
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny-experts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [TOKENS, WIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [TOKENS, WIDE])],
        [numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / "tiny-experts.onnx"
    onnx.save(model, path)
    return path
