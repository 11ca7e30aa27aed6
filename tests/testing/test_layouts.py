"""Random graphs over random meshes: `fuzz` tries them with every graph; here a few, and a planted fault."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.ops.layout import SPLITS, Layout, NodeSplit, Query
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.testing.fuzz import numbered_graph
from mtia_emu.testing.judge import samples_for
from mtia_emu.testing.layouts import random_split, split_results


def worst(number: int) -> float:
    graph = numbered_graph(0, number)
    inputs = samples_for(graph, number, kinds=("usual",))[0]
    got, right = split_results(graph, 0, number, inputs), evaluate(graph, inputs)
    return max(
        float(np.nanmax(np.abs(got[k].astype(float) - x.astype(float)), initial=0)) for k, x in right.items()
    )


def test_a_split_graph_gives_what_the_graph_gives() -> None:
    assert sorted(worst(number) for number in range(24))[12] < 1e-3, "but for chaotic ones, which fuzz judges"


def test_layouts_are_random_and_go_by_seed_and_number() -> None:
    graph = numbered_graph(0, 3)
    meshes = {str(random_split(graph, seed, 3).mesh) for seed in range(8)}
    assert len(meshes) > 2
    assert random_split(graph, 1, 3).inputs == random_split(graph, 1, 3).inputs


def test_a_wrong_rule_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(query: Query) -> NodeSplit:
        made = right(query)
        return NodeSplit(made.operands, tuple(Layout(x.dims[::-1]) for x in made.results), made.attrs)

    right = SPLITS["transpose"]
    monkeypatch.setitem(SPLITS, "transpose", wrong)
    with pytest.raises((AssertionError, UserError), match=r"layout rule of transpose|does not divide"):
        for number in range(60):
            split_results(
                numbered_graph(0, number), 0, number, samples_for(numbered_graph(0, number), number)[0]
            )
