"""Ranks of different programs timed together: they meet, the slowest sets the pace, amounts add up."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from mtia_emu.compiler.partition.tables import TablePlace, tables

from mtia_emu.results.report import Report
from mtia_emu.study.partition import partition
from mtia_emu.study.system_machine import SystemMachine

from .systems import machine, model

GIVEN = model("dlrm-small", batch=64)
NAMES = list(tables(GIVEN.graph))


@cache
def timed(parallel: str, owners: tuple[int, ...] | None = None, system: str = "tiny-board") -> Report:
    over: SystemMachine = machine(parallel, system)
    if owners is None:
        return over.report(GIVEN)
    places = {name: TablePlace("table", (o,)) for name, o in zip(NAMES, owners, strict=True)}
    return over.timed(GIVEN, partition(GIVEN.graph, over.mesh, places))


def test_exchanges_are_two_each_of_all_tables() -> None:
    use = timed("dp=4,tables=table").system
    assert use is not None
    assert sorted((x.kind, x.times) for x in use.exchanges) == [("collect", 1), ("spread", 1)]


def test_all_chips_end_together_and_none_works_longer() -> None:
    found = timed("dp=4,tables=table")
    use = found.system
    assert use is not None and len(use.stages) == 4
    for stage in use.stages:
        assert stage.seconds == found.seconds
        assert 0 < stage.compute_s < found.seconds
        assert stage.compute_s + stage.exposed_s == pytest.approx(found.seconds)
    for track in found.tracks:
        spans = sorted((x.start_cycle, x.end_cycle) for x in found.layers if x.track == track)
        assert all(a[1] <= b[1] for a, b in pairwise(spans))
        assert all(track.exact_seconds(end) <= found.length for _, end in spans)


def test_what_a_chip_reads_of_an_exchange_comes_after_the_slowest_has_given_it() -> None:
    found = timed("dp=4,tables=table")
    (spread,) = [x for x in found.layers if x.op == "spread" and x.kernel != "in a bucket"]
    sent = spread.track.exact_seconds(spread.start_cycle)
    for layer in found.layers:
        end, start = (layer.track.exact_seconds(t) for t in (layer.end_cycle, layer.start_cycle))
        if layer.op.startswith("embedding_bag"):
            assert end <= sent, "rows are pooled before they are sent"
        if layer.name.startswith("crossnet.0.down"):
            assert start >= spread.track.exact_seconds(spread.end_cycle)


def test_all_tables_on_one_chip_are_slower_than_tables_spread() -> None:
    spread, crowded = timed("dp=4,tables=table"), timed("dp=4,tables=table", (0,) * 8)
    assert crowded.seconds > spread.seconds
    use = crowded.system
    assert use is not None and [s.chips for s in use.stages] == [1, 3]
    assert use.stages[0].compute_s > use.stages[1].compute_s


def test_work_and_joules_are_of_all_chips() -> None:
    here, there = timed("dp=4,tables=table", (0, 1) * 4), timed("dp=4,tables=table", (2, 3) * 4)
    assert here.seconds == there.seconds and here.macs == there.macs
    assert here.joules == pytest.approx(there.joules)
    assert here.macs == machine("dp=4").report(GIVEN).macs, "look-ups are no products"


def test_a_gpu_system_waits_for_its_slowest() -> None:
    found = timed("dp=8,tables=table", None, "hgx-h200")
    use = found.system
    assert use is not None and len(use.stages) == len(use.shards) == 8
    assert found.seconds == max(s.seconds for s in use.stages)
    assert sum(s.memory.weights for s in use.stages) < 8 * max(s.memory.weights for s in use.stages)
