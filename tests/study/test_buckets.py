"""Exchanges that go together: what a bucket holds, when it goes, and what that saves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.study.buckets import bucketed
from mtia_emu.study.meetings import Meeting
from mtia_emu.study.partition import Exchanges

from .systems import machine, model

OVER = machine("dp=4")
ON, AXES = Exchanges(OVER.system, OVER.mesh), OVER.mesh.axes("dp")


def meeting(launch: int, size: int, op: str = "all_reduce") -> Meeting:
    return Meeting(launch, op, AXES, size, 4, *ON.time(0, op, AXES, size))


def found(meetings: list[Meeting], after: list[tuple[int, ...]], limit: int) -> list[tuple[int, ...]]:
    """Return the launches of each exchange that is left."""
    return [(*m.held, m.launch) for m in bucketed(meetings, after, ON, 0, limit)]


def test_a_bucket_holds_so_many_bytes_of_one_kind() -> None:
    each = [meeting(0, 400), meeting(1, 400), meeting(2, 400, "all_gather"), meeting(3, 400)]
    assert found(each, [()] * 4, 1000) == [(0, 1), (2,), (3,)]
    assert found(each, [()] * 4, 800) == [(0, 1), (2,), (3,)]
    assert found(each, [()] * 4, 1200) == [(2,), (0, 1, 3)]
    assert found(each, [()] * 4, 100) == [(0,), (1,), (2,), (3,)], "one larger than a bucket goes alone"
    (both, *_) = bucketed(each, [()] * 4, ON, 0, 1000)
    assert (both.bytes, both.time) == (800, ON.time(0, "all_reduce", AXES, 800)[0])


def test_a_bucket_goes_before_anything_waits_for_it() -> None:
    each = [meeting(0, 8), meeting(2, 8), meeting(3, 8)]
    assert found(each, [(), (0,), (), ()], 1000) == [(0,), (2, 3)]
    assert found(each, [(), (), (), ()], 1000) == [(0, 2, 3)]


@given(st.lists(st.tuples(st.sampled_from(["all_reduce", "all_gather"]), st.integers(1, 99)), max_size=8),
       st.integers(1, 300), st.data())  # fmt: skip
def test_every_exchange_goes_once_and_none_waits_for_what_comes_later(
    kinds: list[tuple[str, int]], limit: int, data: st.DataObject
) -> None:
    each = [meeting(i, size, op) for i, (op, size) in enumerate(kinds)]
    after = [tuple(data.draw(st.sets(st.sampled_from(range(i))))) if i else () for i in range(len(each))]
    buckets = found(each, after, limit)
    assert sorted(x for b in buckets for x in b) == list(range(len(each)))
    for bucket in buckets:
        assert len({kinds[i][0] for i in bucket}) == 1
        assert len(bucket) == 1 or sum(kinds[i][1] for i in bucket) <= limit
        assert not any(set(bucket) & set(after[i]) for i in range(bucket[-1] + 1))


@pytest.mark.parametrize("system", ["tiny-board", "hgx-h200"])
def test_small_exchanges_of_tables_start_once(system: str) -> None:
    given = model("dlrm-small")
    apart, joined = (machine(f"dp=4,tables=row{text}", system).report(given) for text in ("", ",bucket=1MiB"))
    assert apart.system is not None and joined.system is not None
    (before,), (after,) = apart.system.stages, joined.system.stages
    assert [(x.kind, x.times) for x in joined.system.exchanges] == [("all_gather", 1), ("reduce_scatter", 1)]
    assert after.exposed_s < 0.5 * before.exposed_s and joined.seconds < apart.seconds
    sent = [sum(x.bytes * x.times for x in r.system.exchanges) for r in (apart, joined) if r.system]
    assert sent[0] == sent[1], "the same bytes"
    assert before.compute_s == pytest.approx(after.compute_s)
