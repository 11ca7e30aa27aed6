"""Embedding tables on chips: laws of placements, and plans held to what enumeration finds."""

from __future__ import annotations

import importlib.util
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.system import planner
from mtia_emu.system.balance import Chips, balance
from mtia_emu.system.load import load_system
from mtia_emu.system.planner import KINDS, by_rule, plan
from mtia_emu.system.programme import solved
from mtia_emu.system.reading import row_seconds
from mtia_emu.system.sharding import ShardJob, TablePlacement, cost, slowest_s
from mtia_emu.system.tables import EmbeddingTable, load_tables, with_hot_rows

BOARD = load_system("tiny-board")
GROUP = st.builds(
    EmbeddingTable, st.just("t"), st.integers(1, 6), st.integers(1, 200_000), st.sampled_from([16, 64, 128]),
    st.integers(1, 30).map(float), st.sampled_from(["uniform", "zipf:1.05"]),
)  # fmt: skip
GROUPS = st.lists(GROUP, min_size=1, max_size=4).map(
    lambda made: tuple(EmbeddingTable(f"t{i}", *list(vars(t).values())[1:6]) for i, t in enumerate(made))
)


def table(**changes: object) -> EmbeddingTable:
    return EmbeddingTable(**({"name": "t", "count": 1, "rows": 1000, "dim": 64, "pooling": 10.0} | changes))  # type: ignore[arg-type]


@given(
    GROUPS,
    st.sampled_from([1, 64, 4096]),
    st.sampled_from([KINDS, ("table",), ("row",), ("column", "table")]),
)
def test_every_table_is_placed_once_within_memory(
    groups: tuple[EmbeddingTable, ...], batch: int, kinds: tuple[str, ...]
) -> None:
    job = ShardJob(BOARD, groups, batch)
    found = plan(job, kinds)
    for number, group in enumerate(groups):
        mine = [p for p in found.placements if p.table == number]
        assert sum(p.count / p.parts for p in mine) == pytest.approx(group.count)
        assert {p.kind for p in mine} <= set(kinds)
        for parts in {p.parts for p in mine}:  # a cut table has all its columns
            assert sum(p.count for p in mine if p.parts == parts) % parts == 0
    assert (found.cost.memory_bytes <= 0.8 * 1e9 * (1 + 1e-9)).all()
    if "copied" not in kinds:
        assert found.cost.memory_bytes.sum() == pytest.approx(sum(t.count * t.bytes for t in groups))
    assert found.least_s <= found.cost.seconds * (1 + 1e-6)
    rule = by_rule(job, kinds)
    assert rule is None or found.cost.seconds <= cost(job, rule).seconds


@settings(max_examples=40)
@given(GROUPS, st.integers(0, 10**8))
def test_hot_rows_keep_to_their_budget(groups: tuple[EmbeddingTable, ...], budget: int) -> None:
    held = with_hot_rows(groups, budget)
    assert sum(t.count * t.hot_bytes for t in held) <= budget
    assert all(0 <= t.hot_rows <= t.rows and 0.0 <= t.hot_share <= 1.0 for t in held)
    shares = [t.block_shares(8).sum() + t.hot_share for t in held]
    assert shares == pytest.approx([1.0] * len(held))


def test_skew_makes_one_chip_slow_and_hot_rows_mend_it() -> None:
    even, skewed = (table(rows=10**6, skew=law) for law in ("uniform", "zipf:1.2"))
    assert even.block_shares(8).max() == pytest.approx(1 / 8, rel=0.01)
    assert skewed.block_shares(8).max() > 0.2
    (held,) = with_hot_rows([skewed], 10_000 * skewed.row_bytes)
    assert held.hot_rows > 1000
    rows = [TablePlacement(0, "row", -1, 1)]
    worst = [cost(ShardJob(BOARD, (t,), 1024), rows).lookup_s for t in (even, skewed, held)]
    assert worst[0].max() < worst[2].max() < worst[1].max()
    assert [w.sum() for w in worst] == pytest.approx([worst[0].sum()] * 3, rel=1e-3)  # no look-up is lost


def test_costs_by_hand() -> None:
    job = ShardJob(BOARD, (table(count=2),), 800)
    read_s = row_seconds("tiny", 128.0)
    whole = cost(job, [TablePlacement(0, "table", 3, 2)])
    assert whole.lookup_s.tolist() == pytest.approx([0, 0, 0, 2 * 800 * 10 * read_s, 0, 0, 0, 0])
    assert whole.memory_bytes[3] == 2 * 1000 * 128 and whole.sums_s == 0
    assert whole.pooled_s > 2 * 800 * 128 * 7 / 8 / 8e9 and whole.index_s > 0
    copied = cost(job, [TablePlacement(0, "copied", -1, 2)])
    assert copied.lookup_s == pytest.approx(np.full(8, 2 * 100 * 10 * read_s))
    assert copied.seconds == copied.lookup_s.max() and copied.exchanged_j == 0
    rows = cost(job, [TablePlacement(0, "row", -1, 2)])
    assert rows.memory_bytes.sum() == 2 * 1000 * 128 and rows.sums_s > 0 and rows.pooled_s == 0


