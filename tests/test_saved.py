"""Whatever `run` accepts, a compiled and saved program gives too: the same bytes, the same report."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import Result
from mtia_emu.compiler.pipeline import compile_graph
from onnx import ModelProto, helper, numpy_helper
from onnx.parser import parse_model

from mtia_emu import api, zoo
from mtia_emu.conformance import cases
from mtia_emu.errors import UserError
from mtia_emu.files.npz import read_npz
from mtia_emu.machine.chip import load_chip
from mtia_emu.program import file as program_file
from mtia_emu.program.isa import Program
from mtia_emu.study.lookups import known_lookups

Array = np.ndarray[Any, Any]
Cli = Callable[..., Result]
SHARED = Path(__file__).parents[2] / "shared"
HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
ODD = 'a "b"\\/\u202e\x1b[31m %<&\n\u00e9\U0001f600'  # of the characters that a name may have


def same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Return whether arrays are the same, name by name and byte by byte."""
    return a.keys() == b.keys() and all(
        (x.dtype, x.shape, x.tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes()) for k, x in a.items()
    )


def hold(program: Program, inputs: Mapping[str, Array] | None, folder: Path) -> None:
    """Assert that a program that was saved and loaded gives what it gave before, and the same file again."""
    path, again = folder / "p.mtia", folder / "again.mtia"
    program_file.save(program, path)
    back = program_file.load(path)
    ours, theirs = api.run(program, inputs=inputs), api.run(back, inputs=inputs)
    assert same(ours.outputs, theirs.outputs)
    assert ours.report == theirs.report and ours.gpu == theirs.gpu
    program_file.save(back, again)
    assert again.read_bytes() == path.read_bytes()


def hold_model(
    model: ModelProto, inputs: Mapping[str, Array], folder: Path, dtype: str | None = None, name: str = "m"
) -> None:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    hold(api.compile_model(path, "tiny", inputs=inputs, dtype=dtype), inputs, folder)


