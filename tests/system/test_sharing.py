"""Max-min fair sharing, held to its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.system.sharing import Use, fair_rates, last_end_s


def use(paths: list[set[int]]) -> Use:
    pairs = [(f, r) for f, path in enumerate(paths) for r in sorted(path)]
    flow, resource = (np.asarray(x, np.int64) for x in zip(*pairs, strict=True))
    return Use(flow, resource, np.ones(len(pairs)))


PATHS = st.lists(st.sets(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=8)
CAPACITY = st.lists(st.floats(1.0, 100.0), min_size=5, max_size=5)


@given(PATHS, CAPACITY)
def test_each_flow_has_a_full_resource_on_which_none_is_faster(
    paths: list[set[int]], capacity: list[float]
) -> None:
    rates = fair_rates(use(paths), len(paths), np.asarray(capacity))
    load = [sum(rates[f] for f, path in enumerate(paths) if r in path) for r in range(5)]
    assert all(x <= c * (1 + 1e-6) for x, c in zip(load, capacity, strict=True))
    for f, path in enumerate(paths):  # the definition of max-min fair
        assert any(
            load[r] >= capacity[r] * (1 - 1e-6)
            and all(rates[g] <= rates[f] * (1 + 1e-6) for g, other in enumerate(paths) if r in other)
            for r in path
        )


@given(PATHS, CAPACITY, st.data())
def test_the_last_end_is_after_what_any_resource_needs(
    paths: list[set[int]], capacity: list[float], data: st.DataObject
) -> None:
    size = data.draw(st.lists(st.floats(0, 1e6), min_size=len(paths), max_size=len(paths)))
    end = last_end_s(use(paths), np.asarray(size), np.asarray(capacity))
    need = max(
        sum(s for s, path in zip(size, paths, strict=True) if r in path) / capacity[r] for r in range(5)
    )
    alone = sum(s / min(capacity[r] for r in path) for s, path in zip(size, paths, strict=True))
    assert need * (1 - 1e-6) <= end <= alone * (1 + 1e-6) + 1e-12
    assert end == pytest.approx(last_end_s(use(paths), np.asarray(size), 2 * np.asarray(capacity)) * 2)


def test_a_flow_that_ends_leaves_its_share() -> None:
    both = use([{0}, {0}])
    assert last_end_s(both, np.array([10.0, 30.0]), np.array([10.0])) == pytest.approx(4.0)
    assert fair_rates(use([{0}, {0, 1}, {1}]), 3, np.array([10.0, 4.0])).tolist() == [8.0, 2.0, 2.0]
