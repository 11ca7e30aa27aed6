"""The zoo's files are valid, static, small, and compute what the models are defined to compute."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import onnx
import pytest

from mtia_emu import zoo
from mtia_emu.errors import UserError
from mtia_emu.oracle import expected_outputs
from mtia_emu.types import DTYPES, DType
from mtia_emu.zoo import operators
from mtia_emu.zoo.bags import BagTables
from mtia_emu.zoo.llama import Llama
from mtia_emu.zoo.models import MODELS
from mtia_emu.zoo.writer import ModelWriter

SMALL = ["llama-tiny", "dlrm-small", "resnet-tiny", "mixture-tiny", "deepseek-tiny"]
STEPS: list[dict[str, int]] = [{}, {"batch": 3}, {"seq": 1, "past": 7}, {"batch": 2, "seq": 5, "past": 4}]
Arrays = dict[str, np.ndarray]


def run(path: Path, feeds: Arrays) -> Arrays:
    """Return the outputs of a file by name, from the oracle."""
    return expected_outputs(path, feeds).outputs


def shapes(value_infos: Any) -> list[list[int | None]]:
    """Return the dimensions of each value, None where one is not static."""
    types = [info.type.tensor_type for info in value_infos]
    return [[d.dim_value if d.HasField("dim_value") else None for d in t.shape.dim] for t in types]


def weights(path: Path) -> Arrays:
    """Return the initializers of a file by name, floats as fp32."""
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in tensors.items()}


# ---- the files


@pytest.mark.parametrize("name", zoo.zoo_names())
def test_weightless_file_is_small_and_static(name: str, tmp_path: Path) -> None:
    path = zoo.build(name, {}, tmp_path)
    assert path.stat().st_size < 2**21
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    model = onnx.load(path, load_external_data=False)
    assert model.opset_import[0].version == 20
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {info.name for info in [*inferred.value_info, *inferred.output]}
    assert {name for node in inferred.node for name in node.output} == known
    for shape in shapes([*inferred.input, *inferred.value_info, *inferred.output]):
        assert None not in shape


@pytest.mark.parametrize("dims", STEPS)
def test_every_kind_of_step_infers_without_data_propagation(dims: dict[str, int], tmp_path: Path) -> None:
    model = onnx.load(zoo.build("llama-tiny", dims, tmp_path), load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    assert all(None not in shape for shape in shapes([*inferred.value_info, *inferred.output]))
    assert sum(map(len, (inferred.value_info, inferred.output))) == len(inferred.node)


def test_absent_weights_lie_one_after_another_at_the_same_place_for_all_dimensions(tmp_path: Path) -> None:
    layouts = []
    for dims in ({}, {"seq": 1, "past": 64}):
        graph = onnx.load(zoo.build("llama-3-8b", dims, tmp_path), load_external_data=False).graph
        absent = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        entries = [{e.key: e.value for e in t.external_data} for t in absent]
        end = 0
        for tensor, entry in zip(absent, entries, strict=True):
            assert entry["location"] == "llama-3-8b.weights"
            assert int(entry["offset"]) == end
            assert int(entry["length"]) == 2 * math.prod(tensor.dims)
            end += int(entry["length"])
        assert end == zoo.describe("llama-3-8b")["weight_bytes"]["value"]
        layouts.append([(t.name, e["offset"]) for t, e in zip(absent, entries, strict=True)])
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize("name", SMALL)
def test_seeded_file_is_valid_and_deterministic(name: str, tmp_path: Path) -> None:
    first = zoo.build(name, {"batch": 2}, tmp_path / "first", weights_seed=1)
    again = zoo.build(name, {"batch": 2}, tmp_path / "again", weights_seed=1)
    other = zoo.build(name, {"batch": 2}, tmp_path / "other", weights_seed=2)
    onnx.checker.check_model(str(first), full_check=True)
    assert first.read_bytes() == again.read_bytes()
    feeds = zoo.example_inputs(name, {"batch": 2}, seed=3)
    results = [next(iter(run(path, feeds).values())) for path in (first, again, other)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_seed_gives_the_same_weights_for_all_dimensions(tmp_path: Path) -> None:
    prefill = weights(zoo.build("llama-tiny", {}, tmp_path, weights_seed=5))
    decode = weights(zoo.build("llama-tiny", {"seq": 1, "past": 3}, tmp_path, weights_seed=5))
    shared = [name for name in prefill if name.endswith("weight")]
    assert len(shared) == 2 + 1 + 2 * 9
    for name in shared:
        np.testing.assert_array_equal(prefill[name], decode[name])


# ---- what they compute


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * weight


def rotate(x: np.ndarray, theta: float) -> np.ndarray:
    """Turn [heads,seq,dim] by position, as complex numbers: another way of writing what the graph does."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(x.shape[1]), theta ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], -1)


