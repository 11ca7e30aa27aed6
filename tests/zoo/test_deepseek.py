"""DeepSeek-V3 of the zoo: its routing, its rotations, its sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from mtia_emu import api, zoo
from mtia_emu.oracle import expected_outputs
from mtia_emu.zoo.deepseek import DeepSeek
from mtia_emu.zoo.models import MODELS
from mtia_emu.zoo.rope import Yarn


def test_there_may_be_no_shared_network() -> None:
    tiny = cast(DeepSeek, MODELS["deepseek-tiny"])
    dims = {"batch": 1, "seq": 2, "past": 0}
    names = [[w.name for w in replace(tiny, shared=n).graph("x", dims).weights] for n in (0, 1)]
    assert [n for n in names[1] if ".shared_experts." not in n] == names[0] != names[1]


def test_experts_are_the_best_of_the_best_groups(tmp_path: Path) -> None:
    """By its paper, section 2.1.2: groups by their best two, experts by score and bias, shares by score."""
    path = zoo.build("deepseek-tiny", {"batch": 3}, tmp_path, weights_seed=2)
    model, name = onnx.load(path), "model.layers.1.mlp.router"
    wanted = [f"{name}.sigmoid", f"{name}.biased", f"{name}.best.places", f"{name}.narrow"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(v) for v in wanted)
    onnx.save(model, path)
    out = expected_outputs(path, zoo.example_inputs("deepseek-tiny", {"batch": 3})).outputs
    scores, biased, places, shares = (out[value] for value in wanted)
    for s, b, chosen, share in zip(scores, biased, places, shares, strict=True):
        groups = np.argsort(-np.sort(b.reshape(4, 2), axis=1)[:, -2:].sum(1))[:2]
        allowed = [e for e in range(8) if e // 2 in groups]
        best = sorted(allowed, key=lambda e: -b[e])[:2]
        assert sorted(chosen) == sorted(best)
        np.testing.assert_allclose(share, 2.5 * s[chosen] / s[chosen].sum(), rtol=2e-3)


def test_yarn_keeps_short_waves_and_slows_long_ones() -> None:
    model = cast(DeepSeek, MODELS["deepseek-v3"])
    plain = 10000.0 ** -(np.arange(32) / 32)
    ratio = plain / model.frequencies()
    turns = 4096 * plain / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 40], 1.0, rtol=1e-5)
    np.testing.assert_allclose(ratio[turns < 0.7], 40.0, rtol=1e-5)
    assert np.all(np.diff(ratio) >= -1e-5)
    assert Yarn(factor=40.0, original_context=4096, theta=1e4).score_scale == pytest.approx(
        (0.1 * math.log(40) + 1) ** 2
    )


def test_its_sizes_are_the_published_ones() -> None:
    """Its paper: 671 billion parameters, 37 billion of them a token's."""
    facts = zoo.describe("deepseek-v3")
    assert facts["parameters"]["value"] == 671_026_419_200
    assert float(facts["active_parameters"]["value"]) / 1e9 == pytest.approx(37.6, abs=0.2)  # type: ignore[arg-type]
    assert facts["kv_bytes_per_token"]["value"] == 61 * 576 * 2


@pytest.mark.deep
def test_a_token_reads_the_weights_of_its_experts() -> None:
    report = api.run("zoo:deepseek-v3", "mtia-2i", dims={"seq": 1, "past": 16}, gpu=None).report
    facts = zoo.describe("deepseek-v3")
    table = 129280 * 7168 * 2
    read = float(facts["active_bytes"]["value"]) - table  # type: ignore[arg-type]
    assert report.traffic.dram_read_bytes == pytest.approx(read, rel=0.03)
