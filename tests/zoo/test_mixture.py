"""Mixtures of experts of the zoo compute what they are defined to compute, and read what a token needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mtia_emu import api, zoo
from mtia_emu.oracle import expected_outputs
from mtia_emu.types import ExpertsWork

Arrays = dict[str, np.ndarray]


def weights(path: Path) -> Arrays:
    """Return the weights of a file by name, as fp32."""
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {name: a.astype(np.float32) for name, a in tensors.items() if a.dtype == np.float16}


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def mixture(w: Arrays, h: np.ndarray, name: str, each: int) -> np.ndarray:
    """Return what the experts of a layer make of rows [tokens, hidden], token by token."""
    scores = h @ w[f"{name}.gate.weight"]
    out = np.zeros_like(h)
    for token, row in enumerate(h):
        chosen = np.argsort(-scores[token])[:each]
        powers = np.exp(scores[token][chosen] - scores[token].max())
        for expert, share in zip(chosen, powers / powers.sum(), strict=True):
            gate, up, down = (w[f"{name}.{part}_proj.weight"][expert] for part in ("gate", "up", "down"))
            out[token] += share * ((silu(row @ gate) * (row @ up)) @ down)
    return out


def test_a_mixture_computes_its_definition(tmp_path: Path) -> None:
    """What one layer adds: the graph is cut before and behind its experts."""
    path = zoo.build("mixture-tiny", {}, tmp_path, weights_seed=0)
    model, name = onnx.load(path), "model.layers.1.mlp"
    for value in (f"{name}.rows", f"{name}.view"):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    onnx.save(model, path)
    out = expected_outputs(path, zoo.example_inputs("mixture-tiny", {})).outputs
    rows, made = out[f"{name}.rows"], out[f"{name}.view"]
    right = mixture(weights(path), rows.astype(np.float32), name, 2)
    np.testing.assert_allclose(made.reshape(right.shape), right, atol=0.02)


@pytest.mark.parametrize("name", ["mixture-tiny", "deepseek-tiny"])
@pytest.mark.parametrize("new", [1, 5])
def test_prefill_then_step_gives_the_logits_of_one_prefill(name: str, new: int, tmp_path: Path) -> None:
    total, past = 16, 16 - new
    whole = {"batch": 2, "seq": total}
    feeds = zoo.example_inputs(name, whole, seed=4)

    def run(dims: dict[str, int], given: Arrays) -> Arrays:
        return expected_outputs(zoo.build(name, dims, tmp_path, weights_seed=0), given).outputs

    expected = run(whole, feeds)
    cache = run({"batch": 2, "seq": past}, {key: value[:, :past] for key, value in feeds.items()})
    tail = {key: value[:, past:] for key, value in feeds.items()}
    tail |= {k.replace("present", "past_key_values"): v for k, v in cache.items() if k.startswith("present")}
    step = run({"batch": 2, "seq": new, "past": past}, tail)
    for key, value in expected.items():
        np.testing.assert_allclose(step[key], value, atol=0.03)


@pytest.mark.parametrize("name", ["mixture-tiny", "deepseek-tiny"])
@pytest.mark.parametrize("dims", [{}, {"batch": 3, "seq": 1, "past": 7}])
def test_it_is_executed_and_right(name: str, dims: dict[str, int]) -> None:
    outcome = api.run(f"zoo:{name}", "mtia-2i", dims=dims, check=True)
    assert outcome.check is not None and outcome.check.passed
    kernels = {layer.kernel for layer in outcome.report.layers}
    assert "expert_matmul" in kernels
    works = [w for w in outcome.program.works if isinstance(w, ExpertsWork)]
    assert works and all(0 < w.batch <= 8 for w in works)


@pytest.mark.parametrize(
    ("name", "active_gb", "whole_gb"),
    [
        ("mixtral-8x22b", 78, 281),
        pytest.param("qwen3-235b", 43.7, 469, marks=pytest.mark.deep),
    ],
)
def test_a_token_reads_the_weights_of_its_experts(name: str, active_gb: float, whole_gb: float) -> None:
    """Published: 39 of 141 and 22 of 235 billion parameters, two bytes each; here all but the embedding."""
    facts = zoo.describe(name)
    assert float(facts["weight_bytes"]["value"]) / 1e9 == pytest.approx(whole_gb, rel=0.01)  # type: ignore[arg-type]
    assert float(facts["active_bytes"]["value"]) / 1e9 == pytest.approx(active_gb, rel=0.02)  # type: ignore[arg-type]
    report = api.run(f"zoo:{name}", "mtia-2i", dims={"seq": 1, "past": 16}, gpu=None).report
    table = zoo.describe(name)["vocab"]["value"] * zoo.describe(name)["hidden"]["value"] * 2  # type: ignore[operator]
    read = float(facts["active_bytes"]["value"]) - table  # type: ignore[arg-type]
    assert report.traffic.dram_read_bytes == pytest.approx(read, rel=0.02)
