"""The frontend's manners: dimensions, external data, hostile files, and what it tells the user."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.reference import evaluate
from onnx import TensorProto, helper, numpy_helper

from mtia_emu.errors import UserError

F = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[object]],
    outputs: list[str] | None = None,
    weights: dict[str, np.ndarray] | None = None,
    kind: int = F,
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, kind, v) for k, v in inputs.items()],
        [helper.make_empty_tensor_value_info(o) for o in outputs or [nodes[-1].output[0]]],
        [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def saved(tmp_path: Path, made: onnx.ModelProto | bytes) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


RELU = helper.make_node("Relu", ["x"], ["y"], name="act")


def test_the_least_model(tmp_path: Path) -> None:
    graph = load(saved(tmp_path, model([RELU], {"x": [2, 3]})))
    assert [str(t) for t in graph.inputs.values()] == ["fp32[2,3]"]
    (node,) = graph.nodes
    assert (node.op, node.inputs, node.outputs, node.origin) == ("relu", ("x",), ("y",), "act")


@pytest.mark.parametrize(
    ("dims", "given", "shape"),
    [
        ([4, 3], {}, (4, 3)),
        (["batch", 3], {"batch": 5}, (5, 3)),
        (["2", "16"], {}, (2, 16)),
        (["b", "past + seq"], {"b": 1, "past": 7, "seq": 2}, (1, 9)),
        (["s36 + 1", "2*s36 - 4//2"], {"s36": 5}, (6, 8)),
        (["s36 + 1", 3], {"s36 + 1": 4}, (4, 3)),
        ([None, 3], {"x:0": 6}, (6, 3)),
        (["?", -1], {"x:0": 6, "x:1": 2}, (6, 2)),
        (["batch size", 3], {"batch size": 2}, (2, 3)),
    ],
)
def test_dimensions_are_bound(
    tmp_path: Path, dims: list[object], given: dict[str, int], shape: tuple[int, ...]
) -> None:
    assert load(saved(tmp_path, model([RELU], {"x": dims})), given).type_of("y").shape == shape


@pytest.mark.parametrize(
    ("dims", "given", "words"),
    [
        (["batch", 3], {}, r"'batch' \(in x\); give each one, for example: --dim batch=1"),
        (["past + seq", 3], {"seq": 1}, r"'past' \(in x\)"),
        ([None, 3], {}, r"'x:0' \(in x\)"),
        (["batch", 3], {"bach": 2}, "unknown dimension 'bach'; did you mean 'batch'"),
        (["batch", 3], {"batch": -2}, "dimension 'batch' cannot be -2"),
        (["a - b", 3], {"a": 1, "b": 2}, r"negative dimension: \[-1, 3\]"),
        (["a // b", 3], {"a": 1, "b": 0}, "have no size"),
        (["__import__('os').getpid()", 3], {}, "have no size"),
        (["a ** 9", 3], {"a": 9}, "have no size"),
        (["batch", 3], {"batch": 1 << 50}, "more than"),
    ],
)
def test_dimensions_that_cannot_be_bound(
    tmp_path: Path, dims: list[object], given: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load(saved(tmp_path, model([RELU], {"x": dims})), given)


def test_given_shapes_win_and_may_contradict_one_symbol(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "z"], ["y"], axis=0)]
    path = saved(tmp_path, model(nodes, {"x": ["n"], "z": ["n"]}))
    assert load(path, {}, input_shapes={"x": (3,), "z": (4,)}).type_of("y").shape == (7,)
    assert load(path, {}, input_shapes={"x": (3,)}).type_of("y").shape == (6,)
    with pytest.raises(UserError, match="input x has 1 dimensions, the shape given has 2"):
        load(path, {}, input_shapes={"x": (3, 1)})
    with pytest.raises(UserError, match="unknown input 'xx'"):
        load(path, {}, input_shapes={"xx": (3,)})


def test_all_unsupported_operators_are_named_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unique", ["x"], ["a"], name="c1"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Unique", ["b"], ["c"], name="c2"),
        helper.make_node("Frobnicate", ["c"], ["y"], name="f", domain="acme"),
    ]
    with pytest.raises(UserError) as caught:
        load(saved(tmp_path, model(nodes, {"x": [4, 4]})))
    message = str(caught.value)
    assert "3 nodes are not supported" in message
    assert "Unique x2: no such operator (c1, c2)" in message
    assert "acme::Frobnicate x1" in message


def test_faults_name_the_node(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc1")]
    with pytest.raises(UserError, match=r"MatMul fc1: inner sizes differ: fp32\[2,3\] and fp32\[4,5\]"):
        load(saved(tmp_path, model(nodes, {"x": [2, 3], "w": [4, 5]})))


def test_cycles_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(UserError, match=r"the model's graph has a cycle: .*Add one"):
        load(saved(tmp_path, model(nodes, {"x": [2]})))


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    graph = load(saved(tmp_path, model(nodes, {"x": [2]}, ["y"])))
    assert [n.op for n in graph.nodes] == ["neg", "relu"]


def test_undefined_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Relu act reads %x, which nothing defines"):
        load(saved(tmp_path, model([RELU], {"z": [2]})))


def test_values_defined_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="%y is defined twice"):
        load(saved(tmp_path, model([RELU, helper.make_node("Neg", ["x"], ["y"])], {"x": [2]})))


def test_an_output_that_is_an_input_or_known(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Identity", ["x"], ["y"])]
    graph = load(saved(tmp_path, model(nodes, {"x": [2]}, ["s", "y", "x"])))
    out = evaluate(graph, {"x": np.ones(2, np.float32)})
    assert {k: v.tolist() for k, v in out.items()} == {"s": [2], "y": [1, 1], "x": [1, 1]}


def test_a_branch_on_shapes_is_taken(tmp_path: Path) -> None:
    branches = {}
    for name, op in (("then_branch", "Neg"), ("else_branch", "Exp")):
        value = helper.make_empty_tensor_value_info(f"{op}_y")
        branches[name] = helper.make_graph([helper.make_node(op, ["x"], [f"{op}_y"])], op, [], [value])
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Greater", ["n", "three"], ["big"]),
        helper.make_node("If", ["big"], ["y"], **branches),
    ]
    path = saved(tmp_path, model(nodes, {"x": ["n"]}, weights={"three": np.array(3)}))
    assert [n.op for n in load(path, {"n": 5}).nodes] == ["neg"]
    assert [n.op for n in load(path, {"n": 2}).nodes] == ["exp"]


def test_a_loop_of_known_length_is_unrolled(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "x"], ["w"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v", F, [2])],
        [value("d", TensorProto.BOOL, []), value("w", F, [2])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    graph = load(saved(tmp_path, model(nodes, {"x": [2]}, weights={"n": np.array(3)})))
    assert evaluate(graph, {"x": np.ones(2, np.float32)})["y"].tolist() == [4, 4]


def test_functions_of_the_model_are_written_out(tmp_path: Path) -> None:
    function = helper.make_function(
        "acme",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="acme")], {"x": [2]})
    made.functions.append(function)
    assert [n.op for n in load(saved(tmp_path, made)).nodes] == ["add"]


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    call = helper.make_node("Twice", ["a"], ["b"], domain="acme")
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="acme")], {"x": [2]})
    opsets = [helper.make_opsetid("", 20)]
    made.functions.append(helper.make_function("acme", "Twice", ["a"], ["b"], [call], opsets))
    with pytest.raises(UserError, match="nested"):
        load(saved(tmp_path, made))


def test_giant_constants_are_not_made(tmp_path: Path) -> None:
    fill = helper.make_node("ConstantOfShape", ["s"], ["c"])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    made = model([fill, add], {"x": [1]}, weights={"s": np.array([1 << 36])})
    graph = load(saved(tmp_path, made))
    assert [n.op for n in graph.nodes] == ["expand", "add"]
    nodes = [helper.make_node("Range", ["a", "n", "b"], ["y"])]
    weights = {"a": np.array(0), "n": np.array(1 << 40), "b": np.array(1)}
    with pytest.raises(UserError, match="makes a constant of 1099511627776 elements"):
        load(saved(tmp_path, model(nodes, {}, weights=weights)))
    nodes = [helper.make_node("Expand", ["x", "s"], ["y"])]
    with pytest.raises(UserError, match="more than"):
        load(saved(tmp_path, model(nodes, {"x": [1]}, weights={"s": np.array([1 << 30, 1 << 30])})))


# external data


def external(location: str, offset: str | None = None, length: str | None = None) -> onnx.ModelProto:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [4]})
    tensor = made.graph.initializer.add(name="w", data_type=F, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return made


def test_external_data_are_read_when_needed(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"skip" + np.arange(4, dtype=np.float32).tobytes())
    graph = load(saved(tmp_path, external("w.bin", "4", "16")))
    assert not isinstance(graph.consts["w"].data, np.ndarray)
    assert evaluate(graph, {"x": np.zeros(4, np.float32)})["y"].tolist() == [0, 1, 2, 3]


def test_data_beyond_two_gigabytes_lie_beside_the_file(tmp_path: Path) -> None:
    """In the file itself protobuf has no room for them; beside it they are read where they lie."""
    place = (1 << 32) + 4
    with open(tmp_path / "w.bin", "wb") as file:
        file.seek(place)
        file.write(np.arange(4, dtype=np.float32).tobytes())
    graph = load(saved(tmp_path, external("w.bin", str(place), "16")))
    assert evaluate(graph, {"x": np.zeros(4, np.float32)})["y"].tolist() == [0, 1, 2, 3]
    with open(tmp_path / "whole.onnx", "wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(UserError, match="right: weights in a file beside it"):
        load(tmp_path / "whole.onnx")


def test_absent_external_data_leave_constants_without_data(tmp_path: Path) -> None:
    path = saved(tmp_path, external("gone.bin"))
    assert not load(path).consts["w"].present
    with pytest.raises(UserError, match=r"gone\.bin is missing"):
        load(path, allow_missing_weights=False)


OUTSIDE = ["/etc/passwd", "../w.bin", "a/../../w.bin", "..\\w.bin", "\\\\host\\w", "", "a\0b"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(UserError, match="must be inside the model's folder"):
        load(saved(tmp_path, external(location)))


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"0" * 16)
    os.symlink(tmp_path / "secret", folder / "w.bin")
    os.symlink(tmp_path, folder / "up")
    for location in ("w.bin", "up/secret"):
        with pytest.raises(UserError, match="leads out of the model's folder"):
            load(saved(folder, external(location)))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for location in ("pipe", "folder"):
        with pytest.raises(UserError, match="is not a regular file"):
            load(saved(tmp_path, external(location)))
    with pytest.raises(UserError, match="is not a regular file"):
        load(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("offset", "length", "words"),
    [
        ("8", None, "at bytes 8 to 24 of .*, which has 16"),
        ("0", "8", "takes 16 bytes, its external data has 8"),
        ("-4", None, "offset of external data must be a byte count"),
        ("9" * 30, None, "must be a byte count"),
        ("0", "many", "length of external data must be a byte count"),
    ],
)
def test_external_data_past_the_file_are_refused(
    tmp_path: Path, offset: str, length: str | None, words: str
) -> None:
    (tmp_path / "w.bin").write_bytes(b"0" * 16)
    with pytest.raises(UserError, match=words):
        load(saved(tmp_path, external("w.bin", offset, length)))


# hostile files


NOISE = [b"", b"not a model", b"\x00" * 100, b"{}", b"\x08\x0a\x3a\x00", b"\xff" * 50]


@pytest.mark.parametrize("data", NOISE)
def test_what_is_not_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="is not an ONNX model"):
        load(saved(tmp_path, data))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        load(tmp_path / "gone.onnx")


def test_tensors_that_lie_are_refused(tmp_path: Path) -> None:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    made = model([add], {"x": [4]}, weights={"w": np.ones(4, np.float32)})
    made.graph.initializer[0].dims[0] = 5
    with pytest.raises(UserError, match=r"%w : fp32\[5\] takes 20 bytes, its data has 16"):
        load(saved(tmp_path, made))
    made.graph.initializer[0].dims[0] = -4
    with pytest.raises(UserError, match=r"%w has a negative dimension: \[-4\]"):
        load(saved(tmp_path, made))
    made.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    with pytest.raises(UserError, match="more than"):
        load(saved(tmp_path, made))


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    data = model([RELU], {"x": [2]}).SerializeToString()
    with pytest.raises(UserError, match="a name that is not UTF-8"):
        load(saved(tmp_path, data.replace(b"act", b"a\xff\xfe")))


def sample_bytes() -> bytes:
    """Return a model with most kinds of parts: weights, attributes, a branch, a symbolic size."""
    value = helper.make_empty_tensor_value_info
    branch = helper.make_graph([helper.make_node("Neg", ["h"], ["n"])], "b", [], [value("n")])
    other = helper.make_graph([helper.make_node("Exp", ["h"], ["e"])], "b", [], [value("e")])
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1, alpha=0.5),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("ReduceSum", ["s"], ["n"], keepdims=0),
        helper.make_node("Greater", ["n", "k"], ["c"]),
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=other),
        helper.make_node("Softmax", ["i"], ["p"], axis=-1),
        helper.make_node("Slice", ["p", "z", "k1", "z"], ["y"]),
    ]
    weights = {
        "w": np.ones((5, 3), np.float32),
        "b": np.ones(5, np.float32),
        "k": np.array(3),
        "k1": np.array([2]),
        "z": np.array([0]),
    }
    return model(nodes, {"x": ["n", 3]}, weights=weights).SerializeToString()


def survives(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(UserError):
        load(saved(tmp_path, data), input_shapes={"x": (4, 3)})


def test_every_truncation_is_refused_or_loads(tmp_path: Path) -> None:
    data = sample_bytes()
    load(saved(tmp_path, data), {"n": 4})
    for end in range(len(data)):
        survives(tmp_path, data[:end])


@pytest.mark.parametrize("seed", range(8))
def test_every_mutation_is_refused_or_loads(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = sample_bytes()
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            spoilt[rng.randrange(len(spoilt))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        survives(tmp_path, bytes(spoilt))
