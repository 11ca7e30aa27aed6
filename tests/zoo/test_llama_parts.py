"""Steps of several parts compute what each part alone computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu import zoo
from mtia_emu.errors import UserError
from mtia_emu.oracle import expected_outputs
from mtia_emu.zoo.llama_parts import StepPart, build_step, served_model

MODEL = "llama-tiny"
PARTS = (StepPart(1, 5, 0), StepPart(3, 1, 7), StepPart(2, 3, 4))


def alone(part: StepPart, model: str = MODEL) -> dict[str, np.ndarray]:
    """Return the inputs of a part by itself."""
    return zoo.example_inputs(model, {"batch": part.batch, "seq": part.seq, "past": part.past}, part.past)


def together(parts: tuple[StepPart, ...], model: str = MODEL) -> dict[str, np.ndarray]:
    """Return the inputs of a step of parts: tokens in a row, pasts as they are."""
    each = [alone(part, model) for part in parts]
    feeds = {k: np.concatenate([x[k].reshape(1, -1) for x in each], 1) for k in ("input_ids", "position_ids")}
    for i, inputs in enumerate(each):
        feeds |= {f"{k}.part{i}": v for k, v in inputs.items() if k.startswith("past")}
    return feeds


@pytest.mark.parametrize("model", [MODEL, "mixture-tiny"])
def test_a_step_of_parts_is_its_parts(model: str, tmp_path: Path) -> None:
    whole = build_step(model, PARTS, tmp_path, weights_seed=0)
    got = expected_outputs(whole, together(PARTS, model)).outputs
    at = 0
    for i, part in enumerate(PARTS):
        one = build_step(model, (part,), tmp_path / "one", weights_seed=0)
        right = expected_outputs(one, alone(part, model)).outputs
        np.testing.assert_allclose(
            got["logits"][0, at : at + part.batch], right["logits"][:, 0], atol=0.02, rtol=0.02
        )
        for name in right:
            if name.startswith("present"):
                np.testing.assert_allclose(got[f"{name}.part{i}"], right[name], atol=0.02, rtol=0.02)
        at += part.batch
    assert at == got["logits"].shape[1]


def test_one_part_is_what_the_zoo_writes(tmp_path: Path) -> None:
    one = build_step(MODEL, (StepPart(2, 3, 4),), tmp_path)
    same = zoo.build(MODEL, {"batch": 2, "seq": 3, "past": 4}, tmp_path)
    assert one.read_bytes() == same.read_bytes()


@pytest.mark.parametrize("parts", [(), (StepPart(0, 1, 1),), (StepPart(1, 0, 1),), (StepPart(1, 1, -1),)])
def test_parts_without_tokens_are_refused(parts: tuple[StepPart, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="part"):
        build_step(MODEL, parts, tmp_path)


@pytest.mark.parametrize("name", ["dlrm-small", "deepseek-tiny", "nothing"])
def test_what_caches_no_keys_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' has no steps.*mixture-tiny"):
        served_model(name)
