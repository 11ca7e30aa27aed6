"""Work that a small file asks for: bounded in iterations, calls and bytes, and linear in the file's size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from mtia_emu.compiler.frontend import load, once
from onnx import TensorProto, helper

from mtia_emu import api
from mtia_emu.errors import UserError

NODE = helper.make_node
TRUE = helper.make_tensor("true", TensorProto.BOOL, (), [True])


def value(name: str, shape: Any = (2, 4), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def trips(count: int) -> onnx.TensorProto:
    return helper.make_tensor("trips", TensorProto.INT64, (), [count])


def saved(
    path: Path, nodes: list[Any], tensors: tuple[Any, ...] = (), functions: tuple[Any, ...] = ()
) -> Path:
    """Write a model of x to y."""
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y", None)], list(tensors))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=list(functions)), str(path))
    return path


def body(nodes: list[Any], result: str = "", tensors: tuple[Any, ...] = ()) -> onnx.GraphProto:
    """Return the body of a loop that carries `a` on to `result`, or nothing."""
    inputs = [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL)]
    outputs = [value("c", (), TensorProto.BOOL)]
    if result:
        inputs, outputs = [*inputs, value("a")], [*outputs, value(result)]
    return helper.make_graph(nodes, "body", inputs, outputs, list(tensors))


def calls(work: Callable[[], object]) -> int:
    """Return how many Python functions, and steps of generators, a piece of work enters."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fewer nodes be written out, so that a test is quick."""
    monkeypatch.setattr(once, "REPEATED", 2000)


@pytest.mark.usefixtures("few")
def test_empty_loops_within_one_another_are_refused(tmp_path: Path) -> None:
    inner = NODE("Loop", ["trips", "true"], ["in"], body=body([]))
    nodes = [NODE("Loop", ["trips", "true"], ["out"], body=body([inner])), NODE("Relu", ["x"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, (trips(4096), TRUE))
    with pytest.raises(UserError, match="once its loops and functions are written out"):
        load(path)


@pytest.mark.usefixtures("few")
def test_functions_that_call_others_twice_are_refused(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    bodies = [[NODE("Mul", ["a", "a"], ["o"])]]
    bodies += [
        [NODE(f"F{k}", ["a"], ["m"], domain="f"), NODE(f"F{k}", ["m"], ["o"], domain="f")] for k in range(24)
    ]
    made = tuple(helper.make_function("f", f"F{k}", ["a"], ["o"], b, opsets) for k, b in enumerate(bodies))
    path = saved(tmp_path / "m.onnx", [NODE("F24", ["x"], ["y"], domain="f")], (), made)
    with pytest.raises(UserError, match="once its loops and functions are written out"):
        load(path)


def test_nodes_that_stand_in_the_file_are_no_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "REPEATED", 8)
    names = ["x", *(f"h{k}" for k in range(40)), "y"]
    nodes = [NODE("Mul", [a, a], [b]) for a, b in pairwise(names)]
    assert len(load(saved(tmp_path / "m.onnx", nodes)).nodes) == 41
    looped = [NODE("Loop", ["trips", "true", "x"], ["y"], body=body([NODE("Mul", ["a", "a"], ["o"])], "o"))]
    with pytest.raises(UserError, match="written out"):
        load(saved(tmp_path / "m.onnx", looped, (trips(41), TRUE)))


WEIGHT = helper.make_tensor("w", TensorProto.FLOAT, (2, 4), range(8))
MANY = [float(v) for v in range(100)]


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([NODE("Add", ["a", "w"], ["o"])], (WEIGHT,)),
        ([NODE("Constant", [], ["w"], value=WEIGHT), NODE("Add", ["a", "w"], ["o"])], ()),
        ([NODE("Constant", [], ["w"], value_floats=MANY), NODE("ReduceSum", ["w"], ["s"]),
          NODE("MatMul", ["a", "m"], ["p"]), NODE("Add", ["p", "s"], ["o"])],
         (helper.make_tensor("m", TensorProto.FLOAT, (4, 4), range(16)),)),
    ],
)  # fmt: skip
def test_a_loops_constants_are_there_once(tmp_path: Path, nodes: list[Any], tensors: tuple[Any, ...]) -> None:
    looped = [NODE("Loop", ["trips", "true", "x"], ["y"], body=body(nodes, "o", tensors))]
    graph = load(saved(tmp_path / "m.onnx", looped, (trips(50), TRUE)))
    assert len(graph.nodes) >= 50 and len(graph.consts) <= 2
    x = np.ones((2, 4), np.float32)
    outcome = api.run(tmp_path / "m.onnx", "tiny", inputs={"x": x}, gpu=None, dtype="fp32", check=True)
    assert outcome.check is not None and outcome.check.passed


