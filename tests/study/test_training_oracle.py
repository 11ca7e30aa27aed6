"""Steps that are held to: by onnxruntime, or by references where ONNX lacks an op."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.text import parse

from mtia_emu.study.training_oracle import StepOracle

STEP = "graph s {\n  in %w : fp32[3]\n  in %g : fp32[3]\n  %n : fp32[3] = BODY\n  out %n at %w\n}\n"
FUSED = 'map(%w, %g) {tape="2 -> t0 | t0 = sub(x0, x1) : fp32", to="fp32"}'


@pytest.mark.parametrize(
    ("body", "name"),
    [("sub(%w, %g)", "onnxruntime"), (FUSED, "the references of its ops (ONNX has no map)")],
)
def test_each_of_the_graphs_is_executed(body: str, name: str) -> None:
    twice = STEP.replace("BODY", "add(%w, %g)")
    oracle = StepOracle([parse(twice), parse(STEP.replace("BODY", body))])
    w, g = np.float32([1, 2, 3]), np.float32([3, 2, 1])
    assert oracle.name == name
    np.testing.assert_array_equal(oracle(1, {"w": w, "g": g, "more": g})["n"], [-2, 0, 2])
    np.testing.assert_array_equal(oracle(0, {"w": w, "g": g})["n"], [4, 4, 4])
