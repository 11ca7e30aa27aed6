"""The DRAM channels that ship with the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.machine.drams import dram_names, dram_text, load_dram, read_dram
from mtia_emu.machine.units.dram import DramTiming


@pytest.mark.parametrize("name", dram_names())
def test_every_number_has_its_source_beside_it(name: str) -> None:
    lines = [line for line in dram_text(name).splitlines() if "=" in line.partition("#")[0]]
    assert len(lines) == len(DramTiming.model_fields)
    assert all(line.partition("#")[2].strip() for line in lines)
    assert isinstance(load_dram(name), DramTiming)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown dram 'lpddr5-640'; did you mean 'lpddr5-6400'"):
        load_dram("lpddr5-640")


def test_a_file_is_read_as_a_shipped_channel_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(dram_text("ddr5-4800").replace("queue_requests = 64", "queue_requests = 32"))
    assert read_dram(path) == load_dram("ddr5-4800", queue_requests=32)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"rows = ", "not TOML"),
        (b"\xff\xfe", "cannot be read as text"),
        (b"#" * (1 << 19), "at most 262144 are read"),
        (b"rows = 4", "key 'transfers_per_s' is missing"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, body: bytes, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(body)
    with pytest.raises(UserError, match=words):
        read_dram(path)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"dram nowhere\.toml is not a file; give a name \(ddr4-3200, "):
        read_dram("nowhere.toml")


@pytest.mark.parametrize("name", ["../drams/ddr4-3200", "/etc/passwd", "mine.toml"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UserError, match="unknown dram"):
        load_dram(name)
