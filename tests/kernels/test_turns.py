"""Turns of experts: there are always enough, and a table says what each one has."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.kernels.turns import Turns, turns_of


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 20))
def test_there_are_enough_turns_for_any_loads(loads: list[int], rows: int) -> None:
    turns = Turns(len(loads), max(sum(loads), 1), rows)
    table = turns.table(loads)
    assert table.shape == (turns.count, 2)
    assert [int(table[table[:, 0] == e, 1].sum()) for e in range(len(loads))] == loads
    assert table[:, 1].max() <= rows
    used = np.flatnonzero(table[:, 1])
    assert list(used) == list(range(len(used)))  # those without rows stand at the end


@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 600))
def test_a_turn_holds_three_deviations_beyond_the_mean(experts: int, routed: int, most: int) -> None:
    turns, mean = turns_of(experts, routed, most), routed / experts
    need = int(np.ceil(mean + 3 * mean**0.5))
    assert turns.rows <= most
    assert turns.rows == most or need <= turns.rows <= need * 5 / 4 + 1


@given(st.integers(2, 64), st.integers(1, 400))
def test_few_of_equal_experts_need_a_second_turn(experts: int, mean: int) -> None:
    routed = experts * mean
    loads = np.random.default_rng(experts).multinomial(routed, [1 / experts] * experts, size=20)
    turns = turns_of(experts, routed, routed)
    assert (loads > turns.rows).mean() < 0.05
