"""Constants that an importer makes of shapes alone: refused before they are made where they are too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.frontend import load
from onnx import TensorProto, helper, numpy_helper, save

from mtia_emu.errors import UserError

HUGE = 1 << 31
Given = dict[str, tuple[int, list[int]]]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def refusal(tmp_path: Path, op: str, given: Given, consts: dict[str, Any], **attrs: Any) -> str:
    """Return how the import of a node that works on inputs of those types and shapes is refused."""
    names = [*given, *consts]
    domain = attrs.pop("domain", "")
    node = helper.make_node(op, names, ["y", "z"][: attrs.pop("results", 1)], domain=domain, **attrs)
    inputs = [helper.make_tensor_value_info(n, *kind) for n, kind in given.items()]
    made = [numpy_helper.from_array(np.asarray(v), n) for n, v in consts.items()]
    outputs = [helper.make_tensor_value_info(n, 0, None) for n in node.output]
    graph = helper.make_graph([node], "g", inputs, outputs, made)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(UserError) as error:
        load(tmp_path / "m.onnx")
    return str(error.value)


def test_tables_that_shapes_alone_ask_for_are_bounded(tmp_path: Path) -> None:
    x: Given = {"x": (FLOAT, [1, 1, HUGE])}
    said = [
        refusal(tmp_path, "AveragePool", x, {}, kernel_shape=[2]),
        refusal(tmp_path, "MaxPool", x, {}, kernel_shape=[2], results=2),
        refusal(tmp_path, "Hardmax", {"x": (FLOAT, [2, HUGE])}, {}),
        refusal(tmp_path, "ReverseSequence", {"x": (FLOAT, [HUGE, 2]), "n": (INT64, [2])}, {}),
        refusal(tmp_path, "Resize", x, {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2], np.float32)}),
        refusal(
            tmp_path,
            "MaxUnpool",
            {"x": (FLOAT, [1, 1, 4]), "i": (INT64, [1, 1, 4])},
            {"s": np.array([1, 1, HUGE])},
            kernel_shape=[2],
            strides=[2],
        ),
        refusal(
            tmp_path, "STFT", {"x": (FLOAT, [1, HUGE, 1])}, {"step": np.int64(1), "w": np.ones(4, np.float32)}
        ),
    ]
    assert not [text for text in said if "constant of" not in text]


def test_a_product_of_constants_that_takes_long_is_left_to_the_machine() -> None:
    def folded(size: int) -> bool:
        b = NodeBuilder()
        ones = b.add("expand", b.constant(np.int64(1)), shape=(size, size))
        product = b.add("matmul", ones, ones)
        return product in b.consts

    assert folded(8) and not folded(2048)
