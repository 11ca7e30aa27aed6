"""A run as a trace file: every step of every engine, how many wait, and each request, for ui.perfetto.dev."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from typing import IO, Any, cast

from ..files.writing import write_atomic
from .record import Log

US = 1e6
ENGINES, REQUESTS = 1, 2  # processes of the trace


def write_run(path: str | os.PathLike[str], log: Log) -> None:
    """Write a run in Chrome's JSON format, an event a line; compressed where the name ends in .gz."""

    def fill(file: IO[bytes]) -> None:
        if not os.fspath(path).endswith(".gz"):
            return _write(file, log)
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            _write(cast(IO[bytes], packed), log)

    write_atomic(path, fill)


def _write(file: IO[bytes], log: Log) -> None:
    file.write(b'{"displayTimeUnit": "ms", "traceEvents": [\n')
    for number, event in enumerate(_events(log)):
        file.write((b",\n" if number else b"") + json.dumps(event).encode())
    file.write(b"\n]}\n")


def _events(log: Log) -> Iterator[dict[str, Any]]:
    for process, name in ((ENGINES, "engines"), (REQUESTS, "requests")):
        yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    for engine in range(len(log.engines)):
        yield from _steps(log, engine)
    for request in range(len(log)):
        yield from _request(log, request)


def _steps(log: Log, engine: int) -> Iterator[dict[str, Any]]:
    steps, on = log.engines[engine], {"pid": ENGINES, "tid": engine}
    name = f"engine {engine}" + (" (prompts)" if engine < log.prefill_engines else "")
    yield {"ph": "M", **on, "name": "thread_name", "args": {"name": name}}
    for n in range(len(steps)):
        prompt, decoding = int(steps.prompt_tokens[n]), int(steps.decoding[n])
        kind = "mixed" if prompt and decoding else "prompts" if prompt else "decode"
        start, last = steps.start_s[n] * US, (steps.end_s[n] - steps.start_s[n]) * US
        args = {"prompt_tokens": prompt, "decoding": decoding, "blocks": int(steps.used_blocks[n])}
        yield {"ph": "X", **on, "name": kind, "ts": start, "dur": last, "args": args}
        counts = {"waiting": int(steps.waiting[n]), "running": int(steps.running[n])}
        yield {"ph": "C", "pid": ENGINES, "name": f"requests of {name}", "ts": start, "args": counts}


def _request(log: Log, request: int) -> Iterator[dict[str, Any]]:
    on = {"pid": REQUESTS, "tid": 0, "id": request, "cat": "request"}
    tokens = {
        "input_tokens": int(log.load.input_tokens[request]),
        "output_tokens": int(log.load.output_tokens[request]),
    }
    times = (log.arrival_s, log.scheduled_s, log.first_token_s, log.last_token_s)
    arrived, scheduled, first, last = (float(t[request]) * US for t in times)
    whole = f"request {request}"
    yield {"ph": "b", **on, "name": whole, "ts": arrived, "args": tokens}
    for name, start, end in (
        ("waits", arrived, scheduled),
        ("prompt", scheduled, first),
        ("decodes", first, last),
    ):
        yield {"ph": "b", **on, "name": name, "ts": start}
        yield {"ph": "e", **on, "name": name, "ts": end}
    yield {"ph": "e", **on, "name": whole, "ts": last}
