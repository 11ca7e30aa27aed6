"""Streams of look-ups: the shape of each law, published hit shares, and what a real cache makes of them."""

from __future__ import annotations

import csv
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.units.cache import Cache, CacheShape
from mtia_emu.streams import Histogram, Zipf, draw, histogram, histogram_names, parse, spread
from mtia_emu.streams.routing import included, loads, reached

REFERENCE = Path(__file__).resolve().parents[2] / "shared/reference/mtia/embedding_trace_static_cache_hit.csv"
TRACES = {
    "dlrm-2021": ("fbgemm_t856_bs65536.pt", 128435723),
    "dlrm-2022": ("fbgemm_t788_bs131072_0.pt", 110259238),
}
TEXTS = [
    "uniform",
    "zipf:0.8",
    "zipf:1.0",
    "zipf:1.2",
    "zipf:10",
    *(f"histogram:{n}" for n in histogram_names()),
]


def rng(seed: int = 0) -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(seed)


@settings(max_examples=50)
@given(text=st.sampled_from(TEXTS), rows=st.integers(1, 2**31), seed=st.integers(0, 99))
def test_every_law_stays_in_the_table_and_repeats(text: str, rows: int, seed: int) -> None:
    found = draw(parse(text), rng(seed), rows, (3, 40))
    assert found.dtype == np.int64 and found.shape == (3, 40)
    assert found.min() >= 0 and found.max() < rows
    np.testing.assert_array_equal(found, draw(parse(text), rng(seed), rows, (3, 40)))


@given(rows=st.integers(1, 3000))
def test_every_rank_has_a_row_of_its_own(rows: int) -> None:
    assert set(spread(np.arange(rows), rows)) == set(range(rows))


def test_zipf_draws_rank_by_rank_what_its_law_says() -> None:
    counts = -np.sort(-np.bincount(draw(Zipf(1.0), rng(), 1000, (200_000,)), minlength=1000))
    expected = 200_000 * np.diff(np.log(np.arange(1, 1002))) / np.log(1001)
    np.testing.assert_allclose(np.cumsum(counts)[[0, 9, 99]], np.cumsum(expected)[[0, 9, 99]], rtol=0.03)


def test_a_flat_law_is_flat() -> None:
    counts = np.bincount(draw(parse("uniform"), rng(), 100, (100_000,)), minlength=100)
    assert counts.min() > 800 and counts.max() < 1200


@pytest.mark.parametrize("name", histogram_names())
def test_an_ideal_static_cache_sees_the_shares_of_the_histogram(name: str) -> None:
    law, rows = histogram(name), 1_000_000
    found = draw(law, rng(1), rows, (400_000,))
    for share in (0.001, 0.02, 0.3):
        hot = spread(np.arange(int(rows * share)), rows)
        assert np.isin(found, hot).mean() == pytest.approx(float(law.static_hits(share)), abs=0.004)


@pytest.mark.parametrize("name", histogram_names())
def test_the_shipped_curves_are_the_published_ones(name: str) -> None:
    """The reference rounds the share of hot rows to 0.001: points below that say nothing."""
    if not REFERENCE.exists():
        pytest.skip(f"no reference data at {REFERENCE}")
    trace, rows = TRACES[name]
    with REFERENCE.open(encoding="utf-8", newline="") as stream:
        points = [
            (int(r["rows_hotter"]), float(r["pct_accesses"]) / 100)
            for r in csv.DictReader(stream)
            if r["dataset"] == trace
        ]
    checked = [(hot, share) for hot, share in points if hot / rows > 0.0035]
    assert len(checked) >= 8
    for hot, share in checked:
        assert float(histogram(name).static_hits(hot / rows)) == pytest.approx(share, abs=0.012), (hot, share)


def test_many_look_ups_in_large_tables_take_no_time() -> None:
    start = time.process_time()
    for seed in range(10):
        draw(histogram("dlrm-2022"), rng(seed), 30_000_000, (2048, 20))
    assert time.process_time() - start < 10  # a bound against absurdity: measured 0.05 s


def test_least_recent_use_stays_below_an_ideal_static_cache() -> None:
    """One thousandth of the trace's rows and of MTIA 2i's 224 MB of last-level cache, rows of 128 B."""
    rows, law = TRACES["dlrm-2022"][1] // 1000, histogram("dlrm-2022")
    held = (224 << 20) // 128 // 1000 // 16 * 16
    cache = Cache(CacheShape(bytes=held * 128, line_bytes=128, ways=16))
    cache.access(draw(law, rng(1), rows, (60_000,)))
    hits = cache.access(draw(law, rng(2), rows, (100_000,))).mean()
    assert float(law.static_hits(held / rows)) - 0.15 < hits < float(law.static_hits(held / rows))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zipf:nan", "(right: --skew zipf:1.05)"),
        ("zipf:0", "above 0 and at most 10"),
        ("pareto", "none of uniform|zipf:A|histogram:NAME|FILE.csv"),
        ("histogram", "none of uniform"),
        ("histogram:dlrm-2020", "unknown histogram 'dlrm-2020'; did you mean 'dlrm-202"),
        ("histogram:nowhere.csv", "is not a file; give a name (dlrm-2021, dlrm-2022)"),
    ],
)
def test_an_unknown_law_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "columns are []"),
        ("rows,share\n1,1\n", "right: rows,lookups"),
        ("rows,lookups\n1,x\n", "two numbers"),
        ("rows,lookups\n1\n", "two numbers"),
        ("rows,lookups\n" + "1" * 200_000 + ",1\n", "not CSV"),
        ("rows,lookups\n1,nan\n", "two numbers"),
        ("rows,lookups\n1,0.5\n2,0.9\n", "lookups to 1 (seen: 0.9)"),
        ("rows,lookups\n2,0.5\n1,1\n", "must rise"),
        ("rows,lookups\n1,0.1\n2,1\n", "the hottest first"),
    ],
)
def test_a_broken_histogram_is_refused(tmp_path: Path, body: str, words: str) -> None:
    path = tmp_path / "h.csv"
    path.write_text(body)
    with pytest.raises(UserError) as error:
        parse(f"histogram:{path}")
    assert words in str(error.value)


