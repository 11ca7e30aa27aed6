"""Where a step is cut, and what lies on which stage."""

from __future__ import annotations

import re

import pytest
from mtia_emu.compiler.gradients.marks import BACKWARD, OPTIMISER
from mtia_emu.compiler.partition.staged import dependence, floats_of, staged, weighed

from mtia_emu.errors import UserError

from .stepped import step


@pytest.mark.parametrize("model", ["llama-tiny", "resnet-tiny", "dlrm-small"])
def test_the_way_back_of_a_layer_lies_with_it(model: str) -> None:
    cut = staged(step(model), 3)
    at: dict[str, set[int]] = {}
    for node in cut.step.graph.nodes:
        assert not re.search("\x1f", node.origin), "marks are gone"
        if node.name in cut.stages and not node.origin.endswith(OPTIMISER):
            at.setdefault(node.origin.removesuffix(BACKWARD) or node.name, set()).add(cut.stages[node.name])
    whole = [origin for origin, found in at.items() if len(found) == 1]
    assert len(at) - len(whole) <= 2 and {next(iter(at[x])) for x in whole} == {0, 1, 2}, (
        "but for one cut in two"
    )


@pytest.mark.parametrize("model", ["llama-tiny", "gpt-tiny", "resnet-tiny", "dlrm-small"])
def test_only_what_depends_on_no_activation_is_on_all_stages(model: str) -> None:
    cut = staged(step(model), 2)
    known = dependence(cut.step.graph.nodes, floats_of(cut.step), cut.step.parameters)
    graph, there = cut.step.graph, set(cut.stages)
    for node in graph.nodes:
        if not node.origin.endswith(OPTIMISER) and node.name not in known.common | there:
            makers = [graph.producer(v) for v in node.inputs]
            assert any(m is not None and m.name in there for m in makers), "of a common node: on the way back"
            there.add(node.name)
    assert set(cut.homes) == set(cut.step.parameters)


def test_forward_stages_follow_one_another_in_order() -> None:
    cut = staged(step("llama-tiny"), 4)
    forward = [cut.stages[n.name] for n in cut.step.forward.nodes if n.name in cut.stages]
    assert forward == sorted(forward) and set(forward) == set(range(4))


def test_stages_have_about_equal_bytes_of_weights_or_of_what_is_asked() -> None:
    of = step("llama-tiny")
    sizes = [0, 0]
    cut = staged(of, 2)
    for name, stage in cut.homes.items():
        if name != "model.embed_tokens.weight":
            sizes[stage] += cut.step.parameters[name].type.bytes
    assert max(sizes) < 1.4 * min(sizes)
    early = staged(of, 2, weighs=weighed(cut, [9.0, 1.0]))
    assert sum(early.homes.values()) > sum(cut.homes.values()), "a slow first stage is given less"
    same = staged(of, 2, weighs=weighed(cut, [sizes[0], sizes[1]]))
    assert same.homes == cut.homes


def test_a_weight_that_two_stages_read_is_a_parameter_of_both() -> None:
    cut = staged(step("gpt-tiny"), 2)
    (alias, name), *more = cut.ties.items()
    assert not more and (cut.homes[name], cut.homes[alias]) == (0, 1)
    assert cut.step.parameters[alias] is step("gpt-tiny").parameters[name]
    read = {stage for n in cut.step.graph.nodes for stage in [cut.stages.get(n.name)] if name in n.inputs}
    assert 1 not in read


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(UserError, match=r"64 stages, .* has only \d+ layers with weights"):
        staged(step("llama-tiny"), 64)
