"""The scripts behind the accuracy pages; and the GPU reference held to measured kernels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from accuracy import gpu_bands, gpu_constants, gpu_fit, gpu_second, gpu_tasks, score, tables  # noqa: E402

from mtia_emu.gpu import load_gpu  # noqa: E402

needs_tables = pytest.mark.skipif(
    importlib.util.find_spec(tables.PACKAGE) is None or importlib.util.find_spec("pyarrow") is None,
    reason="the measured tables are an extra: pip install 'mtia-emu[accuracy]'",
)


def test_scores_are_relative_to_what_was_measured() -> None:
    found = score.score(np.array([1.0, 1.1, 0.8]), np.array([1.0, 1.0, 1.0]))
    assert (found.rows, round(found.median, 9), round(found.bias, 9)) == (3, 0.1, 0.0)
    assert found.low < 1 < found.high


def test_half_of_the_groups_is_fitted_and_no_group_is_in_both() -> None:
    groups = [(n, k) for n in range(10) for k in range(10) for _ in range(3)]
    fitted = score.halves(groups)
    inside = {g for g, f in zip(groups, fitted, strict=True) if f}
    outside = {g for g, f in zip(groups, fitted, strict=True) if not f}
    assert len(inside) == len(outside) == 50 and not inside & outside
    assert (score.halves(groups) == fitted).all() and (score.halves(groups, seed=1) != fitted).any()


def test_every_fitted_key_is_one_of_the_facts_within_its_bounds() -> None:
    for key, (low, high) in gpu_constants.BOUNDS.items():
        facts = load_gpu("a100-sxm-80gb" if key == "gemv_latency_s" else "b200")  # B200 has no such kernel
        assert low * 0.999 <= gpu_constants.get(facts, key) <= high * 1.001, key
        assert low < gpu_constants.START[key] < high
        assert gpu_constants.get(gpu_constants.put(facts, {key: low}), key) == low


def test_a_fit_finds_the_constants_that_made_the_data() -> None:
    pytest.importorskip("scipy")
    facts = load_gpu("h100-sxm")
    true = gpu_constants.put(facts, {"links.latency_s": 7e-6, "links.efficiency": 0.6})
    from mtia_emu.gpu.collectives import seconds

    size, gpus = np.geomspace(1e3, 1e9, 60), np.tile([2, 4, 8], 20)

    def residuals(at: object) -> np.ndarray:
        assert true.links is not None
        return np.log(
            seconds(at.links, "all_reduce", size, gpus) / seconds(true.links, "all_reduce", size, gpus)
        )  # type: ignore[attr-defined]

    found = gpu_fit.fit(facts, gpu_tasks.Task(("links.latency_s", "links.efficiency"), residuals, "made up"))
    assert found["links.latency_s"] == pytest.approx(7e-6, rel=0.02)
    assert found["links.efficiency"] == pytest.approx(0.6, rel=0.02)


def test_another_collector_of_h100_is_in_the_bands_and_in_the_constants() -> None:
    short, long = ([s for s in gpu_second.collectors() if text in s.text] for text in ("below", "from"))
    assert all((s.modelled < 20e-6).all() for s in short) and all((s.modelled >= 20e-6).all() for s in long)
    assert sum(len(s.ratios) for s in (*short, *long)) == 2 * len(gpu_second.openxla())
    assert all(s.held() > 0.6 for s in short) and all(s.held() > 0.9 for s in long)
    wide, usual = gpu_bands.spread("h100-sxm", "short_matmul"), gpu_bands.spread("h100-sxm")
    assert (
        wide[0] == usual[0]
        and 1.6 < wide[1] < 2.0
        and gpu_bands.spread("a100-sxm-40gb", "short_matmul")[1] < 1.2
    )
    facts, task = load_gpu("h100-sxm"), gpu_tasks.tf32_task()
    ratio = np.exp(task.residuals(facts))
    worse_facts = gpu_constants.put(facts, {"rates.tf32.efficiency": facts.rates.bf16.efficiency})
    worse = np.exp(task.residuals(worse_facts))
    assert 0.95 < np.median(ratio) < 1.05 and np.median(worse) < np.median(ratio)


def test_a_page_takes_its_tables() -> None:
    spec = importlib.util.spec_from_file_location("accuracy_main", DOCS / "accuracy" / "__main__.py")
    assert spec is not None and spec.loader is not None
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    text = "a\n<!-- measured: x -->\nold\n<!-- end -->\nb\n<!-- measured: y -->\nkept\n<!-- end -->\n"
    assert main.fill(text, {"x": "new"}) == text.replace("old\n", "\nnew\n\n")
    page = (DOCS / "accuracy-gpu.md").read_text(encoding="utf-8")
    assert set(main.BLOCK.findall(page)) and {name for _, name, _ in main.BLOCK.findall(page)} == set(
        main.SECTIONS
    )


@needs_tables
@pytest.mark.parametrize(
    ("name", "dtype", "median", "ninth"),
    [
        ("a100-sxm-80gb", "bf16", 0.055, 0.16),
        ("h100-sxm", "bf16", 0.045, 0.135),
        ("h100-sxm", "fp8_e4m3", 0.04, 0.13),
        ("h200-sxm", "bf16", 0.045, 0.135),
        ("b200", "bf16", 0.055, 0.16),
        ("b200", "fp8_e4m3", 0.06, 0.16),
        ("b200", "fp4", 0.05, 0.18),
    ],
)
def test_layers_that_were_not_fitted_stay_as_near_as_they_are(
    name: str, dtype: str, median: float, ninth: float
) -> None:
    from accuracy import gpu_models, gpu_scores

    rows = gpu_scores.scoring_layers(name, dtype).sample(2000, random_state=0)
    facts = load_gpu(name)
    found = score.score(gpu_models.layer_seconds(facts, dtype, rows), rows.seconds.to_numpy())
    assert found.median < median and found.ninth < ninth and abs(found.bias) < 0.02


@needs_tables
@pytest.mark.parametrize("phase", ["context", "generation"])
@pytest.mark.parametrize("name", ["a100-sxm-80gb", "h100-sxm", "b200", "l40s"])
def test_attention_that_was_not_fitted_stays_as_near_as_it_is(name: str, phase: str) -> None:
    from accuracy import gpu_scores

    assert gpu_scores.attention(name, phase).median < 0.10


def test_a_sampler_takes_longer_for_more_sequences() -> None:
    from accuracy import gpu_served

    gpu = load_gpu("h100-sxm")
    (few_s, few_j), (many_s, many_j) = (gpu_served.sampler(gpu, batch, 128_256) for batch in (8, 128))
    moved = sum(map(sum, gpu_served.SAMPLER.values())) * 128 * 128_256
    assert few_s < many_s and few_j < many_j
    assert many_s >= moved / gpu.dram_bytes_per_s


def test_a_run_costs_what_its_parts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt pays for its rows in the linear layers and for its own attention, as often as one enters."""
    from accuracy import gpu_served

    def step(gpu: object, model: str, batch: int, seq: int, past: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array([past + seq, 1.0]), np.array([1000.0 * batch * seq, 1.0])

    monkeypatch.setattr(gpu_served, "step", step)
    monkeypatch.setattr(gpu_served, "sampler", lambda *_: np.array([0.5, 1.0]))
    run = gpu_served.Run("Qwen3-8B", "made up", 8.0, 100.0, 400.0, output=16.0, age=100.0)
    found = gpu_served.served(load_gpu("h100-sxm"), run, 40)
    assert found[0] == (40 + 100 + 1) + 8000 + 0.5 + (1000 * 40 + 40) * 8 / 16
    assert (run.step_s, run.j_per_token) == (0.08, 4.0)


def test_head_norms_are_those_of_the_models_that_have_them() -> None:
    from accuracy import gpu_served

    gpu = load_gpu("h100-sxm")
    assert not gpu_served.head_norms(gpu, "Llama-3.1-8B", 8).any()
    assert gpu_served.head_norms(gpu, "Qwen3-8B", 8)[0] >= 2 * 36 * gpu.launch_graph_s


def test_published_runs_are_read_with_their_units() -> None:
    from accuracy import gpu_served

    found = gpu_served.runs()
    assert {(r.model, r.data) for r in found} >= {gpu_served.FITTED, gpu_served.SCORED}
    assert all(0.2 < r.watts / 700 < 1 and 0.005 < r.step_s < 0.05 for r in found)
    assert all(r.model in gpu_served.MODELS for r in found)


@needs_tables
def test_a_roofline_is_far_too_fast() -> None:
    """The bar that the reference must clear, on the same rows."""
    from accuracy import gpu_models, gpu_scores

    rows = gpu_scores.scoring_layers("h100-sxm", "bf16").sample(2000, random_state=0)
    found = score.score(gpu_models.roofline(load_gpu("h100-sxm"), "bf16", rows), rows.seconds.to_numpy())
    assert found.bias < -0.25