def test_a_branch_that_is_not_taken_costs_nothing_in_each_iteration(tmp_path: Path) -> None:
    def model(size: int) -> Path:
        names = [f"h{k}" for k in range(size)]
        long = helper.make_graph(
            [NODE("Add", [a, "x"], [b]) for a, b in zip(["x", *names], names, strict=False)],
            "e",
            [],
            [value(names[-1])],
        )
        short = helper.make_graph([NODE("Relu", ["x"], ["r"])], "t", [], [value("r")])
        choice = NODE("If", ["c"], ["o"], then_branch=short, else_branch=long)
        looped = NODE("Loop", ["trips", "true", "x"], ["y"], body=body([choice], "o"))
        return saved(tmp_path / f"{size}.onnx", [looped], (trips(100), TRUE))

    small, large = (calls(partial(load, model(size))) for size in (10, 100))
    assert large < 3 * small


def test_a_function_of_many_outputs_takes_work_in_proportion(tmp_path: Path) -> None:
    def model(count: int) -> Path:
        names = [f"o{k}" for k in range(count)]
        inner = [NODE("Relu" if k % 2 else "Neg", ["a"], [name]) for k, name in enumerate(names)]
        made = helper.make_function("f", "F", ["a"], names, inner, [helper.make_opsetid("", 17)])
        return saved(tmp_path / f"{count}.onnx", [NODE("F", ["x"], ["y"], domain="f")], (), (made,))

    small, large = (calls(partial(load, model(count))) for count in (100, 400))
    assert large < 6 * small


def test_a_concat_of_many_operands_takes_work_in_proportion(tmp_path: Path) -> None:
    def model(count: int) -> Path:
        nodes = [NODE("Relu", ["x"], ["r"]), NODE("Concat", ["r", "x"] * count, ["y"], axis=0)]
        return saved(tmp_path / f"{count}.onnx", nodes)

    api.compile_model(model(10), "tiny")
    small, large = (calls(partial(api.compile_model, model(count), "tiny")) for count in (50, 200))
    assert large < 6 * small


@pytest.mark.parametrize("sizes", [(), (1,)])
def test_a_sequence_of_very_many_parts_is_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, (3,), [1 << 30, 2, 4])
    one = helper.make_tensor("one", TensorProto.INT64, (), [1])
    nodes = [
        NODE("Expand", ["x", "shape"], ["e"]),
        NODE("SplitToSequence", ["e", *(["one"] if sizes else [])], ["q"], axis=0),
        NODE("SequenceAt", ["q", "one"], ["y"]),
    ]
    with pytest.raises(UserError, match="a sequence of 1073741824 parts"):
        load(saved(tmp_path / "m.onnx", nodes, (shape, one)))


def test_a_kernel_that_is_too_large_is_called_that(tmp_path: Path) -> None:
    nodes = [
        NODE("Reshape", ["x", "t"], ["i"]),
        NODE("Reshape", ["x", "u"], ["j"]),
        NODE("Expand", ["j", "k"], ["w"]),
        NODE("ConvTranspose", ["i", "w"], ["y"]),
    ]
    sizes = {"t": [1, 8, 1, 1], "u": [8, 1, 1, 1], "k": [8, 1, 1 << 31, 4]}
    tensors = tuple(helper.make_tensor(n, TensorProto.INT64, (4,), v) for n, v in sizes.items())
    with pytest.raises(UserError, match=r"its kernel of \[2147483648, 4\].*too large"):
        load(saved(tmp_path / "m.onnx", nodes, tensors))


def test_a_large_loop_that_never_runs_is_not_looked_at_in_each_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "REPEATED", 500)
    names = [f"h{k}" for k in range(400)]
    idle = body([NODE("Add", [a, "x"], [b]) for a, b in pairwise(["a", *names])], names[-1])
    zero = helper.make_tensor("zero", TensorProto.INT64, (), [0])
    outer = body([NODE("Loop", ["zero", "true", "a"], ["o"], body=idle)], "o")
    path = saved(
        tmp_path / "m.onnx",
        [NODE("Loop", ["trips", "true", "x"], ["y"], body=outer)],
        (trips(1000), zero, TRUE),
    )
    with pytest.raises(UserError, match="once its loops and functions are written out"):
        load(path)


def test_long_names_are_not_copied_in_each_iteration(tmp_path: Path) -> None:
    long = "n" * 50_000
    inner = [NODE("Add", ["a", "x"], [long], name=long), NODE("Mul", [long, "x"], ["o"])]
    looped = [NODE("Loop", ["trips", "true", "x"], ["y"], body=body(inner, "o"))]
    graph = load(saved(tmp_path / "m.onnx", looped, (trips(20), TRUE)))
    assert max(len(text) for node in graph.nodes for text in (node.name, node.origin)) < 300