def test_a_histogram_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("# two of ten rows take nine tenths\nrows,lookups\n2,0.9\n10,1\n")
    law = parse(f"histogram:{path}")
    assert law == Histogram((0.2, 1.0), (0.9, 1.0))
    hot = spread(np.arange(20), 100)
    assert np.isin(draw(law, rng(), 100, (50_000,)), hot).mean() == pytest.approx(0.9, abs=0.01)


def test_a_table_too_large_is_refused() -> None:
    with pytest.raises(UserError, match="look-ups are drawn from 1 to"):
        draw(parse("uniform"), rng(), 2**31 + 1, (1,))


@given(st.sampled_from(TEXTS), st.integers(1, 300), st.integers(1, 64), st.integers(1, 12))
def test_loads_add_up(law: str, rows: int, experts: int, each: int) -> None:
    each = min(each, experts)
    found = loads(law, rows, experts, each)
    assert len(found) == experts
    assert sum(found) == rows * each
    assert 0 <= min(found) <= max(found) <= rows
    chance = included(parse(law), experts, each)
    assert chance.sum() == pytest.approx(each)
    assert (np.diff(chance) <= 1e-4 * each).all()


@pytest.mark.parametrize(("rows", "experts", "each"), [(1, 8, 2), (1, 256, 8), (1, 128, 8)])
def test_one_row_goes_to_different_experts(rows: int, experts: int, each: int) -> None:
    for law in TEXTS:
        assert sorted(loads(law, rows, experts, each))[-each:] == [1] * each


@pytest.mark.parametrize("experts", [16, 128, 256])
@pytest.mark.parametrize("rows", [2, 8, 32, 128])
def test_as_many_experts_have_rows_as_evenly_drawn_ones_have(rows: int, experts: int) -> None:
    """In closed form: an expert is missed by all rows with probability (1 - each / experts) ** rows."""
    expected = experts * (1 - (1 - 4 / experts) ** rows)
    assert np.count_nonzero(loads("uniform", rows, experts, 4)) == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("law", ["zipf:0.8", "zipf:1.2"])
def test_loads_are_those_of_rows_drawn_one_by_one(law: str) -> None:
    """Rows draw experts until they have enough different ones, as the law has it."""
    rows, experts, each = 64, 32, 4
    generator, counts = rng(), []
    for _ in range(60):
        mine = np.zeros(experts, int)
        for _ in range(rows):
            ranks = parse(law).ranks(generator.random(400), experts).astype(int).clip(0, experts - 1)
            mine[list(dict.fromkeys(ranks.tolist()))[:each]] += 1
        counts.append(np.sort(mine)[::-1])
    drawn, found = np.mean(counts, axis=0), np.sort(loads(law, rows, experts, each))[::-1]
    assert np.abs(drawn - found).max() < 0.1 * rows  # the probabilities are asymptotic
    assert np.count_nonzero(found) == pytest.approx(np.mean([np.count_nonzero(c) for c in counts]), abs=1.5)


def test_a_routing_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="rows go to 9 of 8 experts"):
        loads("uniform", 4, 8, 9)
    with pytest.raises(UserError, match=r"--routing 'fair': none of .*right: --routing zipf:1.05"):
        loads("fair", 4, 8, 2)


def test_many_rows_take_no_time() -> None:
    begun = time.process_time()
    assert sum(loads("zipf:1.1", 1 << 20, 256, 8)) == 8 << 20
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(("experts", "each", "ranks"), [(8, 2, 2), (256, 8, 32), (8, 8, 4), (6, 1, 3)])
def test_rows_reach_parts_of_equal_experts_by_the_hypergeometric_law(
    experts: int, each: int, ranks: int
) -> None:
    none = math.comb(experts - experts // ranks, each) / math.comb(experts, each)
    assert reached("uniform", experts, each, ranks) == pytest.approx([1 - none] * ranks, rel=1e-4)


def test_rows_reach_parts_as_drawn_subsets_do() -> None:
    """All subsets of 3 of 6 experts, each by the product of its odds."""
    chance = np.minimum(included(parse("zipf:1.1"), 6, 3), 1 - 1e-9)
    odds = chance / (1 - chance)
    weight = {s: math.prod(odds[i] for i in s) for s in itertools.combinations(range(6), 3)}
    right = [
        sum(w for s, w in weight.items() if {2 * r, 2 * r + 1} & set(s)) / sum(weight.values())
        for r in range(3)
    ]
    assert reached("zipf:1.1", 6, 3, 3) == pytest.approx(right) and right == sorted(right, reverse=True)
    assert sum(reached("zipf:1.1", 6, 3, 6)) == pytest.approx(3), "a part each: a row's experts"
    with pytest.raises(UserError, match="in 4 equal parts"):
        reached("uniform", 6, 3, 4)
