"""Causal masks that are comparisons of places: their diagonals are those of the masks made whole."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Const, Graph, Match
from mtia_emu.compiler.passes.causal_ramps import ramp_diagonal
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.rewrite import Draft
from mtia_emu.compiler.text import parse

OPS = ("less_equal(%k, %q)", "less(%k, %q)", "greater_equal(%q, %k)", "greater(%q, %k)", "greater(%k, %q)")


def graph(op: str, first_query: int, keys: int = 7, step: int = 1) -> Graph:
    text = (
        f"graph g {{\n const %k : int64[1,{keys}] = absent\n const %q : int64[5,1] = absent\n"
        " const %shown : fp32[] = absent\n const %hidden : fp32[] = absent\n"
        f" %seen : bool[5,{keys}] = {op}\n %m : fp32[5,{keys}] = where(%seen, %shown, %hidden)\n out %m\n}}\n"
    )
    made = parse(text)
    consts = {
        "k": np.arange(keys)[None, :] * step,
        "q": np.arange(first_query, first_query + 5)[:, None],
        "shown": np.float32(0),
        "hidden": np.float32(-1e9),
    }
    return made.with_nodes(made.nodes, consts={n: Const.of(np.asarray(a)) for n, a in consts.items()})


@pytest.mark.parametrize("first_query", [0, 1, 2, -1])
@pytest.mark.parametrize("op", OPS)
def test_a_diagonal_is_that_of_the_whole_mask(op: str, first_query: int) -> None:
    made = graph(op, first_query)
    shown = evaluate(made, {})["m"] == 0
    diagonals = [d for d in range(7) if (shown == (np.arange(7)[None, :] <= np.arange(5)[:, None] + d)).all()]
    match = Match(Draft(made))
    expected = diagonals[0] if diagonals else None
    assert ramp_diagonal("m", False, -3e4, match) == ramp_diagonal("seen", True, -3e4, match) == expected


def test_what_is_no_ramp_has_none() -> None:
    assert ramp_diagonal("m", False, -3e4, Match(Draft(graph(OPS[0], 0, step=2)))) is None
    assert ramp_diagonal("m", False, -3e10, Match(Draft(graph(OPS[0], 0)))) is None, "it hides too little"
    assert ramp_diagonal("seen", False, -3e4, Match(Draft(graph(OPS[0], 0)))) is None
