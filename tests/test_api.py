"""The product from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mtia_emu
from mtia_emu import api
from mtia_emu.errors import UserError


def test_the_names_that_are_promised() -> None:
    assert set(mtia_emu.__all__) <= set(dir(mtia_emu))
    for name in mtia_emu.__all__:
        assert getattr(mtia_emu, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mtia_emu.nothing  # noqa: B018


def test_run_a_model_and_read_its_report() -> None:
    done = mtia_emu.run(
        "zoo:llama-tiny", "mtia-2i", dims={"seq": 4}, settings={"dram.channels": 2}, gpu="a100-sxm-80gb"
    )
    assert done.report.cycles > 0 and done.gpu is not None and done.gpu.machine == "a100-sxm-80gb"
    assert done.check is None and done.outputs == {} and done.chip.dram.channels == 2


def test_chips_and_gpus_may_be_values() -> None:
    chip, gpu = mtia_emu.load_chip("tiny"), mtia_emu.load_gpu("h100-sxm")
    done = mtia_emu.run("zoo:llama-tiny", chip, dims={"seq": 2}, gpu=gpu)
    assert done.chip is chip and done.report.machine == "tiny"


def test_compile_save_load_run(tmp_path: Path) -> None:
    program = mtia_emu.compile_model("zoo:llama-tiny", dims={"seq": 2}, seed=3)
    mtia_emu.save_program(program, tmp_path / "p.mtia")
    back = mtia_emu.load_program(tmp_path / "p.mtia")
    from mtia_emu import zoo

    inputs = zoo.example_inputs("llama-tiny", {"seq": 2}, 5)
    first, second = (mtia_emu.run(p, inputs=inputs) for p in (program, back))
    assert first.report == second.report and first.gpu == second.gpu
    for name, array in first.outputs.items():
        np.testing.assert_array_equal(array, second.outputs[name])
    by_path = mtia_emu.run(tmp_path / "p.mtia", inputs={f"in:{k}": x for k, x in inputs.items()})
    assert by_path.report == first.report


def test_settings_leave_a_program_as_it_is() -> None:
    program = mtia_emu.compile_model("zoo:llama-tiny", dims={"seq": 2})
    before = repr(program.chip)
    slow = mtia_emu.run(program, settings={"dram.channels": 1}, gpu=None)
    assert repr(program.chip) == before
    assert slow.report.cycles > mtia_emu.run(program, gpu=None).report.cycles


def test_wrong_names_are_refused_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "compile_graph", lambda *a, **k: pytest.fail("the model was compiled"))
    with pytest.raises(UserError, match="unknown gpu 'h300'"):
        mtia_emu.run("zoo:llama-tiny", gpu="h300")
    with pytest.raises(UserError, match="unknown chip 'mtia-9'"):
        mtia_emu.run("zoo:llama-tiny", "mtia-9")


def test_progress_is_told() -> None:
    seen: list[tuple[str, int, int]] = []
    mtia_emu.run("zoo:dlrm-small", dims={"batch": 2}, check=True, progress=lambda *step: seen.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages[0] == "load" and "execute" in stages and stages[-1] == "oracle"
    assert all(0 <= done <= total for _, done, total in seen)


def test_errors_of_zoo_models_name_the_model_not_a_temporary_file() -> None:
    with pytest.raises(UserError) as caught:
        mtia_emu.run("zoo:llama-tiny", dims={"seq": 2_000_000_000})
    assert str(caught.value).startswith("zoo:llama-tiny: ") and "mtia-emu-" not in str(caught.value)


def test_the_same_seed_gives_the_same_outcome() -> None:
    first, second = (mtia_emu.run("zoo:dlrm-small", dims={"batch": 3}, check=True, seed=4) for _ in range(2))
    other = mtia_emu.run("zoo:dlrm-small", dims={"batch": 3}, check=True, seed=5)
    assert first.check == second.check and first.report == second.report
    np.testing.assert_array_equal(first.outputs["probability"], second.outputs["probability"])
    assert (first.outputs["probability"] != other.outputs["probability"]).any()


@pytest.mark.parametrize("kind", ["fp8_e4m3", "fp8_e5m2"])
def test_a_product_of_8_bit_floats_runs_at_their_rate(kind: str) -> None:
    from mtia_emu.types import dtype
    from mtia_emu.zoo.operators import Gemm

    chip = mtia_emu.load_chip("mtia-300")
    with api.operator_source(Gemm(48, 64, 32, kind), 0) as source:
        made = api.keep_weights(api.compile_stages(source, chip, dtype=kind).program)
        given = source.examples(0) if source.examples else {}
    done = api.run_program(made, chip, inputs=given, gpu=None)
    weight = np.asarray(next(iter(made.data.values()))).astype(np.float32)
    wanted = given["a"].astype(np.float32) @ weight.reshape(-1, 64).T  # kept k innermost
    got = done.outputs["product"].astype(np.float32)
    step = 2.0 ** -(3 if kind == "fp8_e4m3" else 2)  # of the format's fraction
    assert np.abs(got - wanted).max() <= step * np.abs(wanted).max()
    assert chip.peak_macs_per_cycle(dtype(kind)) == 2 * chip.peak_macs_per_cycle(dtype("fp16"))


def test_a_model_runs_in_8_bit_floats_where_the_chip_multiplies_them() -> None:
    outcome = mtia_emu.run("zoo:llama-tiny", "mtia-300", dtype="fp8", gpu=None)
    assert outcome.report.dtype == "fp8_e4m3"
    with pytest.raises(UserError, match="matrix unit of mtia-2i has no rate for fp8_e4m3"):
        mtia_emu.run("zoo:llama-tiny", "mtia-2i", dtype="fp8", gpu=None)
