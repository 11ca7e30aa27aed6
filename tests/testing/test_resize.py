"""Sizes halved: what comes out is lawful, and as small as what fails allows."""

from __future__ import annotations

import math

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Graph
from onnx import TensorProto, helper, numpy_helper

from mtia_emu.testing import graphs
from mtia_emu.testing.resize import Change, changes, resized, shapes_of, shrink_sizes
from mtia_emu.testing.resize_onnx import shrink_onnx_sizes

PRODUCT = """graph t {
  in %x : fp32[4,6,64]
  const %w : fp32[64,48] = absent
  const %b : fp32[48] = absent
  %r : fp32[24,64] = reshape(%x) {shape=[24, 64]}
  %m : fp32[24,48] = matmul(%r, %w)
  %y : fp32[24,48] = add(%m, %b)
  out %y
}
"""


def types(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {name: graph.type_of(name).shape for name in ("x", "w", "b", "r", "y")}


def test_everything_may_become_one() -> None:
    small = shrink_sizes(text.parse(PRODUCT), lambda g: True)
    assert {math.prod(shape) for shape in types(small).values()} == {1}


def test_a_size_that_matters_stays() -> None:
    """The inner dimension is halved in both operands at once; the one that fails is kept."""
    seen = []

    def fails(graph: Graph) -> bool:
        seen.append(graph)
        return graph.type_of("y").shape[1] > 20

    found = types(shrink_sizes(text.parse(PRODUCT), fails))
    assert found == {"x": (1, 1, 1), "w": (1, 24), "b": (24,), "r": (1, 1), "y": (1, 24)}
    assert len({text.dump(g) for g in seen}) == len(seen) < 60


def test_data_are_the_first_of_what_was_there() -> None:
    graph = text.parse(
        "graph g {\n  const %c : fp32[4] = [1, 2, 3, 4]\n  %y : fp32[4] = neg(%c)\n  out %y\n}\n"
    )
    made = resized(graph, Change({("c", 0): 2}, {}))
    assert made is not None and made.consts["c"].array().tolist() == [1, 2]
    assert made.type_of("y").shape == (2,)


@settings(max_examples=30)
@given(graphs(), st.data())
def test_a_resized_graph_is_lawful_and_smaller(graph: Graph, data: st.DataObject) -> None:
    every = list(changes(shapes_of(graph)))
    change = data.draw(st.sampled_from(every)) if every else None
    made = resized(graph, change) if change else None
    if made is not None:
        check(made)
        before, after = (sum(map(sum, shapes_of(g).values())) for g in (graph, made))
        assert after < before and [n.name for n in made.nodes] == [n.name for n in graph.nodes]


def test_an_onnx_model_shrinks_with_the_shapes_that_it_holds() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    value = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6, 64]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [24, 48]),
    ]
    weights = [
        numpy_helper.from_array(np.ones((64, 48), np.float32), "w"),
        numpy_helper.from_array(np.array([24, 64]), "s"),
    ]
    made = helper.make_graph(nodes, "m", value[:1], value[1:], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    small = shrink_onnx_sizes(model, lambda m: m.graph.initializer[0].dims[1] > 20)
    onnx.checker.check_model(small, full_check=True)
    assert list(small.graph.initializer[0].dims) == [1, 24]
    assert [d.dim_value for d in small.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 1]
    assert [d.dim_value for d in small.graph.output[0].type.tensor_type.shape.dim] == [1, 24]
    assert model.graph.initializer[0].dims[1] == 48
