"""Mixtures of experts, made ready to be split: what is exchanged, and that results stay."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.ops.expert_matmul import expert_loads
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate

from .cases import model


def test_a_model_without_experts_stays_as_it_is() -> None:
    graph, _ = model("llama-tiny")
    assert prepared(graph) is graph


@pytest.mark.parametrize("parallel", ["ep=2", "ep=4", "ep=2,tp=2"])
def test_experts_take_one_sum_a_layer_and_give_the_same(parallel: str) -> None:
    graph, inputs = model("mixture-tiny")
    split = propagate(prepared(graph), parse_parallel(parallel))
    over = [n.attrs["axes"] for n in split.nodes if n.op == "all_reduce"]
    assert sum("ep" in axis for axes in over for axis in axes) == 2 * (1 + (parallel == "ep=4"))
    stacks = [split.types[n.inputs[1]].shape[0] for n in split.nodes if n.op == "expert_matmul"]
    assert len(stacks) == 6 and {n * split.mesh.sizes["ep"] for n in stacks} == {8}
    got = evaluate_split(split, inputs)
    for name, right in evaluate(graph, inputs).items():
        assert np.abs(got[name].astype(float) - right).max() < 0.01 * np.abs(right).max()


@pytest.mark.parametrize("law", ["uniform", "zipf:1.2"])
def test_a_rank_gets_the_rows_of_its_own_experts(law: str) -> None:
    whole = expert_loads(512, 32, 4, {"law": law})
    assert expert_loads(512, 8, 4, {"law": law, "of": 32}) == whole[:8]
    assert sum(expert_loads(1, 2, 4, {"law": law, "of": 256})) >= 1  # whatever nobody asked for
