"""A folder of models, each executed in several number formats on its stored inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from mtia_emu.conformance import models
from mtia_emu.errors import UserError


def written(folder: Path, op: str, factor: float = 1.0, stored: bool = True) -> Path:
    """Write NAME/model.onnx, one node on [1, 2, 3], with factor times the right output stored."""
    (folder / op).mkdir(parents=True)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph), folder / op / "model.onnx")
    data = np.array([1, 2, 3], np.float32)
    if stored:
        np.savez(folder / op / "io.npz", **{"in:x": data, "out:y": -data * np.float32(factor)})
    return folder / op / "model.onnx"


def test_a_model_within_tolerance_passes_in_every_format(tmp_path: Path) -> None:
    model = models.judge(written(tmp_path, "Neg"))
    assert (model.name, model.nodes, list(model.runs)) == ("Neg", 1, list(models.DTYPES))
    assert all(run.passed for run in model.runs.values())
    assert model.runs["fp32"].tolerance < model.runs["fp16"].tolerance


def test_a_wrong_output_does_not_pass(tmp_path: Path) -> None:
    run = models.judge(written(tmp_path, "Neg", 1.05)).runs["fp16"]
    assert not run.passed and run.error == pytest.approx(0.05 / 1.05, rel=1e-3)


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    run = models.judge(written(tmp_path, "Unique")).runs["fp32"]
    assert not run.passed and "no such operator" in run.reason


def test_a_model_without_inputs_is_timed(tmp_path: Path) -> None:
    model = models.judge(written(tmp_path, "Neg", stored=False))
    assert model.runs == {} and model.seconds > 0


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no models"):
        models.run(tmp_path)
    written(tmp_path, "Neg")
    assert [m.name for m in models.run(tmp_path)] == ["Neg"]
