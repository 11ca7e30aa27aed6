"""How far outputs are from onnxruntime's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtia_emu import oracle
from mtia_emu.errors import UserError
from mtia_emu.oracle import compare_outputs, onnxruntime_outputs

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("got", "expected", "absolute", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, 0),
        ([1.0, 2.5], [1.0, 2.0], 0.5, 0.25),
        ([0.0, 0.5], [0.0, 0.0], 0.5, 0.5),
        ([INF, -INF, NAN], [INF, -INF, NAN], 0, 0),
        ([1.0, INF], [1.0, 2.0], INF, INF),
        ([1.0, 2.0], [1.0, INF], INF, INF),
        ([NAN, 2.0], [1.0, 2.0], INF, INF),
        ([INF], [-INF], INF, INF),
        ([4.0, INF], [5.0, INF], 1, 0.2),
        ([], [], 0, 0),
    ],
)
def test_distance(got: list[float], expected: list[float], absolute: float, relative: float) -> None:
    check = compare_outputs({"y": np.array(got)}, {"y": np.array(expected)}, 0.1)
    assert (check.max_abs_error, check.max_rel_error) == (absolute, relative)
    assert check.passed == (relative <= 0.1)


def test_cosine_and_signal_to_noise() -> None:
    (found,) = compare_outputs({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 3.0])}, 1).outputs.values()
    assert found.cosine == pytest.approx(21 / (5 * 18**0.5))
    assert found.sqnr_db == pytest.approx(10 * np.log10(18))
    for got, expected in (([0.0], [0.0]), ([INF], [1.0])):
        (found,) = compare_outputs({"y": np.array(got)}, {"y": np.array(expected)}, 1).outputs.values()
        assert (found.cosine, found.sqnr_db) == (None, None)


def test_scalars_booleans_and_integers() -> None:
    got = {"a": np.array(3.0), "b": np.array([True]), "c": np.array([7], np.uint8)}
    expected = {"a": np.array(3.0), "b": np.array([True]), "c": np.array([9], np.uint8)}
    check = compare_outputs(got, expected, 1e-2)
    assert [d.max_abs_error for d in check.outputs.values()] == [0, 0, 2]


def test_outputs_that_are_missing_or_of_another_shape_fail() -> None:
    for got in ({}, {"y": np.zeros((2, 1))}):
        assert not compare_outputs(got, {"y": np.zeros(2)}, 1e9).passed


def test_what_onnxruntime_refuses(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=r"onnxruntime cannot run m\.onnx, so there is nothing to check against"
    ):
        onnxruntime_outputs(tmp_path / "m.onnx", {})


def test_what_onnxruntime_has_no_memory_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One product of 20 GB: the limit is what is named, not the model."""
    side, kinds = 100_000, onnx.TensorProto.FLOAT
    column, row = (
        onnx.helper.make_tensor_value_info(n, kinds, s) for n, s in (("a", [side, 1]), ("b", [1, side]))
    )
    out = onnx.helper.make_tensor_value_info("y", kinds, [side, side])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["y"])], "g", [column, row], [out]
    )
    onnx.save(onnx.helper.make_model(graph, ir_version=10), tmp_path / "m.onnx")
    ones = {"a": np.ones((side, 1), np.float32), "b": np.ones((1, side), np.float32)}
    with pytest.raises(UserError, match=r"more memory for m\.onnx than MTIA_EMU_MEMORY_BYTES allows"):
        onnxruntime_outputs(tmp_path / "m.onnx", ones)


@pytest.mark.parametrize("op", ["MatMul", "MatMulInteger"])
@pytest.mark.parametrize("place", [b"s\xff\xfe.onnx", b"d\xff/m.onnx"])
def test_a_model_whose_path_is_not_utf_8_is_run_with_its_files_of_weights(
    op: str, place: bytes, tmp_path: Path
) -> None:
    """By its oracles' own account these take no such path; expected: 300 * 2 of ones and twos."""
    path = tmp_path / os.fsdecode(place)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError:
        pytest.skip("the file system takes no such name")
    kind = TensorProto.FLOAT if op == "MatMul" else TensorProto.UINT8
    ends = [("x", kind, [1, 300]), ("y", TensorProto.FLOAT if op == "MatMul" else TensorProto.INT32, [1, 8])]
    infos = [helper.make_tensor_value_info(*end) for end in ends]
    ones = np.full((300, 8), 2, helper.tensor_dtype_to_np_dtype(kind))
    node = helper.make_node(op, ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], [numpy_helper.from_array(ones, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    plain = tmp_path / "plain.onnx"
    onnx.save(made, str(plain), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").rename(path.parent / "w.bin")
    plain.rename(path)
    found = oracle.expected_outputs(path, {"x": np.ones((1, 300), ones.dtype)})
    assert found.outputs["y"].tolist() == [[600] * 8]
