"""A step table from measured kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.measured_kernels import COLUMNS, read_kernels
from mtia_emu.serving.step_table import ServingStep

from .tables import FACTS

MEASURED = Path(__file__).resolve().parents[3] / "shared/reference/serving"
DENSE = ("embedding", "final_layernorm", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj")
DENSE = (*DENSE, "act_fn", "down_proj", "lm_head", "sampler")


def rows() -> list[str]:
    """Return times of a card: a microsecond a token in each dense kernel, attention worked out by hand."""
    lines = [",".join(COLUMNS)]
    lines += [f"{name},{size},,,,{size}" for name in DENSE for size in (1, 2, 16, 64)]
    for chunk in (16, 32):
        lines += [f"attention,{chunk},{past},0,0,{chunk + past}" for past in (0, 64)]
    for decodes in (1, 4):
        lines += [f"attention,0,0,{decodes},{keys},{decodes * keys}" for keys in (16, 64)]
    for chunk, past, decodes, keys in [(16, 0, 1, 16), (16, 64, 1, 16), (32, 0, 1, 16), (32, 64, 1, 16)]:
        lines.append(f"attention,{chunk},{past},{decodes},{keys},{2 * (chunk + past + decodes * keys)}")
    return lines


def read(tmp_path: Path, lines: list[str]) -> object:
    (tmp_path / "k.csv").write_text("\n".join(lines) + "\n")
    return read_kernels(tmp_path / "k.csv", FACTS, 2)


def test_kernels_come_together_as_a_step_calls_them(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("\n".join(rows()) + "\n")
    table = read_kernels(tmp_path / "k.csv", FACTS, 2)
    a_token = 2 + 2 * 8  # once: embedding and the last norm; in each layer seven kernels, one of them twice
    prompt = table.step(ServingStep(((16, 64),)))
    assert prompt.seconds == pytest.approx(1e-6 * (16 * a_token + 2 * 1 + 2 * 80))
    decode = table.step(ServingStep((), (16, 64)))
    assert decode.seconds == pytest.approx(1e-6 * (2 * a_token + 2 * 2 + 2 * (16 + 64)))
    mixed = table.step(ServingStep(((16, 64),), (16,)))
    assert mixed.seconds == pytest.approx(1e-6 * (17 * a_token + 2 * 2 + 2 * 2 * (80 + 16)))
    assert np.isnan(prompt.joules) and prompt.error_share == 0


def test_a_grid_with_holes_is_the_largest_full_one(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("\n".join([*rows(), "attention,64,0,0,0,9"]) + "\n")
    assert read_kernels(tmp_path / "k.csv", FACTS, 2).limits.chunk_tokens == 32


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("act_fn,1,,,,0", "above 0"),
        ("act_fn,1,,,,nan", "above 0"),
        ("act_fn,1,,,,x", "above 0"),
        ("act_fn,-1,,,,1", "whole number"),
        ("act_fn,99999999999,,,,1", "whole number"),
        ("act_fn,1", "2 fields"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        read(tmp_path, [*rows(), line])
    assert f"line {len(rows()) + 1}" in str(error.value)


def test_a_kernel_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'sampler'"):
        read(tmp_path, [x for x in rows() if not x.startswith("sampler")])
    with pytest.raises(UserError, match="first line"):
        read(tmp_path, ["a,b"])


@pytest.mark.parametrize("card", ["RTX4090", "RTXPRO6000"])
def test_a_mixed_step_of_measured_kernels_is_less_than_a_prompt_and_a_decode(card: str) -> None:
    file = MEASURED / f"vllm_steps_{card}_llama-3.1-8b_tp1.csv"
    if not file.exists():
        pytest.skip("the measured kernels are not beside this checkout")
    table = read_kernels(file, replace(FACTS, machine=card), 32)
    prompt, decode = ServingStep(((512, 0),)), ServingStep((), (1000,) * 32)
    both = table.step(ServingStep(prompt.prefills, decode.contexts)).seconds
    assert 0.33 < both / (table.step(prompt).seconds + table.step(decode).seconds) < 1
