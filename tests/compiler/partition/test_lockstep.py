"""All ranks together, by references: what each collective gives."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.partition.lockstep import combined, evaluate_split
from mtia_emu.compiler.reference import evaluate

from .cases import model, split

PARTS = [np.arange(4.0), 10 + np.arange(4.0)]


@pytest.mark.parametrize(
    ("op", "right"),
    [
        ("all_reduce", [[10, 12, 14, 16], [10, 12, 14, 16]]),
        ("all_gather", [[0, 1, 2, 3, 10, 11, 12, 13]] * 2),
        ("reduce_scatter", [[10, 12], [14, 16]]),
        ("all_to_all", [[0, 1, 10, 11], [2, 3, 12, 13]]),
    ],
)
def test_what_each_rank_gets(op: str, right: list[list[float]]) -> None:
    got = combined(op, [[x] for x in PARTS], {"dim": 0, "join": 0})
    assert [list(x) for x in got] == right


def test_one_rank_computes_what_the_graph_says_bit_for_bit() -> None:
    graph, inputs = model("llama-tiny")
    got = evaluate_split(split("llama-tiny", "tp=1"), inputs)
    for name, right in evaluate(graph, inputs).items():
        assert got[name].tobytes() == right.tobytes()


def test_what_is_spread_is_nobody_elses_memory() -> None:
    own, nothing = np.arange(8.0).reshape(4, 2), np.zeros(1)
    for parts in (1, 2):
        attrs = {"owner": 1, "parts": parts, "dim": 0}
        first, second = combined("spread", [[nothing], [own]], attrs)
        assert np.array_equal(first, own[: 4 // parts]) and np.array_equal(second, own[-(4 // parts) :])
        assert not np.shares_memory(first, own) and not np.shares_memory(first, second)
    first, second = combined("collect", [[own[:2]], [own[2:]]], {"owner": 1, "dim": 0})
    assert np.array_equal(second, own) and first.shape == (1,)
