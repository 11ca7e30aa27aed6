"""A run as a trace file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mtia_emu.serving.engine_trace import write_run
from mtia_emu.serving.handover import Handover
from mtia_emu.serving.simulate import Service, simulate

from .flat import SYNCHRONOUS, FlatTable, load


def test_every_step_and_every_request_is_in_it(tmp_path: Path) -> None:
    service = Service(FlatTable(), SYNCHRONOUS, blocks=100, handover=Handover(1, 1e9))  # type: ignore[arg-type]
    log = simulate(service, load((0.0, 4, 3), (0.5, 4, 1)))
    write_run(tmp_path / "t.json", log)
    write_run(tmp_path / "t.json.gz", log)
    plain = (tmp_path / "t.json").read_bytes()
    assert gzip.decompress((tmp_path / "t.json.gz").read_bytes()) == plain
    events = json.loads(plain)["traceEvents"]
    steps = [e for e in events if e["ph"] == "X"]
    assert len(steps) == sum(len(e) for e in log.engines)
    assert {e["name"] for e in steps} == {"prompts", "decode"}
    assert max(e["ts"] + e["dur"] for e in steps) == pytest.approx(log.end_s * 1e6)
    opened = [e for e in events if e["ph"] == "b" and e["name"].startswith("request")]
    assert [e["ts"] for e in opened] == [0.0, 0.5e6]
    assert sum(e["ph"] == "b" for e in events) == sum(e["ph"] == "e" for e in events) == 8
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"engine 0 (prompts)", "engine 1"}
