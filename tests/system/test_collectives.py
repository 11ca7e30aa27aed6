"""The time of collectives: closed forms, bounds, and laws over systems, sizes and ranks."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.system.algorithms import KINDS
from mtia_emu.system.bounds import least_seconds
from mtia_emu.system.collectives import Collective, algorithms, bus_factor, timed
from mtia_emu.system.load import load_system, system_names
from mtia_emu.system.topology import System

RATE, HOP, LAUNCH, POST = 8e9, 500e-9, 1e-6, 100e-9  # of tiny-board: two links, and a chip's own
RANKS = st.integers(2, 8)
SIZE = st.integers(0, 10**9).map(float)


@cache
def system(name: str, *settings: tuple[str, str]) -> System:
    return load_system(name, dict(settings))


def board(rate: float = RATE) -> System:
    return system("tiny-board", ("links.link.bytes_per_s", repr(rate)))


@given(RANKS, SIZE)
def test_closed_forms(n: int, size: float) -> None:
    """Alpha-beta forms (Thakur, Rabenseifner and Gropp, 2005); a send is one alpha and its beta."""
    ranks, alpha = tuple(range(n)), HOP + POST
    depth = math.ceil(math.log2(n))
    assert RATE / 2 < 16e9 / 3  # neither DRAM nor the reducer of a tiny chip holds a ring back
    forms = {
        ("all_gather", "ring"): (n - 1) * (alpha + size / n / RATE),
        ("reduce_scatter", "ring"): (n - 1) * (alpha + size / n / RATE),
        ("all_reduce", "ring"): 2 * (n - 1) * (alpha + size / n / RATE),
        ("all_reduce", "tree"): 2 * depth * (alpha + size / RATE),
        ("broadcast", "tree"): depth * (alpha + size / RATE),
        ("all_reduce", "direct"): 2 * (HOP + (n - 1) * (POST + size / n / RATE)),
        ("all_to_all", "direct"): HOP + (n - 1) * (POST + size / n / RATE),
        ("all_reduce", "one_shot"): HOP + (n - 1) * (POST + size / RATE),
    }
    for (kind, algorithm), seconds in forms.items():
        found = timed(board(), Collective(kind, size, ranks), algorithm).seconds
        assert found == pytest.approx(LAUNCH + seconds, rel=1e-9), (kind, algorithm)
    pair = timed(board(), Collective("send", size, (0, 1)))
    assert pair.seconds == pytest.approx(LAUNCH + alpha + size / RATE)


SHIPPED = [n for n in system_names() if n != "gb200-nvl72"]  # its 72 ranks take their time
SYSTEMS = st.sampled_from(["tiny-board", "hgx-h200", "dgx-a100*2"])
CASES = st.tuples(SYSTEMS, st.sampled_from(KINDS), SIZE, st.data())


def drawn(name: str, kind: str, size: float, data: st.DataObject) -> tuple[System, Collective]:
    found = system(name)
    count = 2 if kind == "send" else data.draw(st.integers(2, len(found.ranks)))
    return found, Collective(kind, size, tuple(data.draw(st.permutations(range(len(found.ranks))))[:count]))


@given(SYSTEMS, st.sampled_from(KINDS), SIZE, st.data())
def test_what_is_sent_is_received(name: str, kind: str, size: float, data: st.DataObject) -> None:
    """At a switch that adds nothing, what comes in goes out; chips send as many bytes as they receive."""
    where, what = drawn(name, kind, size, data)
    for algorithm in algorithms(where, what):
        found = timed(where, what, algorithm)
        links = list(zip(where.links, found.link_bytes, strict=True))
        if algorithm == "in_switch":
            continue
        for switch in where.switches:
            into = math.fsum(b for link, b in links if link.target == switch.name)
            out = math.fsum(b for link, b in links if link.source == switch.name)
            assert into == pytest.approx(out)
        sent = math.fsum(b for link, b in links if link.source in where.ranks)
        got = math.fsum(b for link, b in links if link.target in where.ranks)
        assert sent == pytest.approx(got)
        assert sent >= least_sent(kind, size, len(what.ranks)) * (1 - 1e-9)


def least_sent(kind: str, size: float, n: int) -> float:
    """Return the bytes that all ranks must send between them: what each lacks comes from somewhere."""
    each = {"all_reduce": 2 * (n - 1) / n * n, "broadcast": n - 1, "send": 1}
    return size * each.get(kind, n - 1)


@given(SYSTEMS, st.sampled_from(KINDS), SIZE, st.data())
def test_bounds(name: str, kind: str, size: float, data: st.DataObject) -> None:
    """No collective is faster than the cut around one rank allows, and more bytes never take less."""
    where, what = drawn(name, kind, size, data)
    found = timed(where, what)
    fastest = max(link.bytes_per_s for link in where.links if link.source in where.ranks)
    if found.algorithm != "in_switch":
        assert found.bus_bytes_per_s <= sum_of_ports(where, what) * (1 + 1e-9)
        assert found.seconds >= size * bus_factor(kind, len(what.ranks)) / (2 * fastest) * (1 - 1e-9)
    more = timed(where, Collective(kind, size * 1.5 + 1, what.ranks))
    assert more.seconds >= found.seconds * (1 - 1e-9)
    assert found.joules >= 0 and found.fixed_s <= found.seconds
    assert found.seconds == min(timed(where, what, a).seconds for a in algorithms(where, what))


def sum_of_ports(where: System, what: Collective) -> float:
    """Return the fastest any of the ranks can send: all its links together."""
    names = {where.ranks[r] for r in what.ranks}
    rates = dict.fromkeys(names, 0.0)
    for link in where.links:
        if link.source in names:
            rates[link.source] += link.bytes_per_s
    return max(rates.values())


@given(st.sampled_from(["", *SHIPPED]), st.sampled_from(KINDS), SIZE, st.data())
def test_the_bisection_bound(name: str, kind: str, size: float, data: st.DataObject) -> None:
    """What must cross from half to half takes its time; only a switch that adds may beat it."""
    where = load_system(name) if name else two_islands()
    count = 2 if kind == "send" else len(where.ranks)
    what = Collective(kind, size, tuple(data.draw(st.permutations(range(len(where.ranks))))[:count]))
    for algorithm in algorithms(where, what):
        if algorithm != "in_switch":
            assert timed(where, what, algorithm).seconds >= least_seconds(where, what) * (1 - 1e-9)


@cache
def two_islands(duplex: str = "full") -> System:
    import tempfile
    from pathlib import Path

    text = Path(__file__).with_name("two_islands.toml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.toml"
        file.write_text(text.replace('duplex = "full"', f'duplex = "{duplex}"'), encoding="utf-8")
        return load_system(str(file))


def test_hierarchical_crosses_less() -> None:
    thin = two_islands()
    what = Collective("all_reduce", 1e8, tuple(range(8)))
    by = {a: timed(thin, what, a) for a in ("ring", "hierarchical", "direct")}
    place = next(i for i, link in enumerate(thin.links) if link.name == "thin")
    crossed = {a: found.link_bytes[place] for a, found in by.items()}
    assert crossed["hierarchical"] == pytest.approx(1e8)
    assert crossed["hierarchical"] < crossed["ring"] == pytest.approx(1.75e8)
    assert crossed["direct"] == pytest.approx(4e8)
    assert timed(thin, what).algorithm == "hierarchical"


def test_half_duplex_is_shared_by_both_ways() -> None:
    what = Collective("all_to_all", 1e8, tuple(range(8)))
    full, half = timed(two_islands(), what), timed(two_islands("half"), what)
    assert half.seconds - half.fixed_s == pytest.approx(2 * (full.seconds - full.fixed_s))


@given(st.floats(1e8, 1e11), st.floats(1, 10), SIZE, st.sampled_from(KINDS), RANKS)
def test_more_bandwidth_is_never_slower(rate: float, more: float, size: float, kind: str, n: int) -> None:
    what = Collective(kind, size, tuple(range(2 if kind == "send" else n)))
    assert timed(board(rate * more), what).seconds <= timed(board(rate), what).seconds * (1 + 1e-9)


@given(st.integers(2, 6), st.data())
def test_uneven_all_to_all(n: int, data: st.DataObject) -> None:
    row = st.lists(st.integers(0, 10**8).map(float), min_size=n, max_size=n)
    matrix = tuple(tuple(data.draw(row)) for _ in range(n))
    found = timed(board(), Collective("all_to_all", 0, tuple(range(n)), matrix))
    away = np.asarray(matrix) * (1 - np.eye(n))
    busiest = max(away.sum(0).max(), away.sum(1).max())
    assert found.seconds - found.fixed_s >= busiest / RATE * (1 - 1e-6)
    even = timed(board(), Collective("all_to_all", 8e6, tuple(range(n))))
    same = timed(board(), Collective("all_to_all", 0, tuple(range(n)), ((8e6 / n,) * n,) * n))
    assert same.seconds == pytest.approx(even.seconds) and same.joules == pytest.approx(even.joules)


def test_published_bus_bandwidths() -> None:
    """H200: about 367 GB/s by rings and 480 by NVLink SHARP (stas00/ml-engineering 744d01e)."""
    h200, ranks = system("hgx-h200"), tuple(range(8))
    big = Collective("all_reduce", float(1 << 34), ranks)
    assert timed(h200, big, "ring").bus_bytes_per_s == pytest.approx(367e9, rel=0.05)
    assert timed(h200, big).bus_bytes_per_s == pytest.approx(480e9, rel=0.05)
    assert timed(h200, big).algorithm == "in_switch"


def test_joules_are_of_bytes_on_links_and_through_switches() -> None:
    found = timed(board(), Collective("all_gather", 8e6, tuple(range(8))), "ring")
    moved = 7 * 8e6  # each byte over two links of 5 pJ a bit, through one switch of 1
    assert found.joules == pytest.approx(moved * 8 * (5 + 5 + 1) * 1e-12)
    assert sum(found.link_bytes) == pytest.approx(2 * moved)
    assert found.dram_bytes == (0.0,) * 8  # a tiny chip sends out of SRAM
    assert timed(board(), Collective("all_reduce", 8e6, tuple(range(8))), "ring").reduce_s[
        0
    ] == pytest.approx(7 / 8 * 8e6 / 16e9)


def test_one_rank_takes_no_time() -> None:
    assert timed(board(), Collective("all_reduce", 1e9, (3,))).seconds == 0


def test_large_systems_are_quick() -> None:
    import time

    rack = system("dgx-h100*9")  # 72 ranks
    start = time.perf_counter()
    for exponent in range(10, 31):
        timed(rack, Collective("all_reduce", float(2**exponent), tuple(range(72))), "ring")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("what", "algorithm", "message"),
    [
        (Collective("all_reduces", 1, (0, 1)), "auto", "did you mean 'all_reduce'"),
        (Collective("all_reduce", 1, (0, 0)), "auto", "each once"),
        (Collective("all_reduce", 1, ()), "auto", "of none"),
        (Collective("all_reduce", 1, (0, 8)), "auto", "rank 8; tiny-board has ranks 0 to 7"),
        (Collective("all_reduce", -1, (0, 1)), "auto", "from 0 to 1e18"),
        (Collective("all_reduce", math.nan, (0, 1)), "auto", "from 0 to 1e18"),
        (Collective("all_reduce", 1, (0, 1)), "rings", "did you mean 'ring'"),
        (Collective("all_reduce", 1, (0, 1, 2)), "halving_doubling", "right: direct"),
        (Collective("send", 1, (0, 1, 2)), "auto", "who sends and who receives"),
        (Collective("all_to_all", 1, (0, 1), ((1.0,), (1.0,))), "auto", "not 2 x 2"),
        (Collective("all_to_all", 1, (0, 1), ((1.0, math.nan), (1.0, 1.0))), "auto", "from 0 to 1e18"),
        (Collective("all_gather", 1, (0, 1), ((1.0, 1.0), (1.0, 1.0))), "auto", "all_to_all alone"),
    ],
)
def test_what_cannot_be_is_refused(what: Collective, algorithm: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        timed(board(), what, algorithm)
