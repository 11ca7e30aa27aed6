"""Rows added into zeros over ranks: each rank its own, and the sum is owed."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops.layout import WHOLE, Layout
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.text import parse

from .cases import exchanges

TEXT = """graph g {
  in %at : int64[4]
  in %rows : fp32[4,3]
  const %base : fp32[5,3] = DATA
  %y : fp32[5,3] = scatter_rows(%base, %at, %rows) {reduction="HOW"}
  %z : fp32[5,3] = neg(%y)
  out %z
}"""


def graph(base: float, how: str) -> Graph:
    rows = str([base] * 15)
    return parse(TEXT.replace("HOW", how).replace("DATA", rows))


@pytest.mark.parametrize(
    ("base", "how", "found"),
    [
        (0.0, "add", {"all_reduce": 1}),
        (1.0, "add", {"all_gather": 2}),
        (0.0, "none", {"all_gather": 2}),
    ],
)
def test_only_rows_added_into_zeros_stay_where_they_are(base: float, how: str, found: dict[str, int]) -> None:
    whole = graph(base, how)
    over = parse_parallel("dp=2")
    axes = over.axes("dp")
    split = propagate(whole, over, {"at": Layout((axes,)), "rows": Layout((axes, WHOLE))})
    assert exchanges(split) == found
    feed = {"at": np.array([4, 1, 1, 0]), "rows": np.arange(12, dtype=np.float32).reshape(4, 3)}
    got, right = evaluate_split(split, feed), evaluate(whole, feed)
    np.testing.assert_allclose(got["z"], right["z"])
