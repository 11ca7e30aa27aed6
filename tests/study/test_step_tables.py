"""Step tables of compiled steps: their groups, their errors, and steps held to what is compiled."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler.partition.mesh import parse_parallel

from mtia_emu import load_chip, load_gpu
from mtia_emu.errors import UserError
from mtia_emu.options import Options
from mtia_emu.results.machine import Machine
from mtia_emu.serving.step_table import GroupedSteps, ServingStep
from mtia_emu.serving.step_table_file import as_json
from mtia_emu.study import kept_tables
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.kept_tables import kept_table
from mtia_emu.study.step_anchors import ServedModel, StepAnchor, idle_w, memory_bytes
from mtia_emu.study.step_check import KINDS, check_steps, step_of
from mtia_emu.study.step_tables import Hull, _Building, _open, left_out, silent, step_table
from mtia_emu.study.system_machine import SystemMachine
from mtia_emu.system.load import load_system
from mtia_emu.zoo.llama_parts import StepPart

SMALL, FP16 = Hull(64, 4, 64), Options(dtype="fp16")
CHIP, GPU = load_chip("mtia-2i"), load_gpu("h100-sxm")
BOARD = SystemMachine(load_system("mtia-2i-server"), parse_parallel("tp=2"))
MACHINES: dict[str, Machine] = {"mtia-2i": Accelerator(CHIP), "h100-sxm": GPU, "two chips": BOARD}


@cache
def served(machine: str) -> ServedModel:
    return ServedModel("llama-tiny", MACHINES[machine], FP16)


@cache
def table(machine: str) -> GroupedSteps:
    return step_table("llama-tiny", MACHINES[machine], SMALL, options=FP16)


def config(folder: Path, **changes: object) -> str:
    """Write a checkpoint's config.json of llama-tiny's sizes, changed; return what a command calls it."""
    sizes = {
        "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512, "vocab_size": 1024,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(sizes | changes))
    return f"hf:{folder}"


def test_a_checkpoint_costs_what_the_same_decoder_of_the_zoo_does(tmp_path: Path) -> None:
    asked = config(tmp_path)
    found = kept_table(asked, load_gpu("h100-sxm"), SMALL, options=FP16)
    assert found.model == tmp_path.name and found.facts.source.endswith(f"hf:{tmp_path.name}")
    same = replace(found.facts, model="llama-tiny", source=table("h100-sxm").facts.source)
    assert as_json(replace(found, facts=same)) == as_json(table("h100-sxm"))


def test_a_checkpoint_is_served_as_its_family_writes_it(tmp_path: Path) -> None:
    scaled = step_table(config(tmp_path, model_type="gemma"), load_gpu("h100-sxm"), SMALL, options=FP16)
    assert scaled.linear.at(1)[0] > table("h100-sxm").linear.at(1)[0]  # embeddings times a constant
    cached = ServedModel(config(tmp_path, num_key_value_heads=4), GPU).kv_bytes_per_token
    assert cached == 2 * 2 * 4 * 32 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mistral", "sliding_window": 128}, "its layers have windows"),
        ({"model_type": "mamba"}, "model_type"),
    ],
)
def test_checkpoints_without_a_step_table_are_refused(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        step_table(config(tmp_path, **changes), GPU, SMALL)


@pytest.mark.parametrize("machine", MACHINES)
def test_groups_of_an_anchor_sum_to_its_report(machine: str) -> None:
    one = served(machine)
    anchor = one.anchor(StepPart(2, 1, 0), [31])
    report = one.step([StepPart(2, 1, 31)])
    whole = anchor.linear + anchor.head + anchor.attention[31]
    assert whole == pytest.approx([report.seconds, report.joules], rel=1e-9)
    assert min(*anchor.linear, *anchor.head, *anchor.attention[31]) > 0
    assert anchor.weight_bytes == pytest.approx(3.28e6, rel=0.01) and anchor.idle_w > 0


@pytest.mark.parametrize("machine", ["mtia-2i", "h100-sxm"])
def test_an_anchor_is_met_and_steps_beside_it_nearly(machine: str) -> None:
    found = table(machine)
    for part in (StepPart(1, 1, 15), StepPart(4, 1, 63), StepPart(1, 64, 0)):
        compiled, predicted = served(machine).step([part]), found.step(step_of([part]))
        assert predicted.seconds == pytest.approx(compiled.seconds, rel=0.02)
        assert predicted.joules == pytest.approx(compiled.joules, rel=0.02)
    between = StepPart(3, 1, 30)
    compiled, predicted = served(machine).step([between]), found.step(step_of([between]))
    assert predicted.seconds == pytest.approx(compiled.seconds, rel=0.05)


def test_facts_are_the_machines_and_the_models() -> None:
    chip, gpu = table("mtia-2i").facts, table("h100-sxm").facts
    assert chip.memory_bytes == load_chip("mtia-2i").dram.bytes and gpu.memory_bytes == 80e9
    assert chip.kv_bytes_per_token == gpu.kv_bytes_per_token == 2 * 2 * 2 * 32 * 2
    assert chip.model == "llama-tiny" and chip.machine == "mtia-2i" and gpu.machine == "h100-sxm"
    assert 0 < chip.idle_w < gpu.idle_w
    assert table("mtia-2i").limits.tokens == 64 and table("mtia-2i").limits.context == 64


def test_a_system_has_the_memory_and_the_idle_power_of_its_chips() -> None:
    assert memory_bytes(BOARD) == 2 * memory_bytes(MACHINES["mtia-2i"])
    assert idle_w(BOARD) == pytest.approx(2 * idle_w(MACHINES["mtia-2i"]))
    assert idle_w(GPU) == GPU.idle_w
    seconds, joules = served("two chips").anchor(StepPart(2, 1, 0), [31]).attention[31]
    assert joules / seconds > 0.9 * idle_w(BOARD)  # of both chips
    stages = SystemMachine(load_system("mtia-2i-server"), parse_parallel("pp=2"))
    with pytest.raises(UserError, match="pipeline"):
        ServedModel("llama-tiny", stages, FP16).anchor(StepPart(1, 1, 0), [15])


def test_random_steps_are_compiled_as_one_graph() -> None:
    found = list(check_steps(served("h100-sxm"), table("h100-sxm"), 6, seed=1))
    assert [x.kind for x in found] == [*KINDS, *KINDS]
    for one in found:
        assert bool(one.step.prefills) == (one.kind != "decode")
        assert bool(one.step.contexts) == (one.kind != "prefill")
        assert -0.5 < one.error < 0.5
    again = list(check_steps(served("h100-sxm"), table("h100-sxm"), 2, seed=1))
    assert again == found[:2]


def test_steps_of_a_table_of_one_sequence_or_of_short_contexts_are_inside_it() -> None:
    one = replace(Hull(64, 4, 16), decodes=1)
    for hull in (one, Hull(64, 4, 16)):
        found = step_table("llama-tiny", GPU, hull, options=FP16)
        checked = list(check_steps(served("h100-sxm"), found, 4, seed=2))
        assert "mixed" not in [x.kind for x in checked] or hull.decodes > 1


@given(
    st.lists(st.integers(1, 1000), min_size=3, max_size=9, unique=True), st.floats(-5, 5), st.floats(-5, 5)
)
def test_what_is_linear_leaves_nothing_out(sizes: list[int], slope: float, at_0: float) -> None:
    x = np.array(sorted(sizes), float)
    np.testing.assert_allclose(left_out(x, slope * x + at_0), 0, atol=1e-9)


def test_a_bend_is_left_out_where_it_is() -> None:
    assert left_out(np.array([0.0, 1, 2, 3]), np.array([0.0, 0, 0, 1])).tolist() == [0, 0, 0.5, 0.5]
    assert left_out(np.array([1.0, 2]), np.array([1.0, 5])).tolist() == [0, 0]


@pytest.mark.parametrize(("attention", "kind", "curves"), [(1.0, "plain", 1), (6.0, "prompts", 2)])
def test_prompts_that_are_open_too_close_linear_work(attention: float, kind: str, curves: int) -> None:
    """Linear work bends at 256 tokens; a second compilation of prompts there would be done twice."""

    def anchor(tokens: int, linear: float, attended: float) -> StepAnchor:
        plain, head, each = (np.array([x, 0.0]) for x in (linear, 0.0, attended))
        part = StepPart(1, tokens, 0)
        return StepAnchor(part, plain, head, {0: each, 512: each}, 0, 0, 0.0, (1.0, 1.0), (1.0, 1.0))

    build = _Building(ServedModel("llama-tiny", load_gpu("h100-sxm")), Hull(1024, 2, 512), silent)
    build.decodes = {
        n: replace(anchor(n, 1.0, 1.0), attention={15: np.ones(2), 63: np.ones(2)}) for n in (1, 2)
    }
    bends = {16: (1.0, 1.0), 256: (9.0, attention), 1024: (9.0, 1.0)}
    build.prompts = {n: anchor(n, *bend) for n, bend in bends.items()}
    asked, sizes, served = _open(build)
    assert asked is getattr(build, kind) and served == curves and sizes == [128, 640]


def test_a_table_is_kept_by_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / "cache"))
    made = []

    def make(*words: object, **named: object) -> GroupedSteps:
        made.append(words)
        return table("h100-sxm")

    monkeypatch.setattr(kept_tables, "step_table", make)
    gpu = load_gpu("h100-sxm")
    for _ in range(2):
        assert as_json(kept_table("llama-tiny", gpu, SMALL, options=FP16)) == as_json(table("h100-sxm"))
    assert len(made) == 1
    kept_table("llama-tiny", gpu, replace(SMALL, tokens=32), options=FP16)
    kept_table("llama-tiny", load_gpu("h200-sxm"), SMALL, options=FP16)
    assert len(made) == 3
    (file, *_) = sorted((tmp_path / "cache" / "steps").iterdir())
    for one in (tmp_path / "cache" / "steps").iterdir():
        one.write_bytes(b"damaged")
    kept_table("llama-tiny", gpu, SMALL, options=FP16)
    assert len(made) == 4 and file.exists()


@pytest.mark.parametrize("hull", [{"tokens": 0}, {"decodes": 0}, {"context": 1 << 30}])
def test_a_hull_in_which_no_step_fits_is_refused(hull: dict[str, int]) -> None:
    with pytest.raises(UserError, match="step table"):
        Hull(**hull)


def test_a_model_without_steps_is_refused() -> None:
    with pytest.raises(UserError, match="no steps to serve"):
        step_table("dlrm-small", MACHINES["h100-sxm"])


def test_the_step_of_parts_is_a_schedulers() -> None:
    step = step_of([StepPart(2, 5, 3), StepPart(2, 1, 7)])
    assert step == ServingStep(((5, 3), (5, 3)), (8, 8))
