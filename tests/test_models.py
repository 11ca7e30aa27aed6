"""Exported models run from the command line: their outputs against those that onnxruntime gave.

Whatever is not within tolerance is listed with its reason, so that a change in either direction is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from mtia_emu.files.npz import read_npz
from mtia_emu.oracle import compare_outputs

Cli = Callable[..., Result]
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
MODELS = [
    "deepctr_dcn_legacy_op17",
    "deepctr_deepfm_dynamo_op20",
    "deepctr_xdeepfm_dynamo_op20",
    "dlrm_dynamo_op20_dense2d",
    "dlrm_legacy_op17_offsets",
    "dlrm_ortquant_qdq_int8",
    "eb_dynamo_op20_mean_offsets",
    "eb_dynamo_op20_sum_2d",
    "eb_dynamo_op20_sum_offsets_weighted",
    "eb_legacy_op11_sum_offsets",
    "eb_legacy_op17_max_offsets",
    "eb_legacy_op17_sum_offsets",
    "genai_llama_int4_cpu",
    "genai_qwen3_int4_cpu",
    "hf_gpt2_prefill_dyn",
    "hf_llama_decode_dyn",
    "hf_llama_prefill_dyn",
    "hf_llama_prefill_dyn_ortcpu",
    "hf_mixtral_prefill_dyn",
    "hf_qwen2_decode_dyn",
    "llama_dynamo_op20_prefill_dyn",
    "llama_dynamo_op20_prefill_fp16",
    "llama_dynamo_op23_prefill_static",
    "llama_legacy_op17_decode_dyn_sdpa",
    "llama_legacy_op17_prefill_dyn_sdpa",
    "llama_ortquant_dynamic_int8",
    "optimum_llama_past",
    "optimum_phi3_past",
    "pre_magika_0_5_1_model",
    "pre_rapidocr_3_10_0_ch_ppocr_mobile_v2_0_cls_mobile",
    "pre_silero_vad_6_2_3_silero_vad_16k_op15",
    "rechub_din",
    "rechub_mmoe",
    "rechub_widedeep",
    "torchrec_dcn_dynamo_op20",
    "torchrec_dot_legacy_op17",
]
WEIGHTLESS = {
    "weightless_llama32_1b_decode1024": (),
    "weightless_llama3_8b_prefill128": (),
    "genai_llama_fp16_cuda": (
        "batch_size=1", "sequence_length=4", "total_sequence_length=9", "past_sequence_length=5",
        "kv_cache_dim=16",
    ),
}  # fmt: skip
FAILING = {  # (model, dtype): (at least, at most) of the relative error, and why
    ("genai_llama_int4_cpu", "fp32"): (
        5e-3,
        2e-2,
    ),  # onnxruntime rounded activations to 8 bits
    ("genai_qwen3_int4_cpu", "fp32"): (5e-3, 2e-2),  # the same
    ("llama_dynamo_op20_prefill_fp16", "fp32"): (1e-4, 2e-3),  # the stored outputs were computed in fp16
    ("llama_ortquant_dynamic_int8", "fp16"): (
        1e-2,
        5e-2,
    ),  # activations near a rounding edge cross it
    ("pre_magika_0_5_1_model", "fp16"): (np.inf, np.inf),  # activations beyond 65504 overflow fp16
}


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_those_that_were_stored(
    cli: Cli, models: Path, tmp_path: Path, model: str, dtype: str
) -> None:
    io, out = models / model / "io.npz", tmp_path / "out.npz"
    wanted = ["--dtype", dtype] if dtype == "fp32" else []  # fp16 is what the default chip multiplies
    result = cli(
        "run", models / model / "model.onnx", "--inputs", io, "--outputs", out, "--json", "-", *wanted
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["dtype"] == dtype and report["cycles"] > 0 and report["joules"] > 0
    stored = {k.removeprefix("out:"): x for k, x in read_npz(str(io)).items() if k.startswith("out:")}
    got = {k.removeprefix("out:"): x for k, x in read_npz(str(out)).items()}
    assert list(got) == list(stored) and {k: x.dtype for k, x in got.items()} == {
        k: x.dtype for k, x in stored.items()
    }
    error = compare_outputs(got, stored, TOLERANCE[dtype]).max_rel_error
    low, high = FAILING.get((model, dtype), (0.0, TOLERANCE[dtype]))
    assert low <= error <= high


@pytest.mark.parametrize("model", WEIGHTLESS)
def test_models_without_weights_are_timed(cli: Cli, models: Path, model: str) -> None:
    dims = [part for dim in WEIGHTLESS[model] for part in ("--dim", dim)]
    result = cli("run", models / model / "model.onnx", *dims, "--json", "-")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["macs"] > 0 and report["versus_gpu"]["speed"] > 0


def test_every_model_is_listed(models: Path) -> None:
    found = {p.parent.name for p in models.glob("*/model.onnx")}
    assert found <= {*MODELS, *WEIGHTLESS} and {m for m, _ in FAILING} <= set(MODELS)


@pytest.mark.parametrize(
    "model", ["dlrm_dynamo_op20_dense2d", "hf_llama_decode_dyn", "eb_legacy_op17_max_offsets"]
)
def test_exported_models_pass_their_check(cli: Cli, models: Path, model: str) -> None:
    folder = models / model
    assert cli("run", folder / "model.onnx", "--inputs", folder / "io.npz", "--check").exit_code == 0


@pytest.mark.parametrize(
    ("model", "dims"),
    [
        ("llama_dynamo_op20_prefill_dyn", ()),
        ("torchrec_dcn_dynamo_op20", ()),
        ("rechub_widedeep", ("batch_size=3",)),
        ("dlrm_legacy_op17_offsets", ()),
        ("hf_llama_decode_dyn", ()),
    ],
)
def test_random_inputs_suit_exported_models(
    cli: Cli, models: Path, model: str, dims: tuple[str, ...]
) -> None:
    given = [part for dim in dims for part in ("--dim", dim)]
    result = cli("run", models / model / "model.onnx", *given, "--check", "--seed", 3)
    if result.exit_code == 2:  # names of dimensions are the exporter's: the error says how to bind them
        needed = result.stderr.partition("for example: ")[2].strip()
        assert needed, result.stderr
        result = cli(
            "run", models / model / "model.onnx", *needed.replace("=1", "=4").split(), "--check", "--seed", 3
        )
    assert result.exit_code == 0, result.output