NUMBERS = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 65520.0, -3.4028235e38, 1e300, 5e-324]
FLOATS: dict[str, Any] = {
    "double": np.float64,
    "float": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize(("kind", "dtype"), [*((kind, None) for kind in FLOATS), ("float", "fp32")])
def test_constants_of_any_value(kind: str, dtype: str | None, tmp_path: Path) -> None:
    """As a number of a command, as what a Pad takes, as a tensor."""
    x = np.array([[1, -2, 3], [0, 5, -0.0]]).astype(FLOATS[kind])
    with np.errstate(all="ignore"):
        values = np.array(NUMBERS).astype(FLOATS[kind])
    nodes, consts = [], {"p": np.array([0, 1, 0, 0]), "m": np.array([[True, False, True]]), "all": values}
    for i, v in enumerate(values):
        consts[f"v{i}"] = np.asarray(v)
        nodes += [
            helper.make_node("Where", ["m", f"v{i}", "x"], [f"w{i}"]),
            helper.make_node("Pad", ["x", "p", f"v{i}"], [f"q{i}"]),
        ]
    nodes.append(helper.make_node("Identity", ["all"], ["c"]))
    outputs = [name for node in nodes for name in node.output]
    hold_model(model_of(nodes, {"x": x}, outputs, consts), {"x": x}, tmp_path, dtype)


def model_of(nodes: Any, given: Mapping[str, Array], outputs: Any, consts: Mapping[str, Array]) -> ModelProto:
    kinds = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
    held = [numpy_helper.from_array(x, name) for name, x in consts.items()]
    graph = helper.make_graph(nodes, "g", kinds, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


MODELS: dict[str, tuple[str, dict[str, Array]]] = {
    "masked attention": (
        "g (float[1,2,4,8] q, float[1,2,8,4] k, float[1,2,4,8] v, bool[1,1,4,4] m) => (float[1,2,4,8] y) "
        "<float n = {-inf}> { s = MatMul(q, k) t = Where(m, n, s) p = Softmax(t) y = MatMul(p, v) }",
        {
            "q": np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 2, 4, 8),
            "k": np.linspace(1, -1, 64, dtype=np.float32).reshape(1, 2, 8, 4),
            "v": np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 2, 4, 8),
            "m": ~np.tril(np.ones((4, 4), bool))[None, None],
        },
    ),
    "extreme integers": (
        "g (int64[3] x) => (int64[3] y, int64[3] z, uint8[3] u) "
        "<int64 a = {9223372036854775807}, int64 b = {-9223372036854775808}> "
        "{ y = Add(x, a) z = Sub(x, b) u = Cast<to=2>(y) }",
        {"x": np.array([-(2**63), 2**63 - 1, 2**53 + 1])},
    ),
    "nothing": (
        "g (float[0,3] x) => (float[0,3] y, float[3] s, int64[2] n) <int64[1] axis = {0}> "
        "{ y = Exp(x) s = ReduceSum<keepdims=0>(x, axis) n = Shape(x) }",
        {"x": np.zeros((0, 3), np.float32)},
    ),
    "attributes of a core": (
        "g (float[1,1,4,4] x, float[1,4] r) => (float[1,1,3,3] y) "
        "<int64[4] size = {1, 1, 3, 3}, float[8] roi = {0, 0, 0.4, 0.6, 1, 1, 0.6, 1.7}> "
        '{ y = Resize<coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=-inf>'
        "(x, roi, , size) }",
        {"x": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), "r": np.zeros((1, 4), np.float32)},
    ),
    "a model that is constant": ("g (float[1] x) => (float[1] y) <float[1] c = {-inf}> { y = Identity(c) }",
                                 {"x": np.zeros(1, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_of_each_kind(name: str, tmp_path: Path) -> None:
    text, given = MODELS[name]
    hold_model(parse_model(HEAD + text), given, tmp_path)


def test_names_with_any_character(tmp_path: Path) -> None:
    x = {ODD: np.ones((2, 3), np.float32)}
    nodes = [
        helper.make_node("MatMul", [ODD, ODD + "w"], [ODD + "1"], name=ODD),
        helper.make_node("Add", [ODD + "1", ODD + "b"], [ODD + "2"], name=""),
    ]
    consts = {ODD + "w": np.ones((3, 4), np.float32), ODD + "b": np.full(4, -np.inf, np.float32)}
    model = model_of(nodes, x, [ODD + "2"], consts)
    model.graph.name = model.producer_name = ODD
    hold_model(model, x, tmp_path, name=os.fsdecode(b"\xff m"))


@pytest.mark.parametrize(
    ("model", "dims", "dtype"),
    [
        pytest.param("llama-tiny", {"seq": 4}, None, marks=pytest.mark.deep),
        ("llama-tiny", {"seq": 1, "past": 5}, "int4"),
        pytest.param("dlrm-small", {"batch": 4}, "int8", marks=pytest.mark.deep),
        ("dlrm-small", {"batch": 3}, "quantise{weights=fp8_e4m3,activations=none}"),
    ],
)
def test_models_of_the_zoo(model: str, dims: dict[str, int], dtype: str | None, tmp_path: Path) -> None:
    program = api.compile_model(f"zoo:{model}", dims=dims, dtype=dtype, seed=1)
    hold(program, zoo.example_inputs(model, program.dims, 1), tmp_path)


@pytest.mark.parametrize("model", ["dlrm-small", "llama-tiny"])
def test_the_command_says_the_same(model: str, cli: Cli, tmp_path: Path) -> None:
    """Look-ups included: `run` times those of a zoo model, which a program does not hold."""
    saved = tmp_path / "p.mtia"
    assert cli("compile", f"zoo:{model}", "-o", saved).exit_code == 0
    ours, theirs = (cli("run", m, "--json", "-") for m in (f"zoo:{model}", saved))
    assert json.loads(ours.stdout) == json.loads(theirs.stdout)


def test_a_program_is_not_believed_to_be_of_the_zoo(tmp_path: Path) -> None:
    program = api.compile_model("zoo:dlrm-small", dims={"batch": 4})
    assert known_lookups(program)
    for wrong in ({"batch": 2**31 - 1}, {"batch": 5}, {"rows": 4}, {}):
        assert not known_lookups(replace(program, dims=wrong))
    assert not known_lookups(replace(program, source="zoo:llama-tiny"))
    assert not known_lookups(replace(program, source="dlrm-small"))


@pytest.mark.parametrize("name", ["masked_fill_attention", "external_data", "scan_directions"])
def test_given_cases(name: str, tmp_path: Path) -> None:
    hold_given(SHARED / "cases" / name, tmp_path)


def hold_given(folder: Path, to: Path, dtype: str | None = None) -> None:
    """Hold a model beside the checkout on its inputs, where the emulator takes it."""
    if not (folder / "io.npz").exists():
        pytest.skip(f"{folder} is not there, or has no inputs")
    given = {k[3:]: x for k, x in read_npz(str(folder / "io.npz")).items() if k.startswith("in:")}
    try:
        program = api.compile_model(folder / "model.onnx", inputs=given, dtype=dtype)
        api.run(program, inputs=given, gpu=None)
    except UserError as error:
        pytest.skip(f"not taken: {error}")
    hold(program, given, to)


def _given() -> list[Path]:
    return sorted(p.parent for kind in ("cases", "models") for p in SHARED.glob(f"{kind}/*/io.npz"))


@pytest.mark.deep
@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("folder", _given(), ids=lambda p: p.name)
def test_all_given_models(folder: Path, dtype: str | None, tmp_path: Path) -> None:
    hold_given(folder, tmp_path, dtype)


@cache
def operator_tests() -> list[Any]:
    """Return ONNX's tests of its operators."""
    return cases.cases()


@pytest.mark.deep
@pytest.mark.parametrize("part", range(40))
def test_all_operators(part: int, tmp_path: Path) -> None:
    held = [_hold_operator(case, tmp_path) for case in operator_tests()[part::40]]
    assert sum(held) * 2 > len(held)


def _hold_operator(case: Any, folder: Path) -> bool:
    """Hold an operator's test; return whether the emulator takes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = cases._arrays(case.model.graph.input, case.data_sets[0][0])
            graph, _ = cases._imported(case, given)
            program = compile_graph(graph, load_chip("tiny"))
            flat = {k: x for k, x in cases._flat(given).items() if k in graph.inputs}
            api.run(program.program, inputs=flat, gpu=None)
        except UserError:
            return False
        hold(program.program, flat, folder)
        return True
