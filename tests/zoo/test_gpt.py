"""GPT decoders of the zoo: their published sizes, and what they compute."""

from __future__ import annotations

import pytest

import mtia_emu
from mtia_emu.zoo.models import MODELS


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2-124m", 124_439_808),  # openai-community/gpt2 as transformers counts it
        ("mpt-7b", 6_658_859_008),  # llm-foundry, scripts/train/benchmarking/README.md, seq_len 2048
    ],
)
def test_they_have_as_many_parameters_as_published(name: str, parameters: int) -> None:
    facts = MODELS[name].facts()
    assert facts["parameters"]["value"] == parameters and "rope_theta" not in facts


@pytest.mark.parametrize("dims", [{"batch": 2, "seq": 8}, {"seq": 1, "past": 7}], ids=str)
def test_a_step_is_what_onnxruntime_says(dims: dict[str, int]) -> None:
    done = mtia_emu.run("zoo:gpt-tiny", "tiny", dims=dims, check=True, gpu=None)
    assert done.check is not None and done.check.passed


def test_positions_count() -> None:
    """Equal tokens at two places have two embeddings, so their logits differ."""
    import numpy as np

    ids = np.full((1, 4), 3)
    logits = [
        mtia_emu.run(
            "zoo:gpt-tiny", "tiny", dims={"seq": 4}, gpu=None, inputs={"input_ids": ids, "position_ids": p}
        ).outputs["logits"]
        for p in (np.array([[0, 1, 2, 3]]), np.array([[4, 5, 6, 7]]))
    ]
    assert np.abs(logits[0] - logits[1]).max() > 0.01
