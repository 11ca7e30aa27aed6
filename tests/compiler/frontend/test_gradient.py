"""ONNX's `Gradient` operator, by the examples of its own text and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import mtia_emu
from mtia_emu.errors import UserError

A, B = np.float32([[1, 2], [3, 4]]), np.float32([[0.5, -1], [2, 3]])


def slopes(
    to: Path, nodes: list[Any], outputs: tuple[str, ...], **given: np.ndarray
) -> dict[str, np.ndarray]:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value(n, 1, x.shape) for n, x in given.items()], [value(n, 1, A.shape) for n in outputs]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.preview.training", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), to / "g.onnx")
    return dict(mtia_emu.run(to / "g.onnx", inputs=given, dtype="fp32", gpu=None).outputs)


def gradient(inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    return helper.make_node("Gradient", inputs, outputs, domain="ai.onnx.preview.training", **attrs)


def test_of_a_sum_and_a_product(tmp_path: Path) -> None:
    """The example of the operator's text: d = (a + b) a, and its slopes 2 a + b and a."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["c", "a"], ["d"]),
        gradient(["a", "b"], ["da", "db"], xs=["a", "b"], y="d"),
    ]
    out = slopes(tmp_path, nodes, ("d", "da", "db"), a=A, b=B)
    np.testing.assert_allclose(out["da"], 2 * A + B)
    np.testing.assert_allclose(out["db"], A)


def test_what_is_held_still_passes_nothing_on(tmp_path: Path) -> None:
    """By a alone, c held: d = c a has the slope c. d is no output, and read by nothing but its name."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["c", "a"], ["d"]),
        gradient(["a", "c"], ["da"], xs=["a"], zs=["c"], y="d"),
    ]
    np.testing.assert_allclose(slopes(tmp_path, nodes, ("da",), a=A, b=B)["da"], A + B)


def test_of_what_does_not_depend_on_it_it_is_zero_and_twice_is_the_second(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["a", "a"], ["s"]),
        helper.make_node("Mul", ["s", "a"], ["y"]),
        gradient(["a", "b"], ["first", "none"], xs=["a", "b"], y="y"),
        gradient(["a"], ["second"], xs=["a"], y="first"),
    ]
    out = slopes(tmp_path, nodes, ("first", "none", "second"), a=A, b=B)
    np.testing.assert_allclose(out["first"], 3 * A * A)
    np.testing.assert_allclose(out["second"], 6 * A)
    assert not out["none"].any()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (gradient(["b"], ["da"], xs=["a"], y="d"), "its operand %b is not %a"),
        (gradient(["a"], ["da"], xs=["a"], y="q"), "there is no value %q"),
        (gradient(["a"], ["da"], xs=["a"]), "there is no value %"),
        (gradient(["a"], ["da"], xs=["a", "b"], y="d"), "Gradient"),
    ],
)
def test_what_names_other_values_is_refused(tmp_path: Path, node: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        slopes(tmp_path, [helper.make_node("Mul", ["a", "b"], ["d"]), node], ("da",), a=A, b=B)
