"""Training on the chip: executed steps against the references, batches, what is refused; memory by kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import onnx
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import Optimiser
from mtia_emu.compiler.gradients.step import Recipe
from mtia_emu.compiler.graph_file import write_graph
from mtia_emu.compiler.pipeline import compile_graph
from onnx import TensorProto, helper, numpy_helper

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.results.training import Training
from mtia_emu.study.peak_memory import peak_memory
from mtia_emu.study.training import TrainingWords
from mtia_emu.study.training_goal import Goal
from mtia_emu.study.training_spread import Sharing
from mtia_emu.study.training_steps import Plan

RNG = np.random.default_rng(6)
BATCHES = {
    "x": RNG.standard_normal((2, 6, 5)).astype(np.float32),
    "target": RNG.standard_normal((2, 6, 2)).astype(np.float32),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a small model with two products and a bias."""
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="bend"),
        helper.make_node("MatMul", ["t", "c"], ["y"], name="second"),
    ]
    weights = {"a": (5, 4), "b": (4,), "c": (4, 2)}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, [6, 5])],
        [value("y", TensorProto.FLOAT, [6, 2])],
        [numpy_helper.from_array(RNG.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return str(path)


def trained(model: str, **more: Any) -> Training:
    return mtia_emu.train(model, "tiny", **{"loss": "mse", "gpu": None, "optimizer": "adam{lr=0.02}"} | more)


def test_executed_steps_are_those_of_onnxruntime(model: str) -> None:
    losses = trained(model, steps=6, check=True, data=BATCHES).losses
    assert losses is not None and losses.passed and losses.error < 1e-5 and losses.oracle == "onnxruntime"
    assert losses.losses[4] < losses.losses[0] and losses.losses[5] < losses.losses[1], "batches take turns"


def test_one_seeded_batch_is_learnt(model: str) -> None:
    losses = trained(model, steps=8).losses
    assert losses is not None and losses.losses[-1] < 0.9 * losses.losses[0]
    assert losses.losses == trained(model, steps=8).losses.losses, "the same seed, the same losses"  # type: ignore[union-attr]


def test_rates_follow_a_schedule(model: str) -> None:
    still = trained(model, steps=3, rates=lambda step: 0.0).losses
    assert still is not None and len(set(still.losses)) == 1


def test_micro_batches_are_timed_and_executed(model: str) -> None:
    one, two = (
        trained(model, steps=2, data=BATCHES),
        trained(model, steps=2, accumulate=2, data=BATCHES, check=True),
    )
    assert two.items == 2 * one.items and two.report.seconds > 1.5 * one.report.seconds
    assert two.losses is not None and two.losses.passed
    assert len(two.report.stretches) == 2


def test_a_model_without_weights_is_timed_only() -> None:
    found = mtia_emu.train("zoo:dlrm-small", "tiny", loss="bce", dims={"batch": 4}, gpu=None)
    assert found.losses is None and found.counted == "samples" and found.items == 4
    assert found.memory.weights == 4 * found.parameters
    assert 2.5 < found.report.macs / found.forward_macs <= 3
    assert sum(found.phases.values()) == pytest.approx(found.report.seconds, rel=0.05)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fp16_skips_a_step_that_overflows_and_so_does_what_it_is_held_to(model: str, accumulate: int) -> None:
    large = {n: 1e2 * a for n, a in BATCHES.items()}
    losses = trained(model, steps=7, precision="fp16", data=large, accumulate=accumulate, check=True).losses
    assert losses is not None and losses.skipped[:1] == (1,) and len(losses.skipped) < 7, "sums begin anew"
    assert losses.passed and losses.error > 0 and losses.oracle == "onnxruntime in fp32"
    skipped = losses.skipped[-1]
    assert losses.expected[skipped % 7] != losses.expected[-1], "steps behind the skipped ones change weights"


def test_a_step_that_goes_wrong_is_seen(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtia_emu.study import training

    def wrong(*given: Any) -> Any:
        done = execute(*given)
        states = {k: v * 1.01 if k.endswith(".next") else v for k, v in done.outputs.items()}
        return replace(done, outputs=states)

    execute = training.execute
    monkeypatch.setattr(training, "execute", wrong)
    losses = trained(model, steps=3, check=True).losses
    assert losses is not None and not losses.passed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": BATCHES["x"]}, "no array for target"),
        ({**BATCHES, "z": BATCHES["x"]}, "unknown input of the training step 'z'"),
        ({**BATCHES, "x": BATCHES["x"][:, :5]}, r"right: \[6, 5\], or some of them along a first axis"),
    ],
)
def test_data_that_do_not_fit_are_refused(model: str, data: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(UserError, match=words):
        trained(model, steps=1, data=data)


@pytest.mark.parametrize("asked", [{"check": True}, {"data": BATCHES}])
def test_what_only_executed_steps_answer_needs_steps(model: str, asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is of steps that are executed"):
        trained(model, **asked)


def test_every_field_is_a_keyword_of_its_type() -> None:
    hints = {k: v for kind in (Recipe, Sharing, Plan, Goal) for k, v in get_type_hints(kind).items()}
    assert hints.pop("optimiser") is Optimiser
    keywords = get_type_hints(TrainingWords)
    assert keywords.pop("optimizer") is str
    assert keywords == hints


def test_a_graph_text_is_no_model_to_train(tmp_path: Path) -> None:
    write_graph(tmp_path / "g.ir", text.parse("graph g {\n  in %x : fp32[2]\n  out %x\n}\n"))
    with pytest.raises(UserError, match="a graph's text is what a step becomes"):
        trained(str(tmp_path / "g.ir"))


def test_the_step_is_a_graph_of_its_own(model: str, tmp_path: Path) -> None:
    step = mtia_emu.training_step(model, "mse", "sgd{lr=0.1}")
    write_graph(tmp_path / "step.ir", step.graph)
    found = mtia_emu.run(str(tmp_path / "step.ir"), "tiny", gpu=None, dtype="fp32", check=True)
    assert found.check is not None and found.check.passed
    assert {"a", "b", "c"} == set(step.parameters) and step.parameters["a"].present


def test_the_peak_is_where_most_is_held() -> None:
    graph = text.parse("""graph g {
  in %w : fp32[64,64]
  in %x : fp32[64,64]
  %a : fp32[64,64] = matmul(%x, %w)
  %b : fp32[64,64] = softmax(%a) {axis=1}
  %c : fp32[64,64] = matmul(%b, %w)   # c (backward)
  %d : fp32[64,1] = reduce_sum(%c) {axes=[1], keepdims=true}
  out %d
}
""")
    schedule = compile_graph(graph, load_chip("tiny"), dtype="fp32").schedule
    found = peak_memory(schedule, lambda name: "weights" if name == "w" else "data")
    tile = 64 * 64 * 4
    assert (found.weights, found.data, found.optimizer) == (tile, tile, 0)
    assert found.activations + found.gradients == 2 * tile, "an operand and a result"
    assert found.capacity == load_chip("tiny").dram.bytes


def test_products_of_8_bits_need_a_chip_that_has_them(model: str) -> None:
    """One of a model whose products are all of 8 bits is refused as one that has others beside them."""
    with pytest.raises(
        UserError, match=r"--precision fp8: the matrix unit of tiny has no rate .*right: bf16"
    ):
        trained(model, precision="fp8")
    with pytest.raises(UserError, match="--precision fp8: the matrix unit of tiny"):
        trained("zoo:llama-tiny", precision="fp8", loss="cross-entropy")
    assert mtia_emu.training_step(model, "mse", chip="tiny", precision="fp8").graph.nodes


def test_where_last_digits_decide_the_oracle_is_asked_how_far_they_lead() -> None:
    """At this rate the second step's loss moves by tenths where weights change in their last digit."""
    done = mtia_emu.train("zoo:dlrm-small", loss="bce", optimizer="adagrad", steps=2, check=True, gpu=None)
    losses = done.losses
    assert losses is not None and not losses.within and losses.passed and 2 in losses.chaotic


def test_a_schedule_gives_each_step_its_rate() -> None:
    words = {"loss": "cross-entropy", "optimizer": "sgd{lr=0.5}", "steps": 3, "gpu": None}
    named = mtia_emu.train("zoo:gpt-tiny", schedule="linear{total=4,warmup=2}", **words)
    rates = {1: 0.25, 2: 0.5, 3: 0.5}
    said = mtia_emu.train("zoo:gpt-tiny", rates=rates.__getitem__, **words)
    assert named.losses is not None and said.losses is not None
    assert named.losses.losses == said.losses.losses
    with pytest.raises(UserError, match="twice"):
        mtia_emu.train("zoo:gpt-tiny", schedule="constant", rates=rates.__getitem__, **words)
    with pytest.raises(UserError, match="--schedule is of steps that are executed"):
        mtia_emu.train("zoo:gpt-tiny", **{**words, "steps": 0}, schedule="constant")