def test_drawn_batches_lie_around_what_is_expected() -> None:
    job = ShardJob(BOARD, (table(rows=10**6, skew="zipf:1.2"),), 4096)
    rows = [TablePlacement(0, "row", -1, 1)]
    drawn = slowest_s(job, rows, 8, 0)
    assert drawn.mean() == pytest.approx(cost(job, rows).lookup_s.max(), rel=0.05)
    assert len(set(drawn.tolist())) > 4 and (drawn == slowest_s(job, rows, 8, 0)).all()
    whole = slowest_s(job, [TablePlacement(0, "table", 0, 1)], 3, 0)
    assert len(set(whole.tolist())) == 1  # a table of fixed pooling takes the same time in each batch


def test_a_plan_is_near_to_the_best_of_all() -> None:
    """Seven whole tables on three chips: all 3^7 placements."""
    small = load_system("tiny-board", {"chips.chip.count": "3"})
    pooling = [9.0, 7.0, 6.0, 5.0, 5.0, 4.0, 3.0]
    groups = tuple(table(name=f"t{i}", pooling=p, rows=10_000) for i, p in enumerate(pooling))
    job = ShardJob(small, groups, 1024)
    best = min(
        max(sum(p for p, at in zip(pooling, where, strict=True) if at == c) for c in range(3))
        for where in product(range(3), repeat=7)
    )
    found = plan(job, ("table",))
    look = found.cost.lookup_s.max() / (1024 * row_seconds("tiny", 128.0))
    assert look <= best * 1.1


def test_swaps_never_make_it_slower() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        seconds, held = rng.random((4, 3)), rng.integers(0, 4, (4, 5))
        bytes_ = rng.random(4)
        chips = Chips((seconds.T @ held).astype(float), np.full(5, 1.0), held, seconds, bytes_)
        before, pieces, room = chips.total(), held.sum(axis=1).copy(), chips.left + bytes_ @ held
        balance(chips)
        assert chips.total() <= before * (1 + 0.01)
        assert (chips.held.sum(axis=1) == pieces).all() and (chips.held >= 0).all()
        assert chips.left + bytes_ @ chips.held == pytest.approx(room) and (chips.left >= -1e-9).all()
        assert chips.busy == pytest.approx(seconds.T @ chips.held)


@pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="scipy is not installed: the extra plan"
)
def test_the_solver_beats_the_rule_where_memory_is_tight() -> None:
    job = ShardJob(load_system("mtia-2i-server"), load_tables("examples/tables-1tb.toml"), 4096)
    found = plan(job)
    rule = by_rule(job, KINDS)
    assert found.solver == "HiGHS" and (rule is None or found.cost.seconds < cost(job, rule).seconds)
    assert found.cost.seconds < 1.35 * found.least_s
    cuts, _ = solved(job, KINDS)
    assert cuts is not None and sum(c.tables for c in cuts) == 360
    assert plan(job).placements == found.placements


def test_without_scipy_the_rule_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner.importlib.util, "find_spec", lambda name: None)
    found = plan(ShardJob(BOARD, (table(count=20),), 64))
    assert found.solver == "rule of thumb" and found.least_s == 0


def test_rows_are_read_as_memories_do() -> None:
    assert row_seconds("h100-sxm", 256.0) < row_seconds("mtia-2i", 256.0) < 2 * row_seconds("mtia-1", 256.0)
    assert row_seconds("mtia-2i", 16.0) > row_seconds("mtia-2i", 64.0) / 2  # a burst is read whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tables"),
        ('[[tables]]\nname = "a"\nrows = 0\ndim = 1\npooling = 1.0', "rows"),
        ('[[tables]]\nname = "a"\nrows = 1\ndim = 1\npooling = nan', "pooling"),
        ('[[tables]]\nname = "a"\nrows = 1\ndim = 1\npooling = 1.0\nskew = "zip:1"', "none of uniform"),
        (
            '[[tables]]\nname = "a"\nrows = 1\ndim = 1\npooling = 1.0\n' * 2,
            "two groups of tables are called 'a'",
        ),
        ('[[tables]]\nname = "a"\nrows = 1\ndim = 1\npooling = 1.0\nwhat = 1', "unknown key"),
        ('[[tables]]\nname = "a"\nrows = 1\ndim = 1\npooling = 1.0\ncount = 5000', "count"),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: object) -> None:
    file = tmp_path / "t.toml"  # type: ignore[operator]
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_tables(str(file))


def test_what_does_not_fit_says_by_how_much() -> None:
    with pytest.raises(
        UserError, match=r"12\.8 GB, tiny-board has 6\.4 GB .* 6\.4 GB too little; 16 such chips"
    ):
        plan(ShardJob(BOARD, (table(rows=10**8),), 1))
    with pytest.raises(UserError, match=r"no placement by table fits: the largest table has 1\.3 GB"):
        plan(ShardJob(BOARD, (table(rows=10**7),), 1), ("table",))
