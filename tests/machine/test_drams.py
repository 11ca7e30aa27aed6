"""The DRAM channels that ship with the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.machine.drams import dram_names, dram_text, grade, load_dram, load_technology, read_dram
from mtia_emu.machine.drams.technology import Technology
from mtia_emu.machine.units.dram import DramTiming


@pytest.mark.parametrize("name", dram_names())
def test_every_number_has_its_source_beside_it(name: str) -> None:
    lines = [line for line in dram_text(name).splitlines() if "=" in line.partition("#")[0]]
    assert len(lines) == len(DramTiming.model_fields) + len(Technology.model_fields)
    assert all(line.partition("#")[2].strip() for line in lines)
    assert isinstance(load_dram(name), DramTiming)
    assert isinstance(load_technology(name), Technology)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown dram 'lpddr5-640'; did you mean 'lpddr5-6400'"):
        load_dram("lpddr5-640")


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("hbm3", "hbm3-6400"), ("hbm3e", "hbm3e-8000"), ("ddr5", "ddr5-6400"), ("ddr5-4800", "ddr5-4800"),
        ("lpddr5", "lpddr5-6400"), ("lpddr5x", "lpddr5x-8533"), ("gddr6", "gddr6-16000"),
        ("hbm2e", "hbm2e-3600"),
    ],
)  # fmt: skip
def test_a_technology_is_its_fastest_grade(name: str, whole: str) -> None:
    assert grade(name) == whole and load_dram(name) == load_dram(whole)


@pytest.mark.parametrize(
    ("name", "package_gb_per_s"),
    [("hbm2", 307.2), ("hbm2e", 460.8), ("hbm3", 819.2), ("hbm3e", 1024.0), ("gddr6", 64.0), ("ddr5", 51.2),
     ("lpddr5", 25.6), ("lpddr5x", 34.1)],
)  # fmt: skip
def test_a_package_has_the_bandwidth_of_its_data_sheet(name: str, package_gb_per_s: float) -> None:
    package = load_technology(name).package_channels * load_dram(name).bytes_per_s
    assert package / 1e9 == pytest.approx(package_gb_per_s, rel=0.001)


def test_packages_hold_what_is_asked_for() -> None:
    stack = load_technology("hbm3e")  # 36 GB on 32 channels
    assert [stack.channels_for(gb * 1e9) for gb in (1, 36, 36.1, 216)] == [32, 32, 64, 192]
    assert [stack.packages(channels) for channels in (1, 32, 33, 192)] == [1, 1, 2, 6]


def test_a_range_is_ordered_and_a_number_is_all_of_it(tmp_path: Path) -> None:
    text, path = dram_text("hbm3"), tmp_path / "mine.toml"
    old = "usd_per_gb = [10.0, 15.0, 20.0]"
    assert old in text
    path.write_text(text.replace(old, "usd_per_gb = 12"))
    assert read_dram(path) == load_dram("hbm3")
    for wrong, words in (
        ("[3, 2, 1]", "low, middle and high"),
        ("[1, 2]", "usd_per_gb"),
        ("-1", "usd_per_gb"),
    ):
        path.write_text(text.replace(old, f"usd_per_gb = {wrong}"))
        with pytest.raises(UserError, match=words):
            read_dram(path)


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