def llama_reference(w: Arrays, tokens: np.ndarray) -> np.ndarray:
    """Return the last logits of a two-layer model for one sequence, in fp32 and without a graph."""
    x, seq = w["model.embed_tokens.weight"][tokens], len(tokens)
    for name in ("model.layers.0", "model.layers.1"):
        h = rms_norm(x, w[f"{name}.input_layernorm.weight"])
        qkv = (h @ w[f"{name}.self_attn.{part}_proj.weight"] for part in "qkv")
        q, k, v = (part.reshape(seq, -1, 32).transpose(1, 0, 2) for part in qkv)
        q, k, v = rotate(q, 10000.0), rotate(k, 10000.0), v
        k, v = (part.repeat(len(q) // len(k), 0) for part in (k, v))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(32) + np.triu(np.full((seq, seq), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(seq, -1)
        x = x + mixed @ w[f"{name}.self_attn.o_proj.weight"]
        h = rms_norm(x, w[f"{name}.post_attention_layernorm.weight"])
        gate = h @ w[f"{name}.mlp.gate_proj.weight"]
        both = gate / (1 + np.exp(-gate)) * (h @ w[f"{name}.mlp.up_proj.weight"])
        x = x + both @ w[f"{name}.mlp.down_proj.weight"]
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"].T)
    return rms_norm(x[-1], w["model.norm.weight"]) @ head


def test_llama_computes_its_definition(tmp_path: Path) -> None:
    path = zoo.build("llama-tiny", {"batch": 2}, tmp_path, weights_seed=0)
    feeds = zoo.example_inputs("llama-tiny", {"batch": 2})
    logits = run(path, feeds)["logits"]
    assert logits.shape == (2, 1, 1024)
    assert logits.dtype == np.float16
    assert 0.5 < logits.astype(np.float32).std() < 2.0
    for row, tokens in enumerate(feeds["input_ids"]):
        np.testing.assert_allclose(logits[row, 0], llama_reference(weights(path), tokens), atol=0.02)


def test_tied_embeddings_and_unshared_heads_compute_their_definition(tmp_path: Path) -> None:
    model = replace(cast(Llama, MODELS["llama-tiny"]), kv_heads=8, tied=True)
    dims = model.default_dims()
    path = model.graph("variant", dims).save(tmp_path / "variant.onnx", seed=0)
    assert "lm_head.weight" not in weights(path)
    feeds = model.example_inputs(dims, seed=1)
    expected = llama_reference(weights(path), feeds["input_ids"][0])
    np.testing.assert_allclose(run(path, feeds)["logits"][0, 0], expected, atol=0.02)


@pytest.mark.parametrize("new", [1, 5])
def test_prefill_then_step_gives_the_logits_of_one_prefill(new: int, tmp_path: Path) -> None:
    total, past = 16, 16 - new
    feeds = zoo.example_inputs("llama-tiny", {"batch": 2, "seq": total}, seed=4)
    whole = run(zoo.build("llama-tiny", {"batch": 2, "seq": total}, tmp_path, weights_seed=0), feeds)
    head = {name: value[:, :past] for name, value in feeds.items()}
    cache = run(zoo.build("llama-tiny", {"batch": 2, "seq": past}, tmp_path, weights_seed=0), head)
    tail = {name: value[:, past:] for name, value in feeds.items()}
    for name in cache:
        if name.startswith("present"):
            tail[name.replace("present", "past_key_values")] = cache[name]
    dims = {"batch": 2, "seq": new, "past": past}
    step = run(zoo.build("llama-tiny", dims, tmp_path, weights_seed=0), tail)
    assert step.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(step[name], value, atol=0.02)


def dlrm_reference(w: Arrays, feeds: Arrays) -> np.ndarray:
    """Return the probabilities of dlrm-small, in fp32 and without a graph."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = feeds["dense"].astype(np.float32)
    for layer in range(2):
        x = np.maximum(linear(x, f"dense_arch.{layer}"), 0)
    bags = [w[f"embedding_bags.{t}.weight"][feeds[f"indices_{t}"]].sum(1) for t in range(8)]
    x0 = x = np.concatenate([x, *bags], 1)
    for name in ("crossnet.0", "crossnet.1", "crossnet.2"):
        x = x0 * (x @ w[f"{name}.V"].T @ w[f"{name}.W"].T + w[f"{name}.bias"]) + x
    for layer in range(2):
        x = np.maximum(linear(x, f"over_arch.{layer}"), 0)
    return 1 / (1 + np.exp(-linear(x, "over_arch.logits")))


def test_dlrm_computes_its_definition(tmp_path: Path) -> None:
    path = zoo.build("dlrm-small", {}, tmp_path, weights_seed=0)
    feeds = zoo.example_inputs("dlrm-small", {})
    assert [feeds[f"indices_{t}"].shape[1] for t in range(8)] == [3, 8, 1, 5, 20, 1, 2, 1]
    result = run(path, feeds)["probability"]
    assert result.shape == (64, 1)
    assert 0.1 < result.astype(np.float32).std() < 0.45
    np.testing.assert_allclose(result, dlrm_reference(weights(path), feeds), atol=0.01)


@pytest.mark.parametrize("dims", STEPS)
def test_example_inputs_fit_the_graph(dims: dict[str, int], tmp_path: Path) -> None:
    feeds = zoo.example_inputs("llama-tiny", dims, seed=9)
    outputs = run(zoo.build("llama-tiny", dims, tmp_path, weights_seed=9), feeds)
    assert all(np.isfinite(value).all() for value in outputs.values())
    assert feeds["position_ids"][0, 0] == dims.get("past", 0)


# ---- the facts


# Totals of the published checkpoints (safetensors metadata of each repository).
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
        ("mixtral-8x22b", 140_620_634_112),
        ("qwen3-235b", 235_093_634_560),
    ],
)
def test_parameters_are_the_published_ones(name: str, published: int) -> None:
    assert zoo.describe(name)["parameters"]["value"] == published


def test_mlperf_tables() -> None:
    facts = zoo.describe("dlrm-mlperf")
    rows, pooling = facts["rows"]["value"], facts["pooling"]["value"]
    assert isinstance(rows, list)
    assert isinstance(pooling, list)
    assert len(rows) == len(pooling) == facts["tables"]["value"] == 26
    assert (sum(rows), sum(pooling)) == (204_184_588, 214)


@pytest.mark.parametrize("name", zoo.zoo_names())
def test_every_fact_has_unit_and_source(name: str) -> None:
    for key, fact in zoo.describe(name).items():
        assert fact["unit"], key
        assert fact["source"], key


def test_long_waves_are_slowed_and_short_ones_kept() -> None:
    model = cast(Llama, MODELS["llama-3.2-1b"])
    plain = 500000.0 ** -(np.arange(32) / 32)
    ratio = plain / model.frequencies()
    turns = 8192 * plain / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 4], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[turns < 1], 32.0, rtol=1e-6)
    assert np.all(np.diff(ratio) >= -1e-5)


# ---- what is refused


def test_unknown_model() -> None:
    with pytest.raises(UserError, match=r"unknown model 'llama-3-8' *; did you mean 'llama-3-8b'"):
        zoo.dims("llama-3-8")


def test_unknown_dimension(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown dimension of dlrm-small 'seq' \(known: batch\)"):
        zoo.build("dlrm-small", {"seq": 4}, tmp_path)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8", None, 2**40])
def test_impossible_dimension(size: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama-tiny: dimension 'seq' is .*: it must be an integer from 1"):
        zoo.build("llama-tiny", {"seq": size}, tmp_path)


def test_negative_past(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dimension 'past' is -1: it must be an integer from 0 to "):
        zoo.build("llama-tiny", {"past": -1}, tmp_path)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_impossible_seed(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights_seed is .*: it must be an integer of at least 0"):
        zoo.build("llama-tiny", {}, tmp_path, weights_seed=seed)


def test_too_many_weights_to_store(tmp_path: Path) -> None:
    words = r"llama-3.2-1b: executing it needs 2,357\.1 MB of random weights, and at most 512\.0 MB are made"
    with pytest.raises(UserError, match=words):
        zoo.build("llama-3.2-1b", {}, tmp_path, weights_seed=0)
    assert not list(tmp_path.iterdir())


# ---- the room


def test_equal_constants_are_stored_once() -> None:
    writer = ModelWriter("test")
    assert writer.ints(1, 2) == writer.ints(1, 2)
    assert len({writer.ints(1), writer.constant(np.int64(1)), writer.constant(np.float32(1))}) == 3


def test_importing_the_zoo_imports_no_onnx() -> None:
    code = "import mtia_emu.zoo, sys; mtia_emu.zoo.describe('llama-3-8b'); sys.exit('onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- production embedding bags


def test_bags_pool_rows_of_tables_of_unlike_sizes(tmp_path: Path) -> None:
    bags = BagTables(rows=(50, 2, 9), dims=(8, 4, 12), pooling=3, batch=5)
    path = bags.graph("bags", {"batch": 5}).save(tmp_path / "bags.onnx", 1)
    feeds, tables = bags.example_inputs({"batch": 5}, 2), weights(path)
    expected = [tables[f"embedding_bags.{t}.weight"][feeds[f"indices_{t}"]].sum(1) for t in range(3)]
    (pooled,) = run(path, feeds).values()
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, np.concatenate(expected, axis=1), rtol=1e-2, atol=1e-2)


def test_production_bags_are_those_of_fbgemm() -> None:
    found = {name.rpartition("-")[2]: m for name, m in MODELS.items() if isinstance(m, BagTables)}
    assert len(found) == 10
    for model in found.values():
        assert len(model.rows) == len(model.dims) and (model.pooling, model.batch) == (20, 2048)
    reference = Path(__file__).resolve().parents[2] / "shared/reference/mtia/production_tbe_specs.json"
    if not reference.exists():
        pytest.skip(f"no reference data at {reference}")
    specs = json.loads(reference.read_text(encoding="utf-8"))["specs"]
    assert {key: (list(m.rows), list(m.dims)) for key, m in found.items()} == {
        key: (spec["rows"], spec["dims"]) for key, spec in specs.items()
    }


def test_production_bags_have_look_ups_without_weights() -> None:
    name = "tbe-production-0"
    inputs = zoo.example_inputs(name, {}, seed=4)
    for table, rows in enumerate(cast(list[int], zoo.describe(name)["rows"]["value"])):
        drawn = inputs[f"indices_{table}"]
        assert drawn.shape == (2048, 20) and drawn.min() >= 0 and drawn.max() < rows
    drawn = inputs["indices_3"]  # of 30 million rows: alike, hardly one would be asked for twice
    assert len(np.unique(drawn)) < 0.95 * drawn.size


def test_a_product_of_a_type_that_onnx_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DTYPES, "fp8_e3m4", DType("fp8_e3m4", np.dtype(ml_dtypes.float8_e3m4), 8))
    monkeypatch.setattr(operators, "GEMM_TYPES", ("fp16", "fp8_e3m4"))
    with pytest.raises(UserError, match=r"ONNX has no element type float8_e3m4 \(right: fp16\)"):
        operators.Gemm(4, 4, 4, "fp8_e3m4").build(tmp_path, None)


def test_resnet_50_has_the_published_sizes() -> None:
    """He et al., table 1: 3.8e9 multiply-adds without the stride in 3x3; torchvision counts 25,557,032
    parameters, whose 53,120 of norms are 26,560 biases here."""
    assert zoo.describe("resnet-50")["parameters"]["value"] == 25_557_032 - 53_120 + 26_560
