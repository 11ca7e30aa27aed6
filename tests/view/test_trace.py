"""Traces: what Perfetto needs to show them right."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relayered import relayered

from mtia_emu.errors import UserError
from mtia_emu.results.report import Report
from mtia_emu.view.trace import LANES, LAUNCHES, Event, _micros, launches, write_trace


def written(path: Path, events: Iterator[Event] | list[Event], report: Report) -> list[dict[str, Any]]:
    write_trace(path, events, report)
    whole = json.loads(path.read_text())
    assert whole["displayTimeUnit"] == "ns"
    assert whole["otherData"]["clock_hz"] == report.clock_hz
    return list(whole["traceEvents"])


def threads(events: list[dict[str, Any]]) -> list[str]:
    """Return the names of threads in their order."""
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    order = {e["tid"]: e["args"]["sort_index"] for e in events if e["name"] == "thread_sort_index"}
    return [names[tid] for tid in sorted(order, key=order.__getitem__)]


def test_times_names_and_order(tmp_path: Path, report: Report) -> None:
    run = relayered(report, report.layers, clock_hz=1e9)
    units = [Event("pe10.dma", "load", 1000, 3500, {"bytes": 64}), Event("pe2.dma", "load", 0, 1)]
    events = written(tmp_path / "t.json", [*units, *launches(run)], run)
    load = next(e for e in events if e["name"] == "load")
    assert (load["ph"], load["ts"], load["dur"]) == ("X", 1.0, 2.5)
    assert load["args"] == {"bytes": 64, "start_cycle": 1000, "end_cycle": 3500}
    assert threads(events) == [LAUNCHES, "pe2.dma", "pe10.dma"]
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["mtia-2i"]
    assert sum(e["ph"] == "X" for e in events) == len(run.layers) + 2


def test_overlapping_events_get_lanes(tmp_path: Path, report: Report) -> None:
    spans = [(0, 10), (2, 4), (3, 12), (4, 6), (10, 11)]
    events = written(tmp_path / "t.json", [Event("dma", f"{a}-{b}", a, b) for a, b in spans], report)
    assert threads(events) == ["dma", "dma (2)", "dma (3)"]
    lanes: dict[int, list[str]] = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault(event["tid"], []).append(event["name"])
    assert sorted(lanes.values()) == [["0-10", "10-11"], ["2-4", "4-6"], ["3-12"]]


def test_lanes_are_bounded(tmp_path: Path, report: Report) -> None:
    events = written(tmp_path / "t.json", [Event("dma", "x", 0, 9) for _ in range(50)], report)
    assert len(threads(events)) == LANES


def test_neighbours_never_overlap_for_a_reader_that_truncates(tmp_path: Path, report: Report) -> None:
    rng = random.Random(7)
    cuts = sorted({rng.randrange(10**9) for _ in range(3000)})
    spans = [Event("dma", "x", a, b) for a, b in pairwise(cuts)]
    slices = [e for e in written(tmp_path / "t.json", spans, report) if e["ph"] == "X"]
    ends = [int(e["ts"] * 1000.0) + int(e["dur"] * 1000.0) for e in slices]
    starts = [int(e["ts"] * 1000.0) for e in slices]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert all(int(_micros(n) * 1000.0) == n for n in (rng.randrange(10**15) for _ in range(20_000)))


def test_hostile_names_and_odd_values(tmp_path: Path, report: Report) -> None:
    odd = {"nan": math.nan, "np": np.int64(3), "f": np.float32(0.5), "o": (1, 2), "b": True}
    args = {"k\n": "\x1b[2J", **odd}
    hostile = Event("track\x1b[31m\n", '"}],\x00\ud800<script>', 0, np.float64(5), args)
    run = replace(report, machine="chip\x1b[2J", dims={"a\n": 1})
    event = written(tmp_path / "t.json", [hostile], run)[0]
    assert event["name"] == '"}],<script>'
    expected = {"k ": "", "nan": "nan", "np": 3, "f": 0.5, "o": "(1, 2)", "b": True}
    assert event["args"] == expected | {"start_cycle": 0, "end_cycle": 5}


def test_no_events(tmp_path: Path, report: Report) -> None:
    assert [e["name"] for e in written(tmp_path / "t.json", [], report)] == ["process_name"]


@pytest.mark.parametrize("span", [(2, 1), (math.nan, 1), (0, math.inf), (-math.inf, 0)])
def test_impossible_events(tmp_path: Path, report: Report, span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="'dma': 'x' cannot run from"):
        write_trace(tmp_path / "t.json", [Event("dma", "x", *span)], report)
    assert not os.listdir(tmp_path)


def test_equal_input_gives_equal_bytes(tmp_path: Path, report: Report) -> None:
    for name in ("a.json", "b.json", "a.json.gz", "b.json.gz"):
        write_trace(tmp_path / name, launches(report), report)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "a.json").read_bytes()


def test_memory_does_not_grow(tmp_path: Path, report: Report) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_trace(tmp_path / "t.json", (Event("dma", f"load {i}", i, i + 1) for i in range(count)), report)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(20_000) < peak(1_000) + 200_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.filterwarnings("error")
def test_a_full_disk(report: Report) -> None:
    with pytest.raises(UserError, match="the disk is full"):
        write_trace("/dev/full", (Event("dma", "x", i, i + 1) for i in range(10_000)), report)
