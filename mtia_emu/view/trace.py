"""Trace files: what ran when, to be looked at in ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, cast

from ..files.writing import write_atomic
from ..results.report import Report
from ..results.spans import Track
from .text import clean

LAUNCHES = "launches"
LANES = 16
_PID = 1


@dataclass(frozen=True)
class Event:
    """What a unit did, or a launch, from one cycle to another; `args` are shown when it is selected.

    Cycles are of the clock of `on`, of the report's first track without. `track` is the row of the trace.
    """

    track: str
    name: str
    start_cycle: float
    end_cycle: float
    args: Mapping[str, object] = field(default_factory=dict)
    on: Track | None = None


def launches(report: Report) -> Iterator[Event]:
    """Yield the report's layers as events of the track `LAUNCHES`, those of further tracks by their names."""
    for x in report.layers:
        args = {"op": x.op, "kernel": x.kernel, "bound_by": x.bound_by, "macs": x.macs, "joules": x.joules}
        args |= {"dram_bytes": x.dram_bytes, "sram_bytes": x.sram_bytes}
        row = LAUNCHES if x.track == report.tracks[0] else f"{LAUNCHES} of {x.track.name}"
        yield Event(row, x.name, x.start_cycle, x.end_cycle, args, x.track)


def write_trace(path: str | os.PathLike[str], tracks: Iterable[Event], report: Report) -> None:
    """Write events as a trace (Chrome's JSON format) to `path`; a path ending in .gz is compressed.

    Events may come in any order of tracks, but those of one track should come by start cycle. Events of one
    track that overlap go to further lanes of it ("dma (2)"), at most `LANES`, as Perfetto drops overlapping
    slices. Memory does not grow with the number of events, and equal input gives equal bytes. Tracks are
    ordered: launches, then units by name. Raise `UserError` when the file cannot be written, `ValueError` for
    an event that ends before it starts.
    """

    def fill(file: IO[bytes]) -> None:
        if not os.fspath(path).endswith(".gz"):
            return _write(file, tracks, report)
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            _write(cast(IO[bytes], packed), tracks, report)

    write_atomic(path, fill)


def _write(file: IO[bytes], tracks: Iterable[Event], report: Report) -> None:
    """Write the whole JSON object, one event a line."""
    about = {
        "model": clean(report.model),
        "machine": clean(report.machine),
        "dtype": clean(report.dtype),
        "dims": {clean(name): size for name, size in report.dims.items()},
        "clock_hz": report.clock_hz,
    }
    head = f'{{"displayTimeUnit":"ns","otherData":{_json(about)},"traceEvents":[\n'
    file.write(head.encode())
    threads = _Threads()
    for event in tracks:
        clock_hz = (event.on or report).clock_hz
        file.write((_json(_slice(event, threads.place(event), clock_hz)) + ",\n").encode())
    file.write((",\n".join(map(_json, threads.metadata(clean(report.machine)))) + "\n]}\n").encode())


class _Threads:
    """The thread numbers of tracks: one for each lane, in the order in which they are first needed."""

    def __init__(self) -> None:
        self._lanes: dict[str, list[float]] = {}  # track: the end of the last event of each lane
        self._ids: dict[tuple[str, int], int] = {(LAUNCHES, 0): 1}

    def place(self, event: Event) -> int:
        """Return the thread for an event: the first lane of its track that is free when it starts."""
        ends = self._lanes.setdefault(event.track, [])
        lane = next((i for i, end in enumerate(ends) if end <= event.start_cycle), len(ends))
        if lane == len(ends) < LANES:
            ends.append(event.end_cycle)
        lane = min(lane, LANES - 1)
        ends[lane] = max(ends[lane], event.end_cycle)
        return self._ids.setdefault((event.track, lane), len(self._ids) + 1)

    def metadata(self, machine: str) -> Iterator[dict[str, object]]:
        """Yield the events that name the process and its threads and give their order."""
        yield _named("process_name", 0, {"name": machine})
        used = (key for key in self._ids if key[0] in self._lanes)
        for index, (track, lane) in enumerate(sorted(used, key=_order)):
            tid = self._ids[track, lane]
            yield _named("thread_name", tid, {"name": clean(track) + (f" ({lane + 1})" if lane else "")})
            yield _named("thread_sort_index", tid, {"sort_index": index})


def _order(key: tuple[str, int]) -> tuple[object, ...]:
    """Return what sorts tracks: launches, then by name with numbers by value, then lanes."""
    track, lane = key
    words = re.split(r"([0-9]+)", track)  # every second word is digits
    natural = [("", int(word)) if i % 2 else (word, 0) for i, word in enumerate(words)]
    return track != LAUNCHES, natural, lane


def _named(name: str, tid: int, args: dict[str, object]) -> dict[str, object]:
    return {"ph": "M", "pid": _PID, "tid": tid, "name": name, "args": args}


def _slice(event: Event, tid: int, clock_hz: float) -> dict[str, object]:
    """Return the complete event ("X"); exact cycles stand in its arguments."""
    if not -math.inf < event.start_cycle <= event.end_cycle < math.inf:
        span = f"{event.start_cycle} to {event.end_cycle}"
        raise ValueError(f"{event.track!r}: {event.name!r} cannot run from {span}")
    start, end = (round(cycle * 1e9 / clock_hz) for cycle in (event.start_cycle, event.end_cycle))
    args = {clean(str(key)): _plain(value) for key, value in event.args.items()}
    args |= {"start_cycle": _plain(event.start_cycle), "end_cycle": _plain(event.end_cycle)}
    what = {"ph": "X", "pid": _PID, "tid": tid, "name": clean(event.name) or "?"}
    return what | {"ts": _micros(start), "dur": _micros(end - start), "args": args}


def _micros(nanos: int) -> float:
    """Return microseconds of which the whole part of a thousandfold is `nanos`.

    Readers multiply by 1000 and drop the fraction; a time that comes out one nanosecond short would make
    neighbours overlap, and Perfetto drops those.
    """
    micros = nanos / 1000
    return micros if int(micros * 1000.0) == nanos else math.nextafter(micros, math.inf)


def _plain(value: object) -> object:
    """Return `value` as JSON can hold it: NumPy scalars as numbers, what is not finite as text."""
    item = getattr(value, "item", None)
    value = item() if callable(item) and getattr(value, "ndim", 0) == 0 else value
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return clean(str(value))


_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
