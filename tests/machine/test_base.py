"""Chips on a base: what a file says is put over it, memory changes whole, and bases end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.machine.base import chip_values
from mtia_emu.machine.chip import chip_names, load_chip


def written(folder: Path, name: str, text: str) -> str:
    """Write a chip file; return its path."""
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("base", chip_names())
def test_a_chip_with_nothing_of_its_own_is_its_base_by_another_name(base: str, tmp_path: Path) -> None:
    chip = load_chip(written(tmp_path, "same.toml", f'base = "{base}"\n'))
    assert chip.name == "same"
    assert chip.model_copy(update={"name": base}) == load_chip(base)


def test_a_base_and_settings_agree(tmp_path: Path) -> None:
    text = (
        'name = "mine"\nbase = "mtia-2i"\nclock_hz = 1e9\n[sram]\nbytes = 1048576\n'
        "[pe.matrix.rates]\nint8 = 2.0\n"
    )
    file = load_chip(written(tmp_path, "m.toml", text))
    given = {"name": "mine", "clock_hz": 1e9, "sram.bytes": 1 << 20, "pe.matrix.rates.int8": 2.0}
    assert file == load_chip("mtia-2i", given)
    assert file.pe.matrix.rates["fp16"] == 0.5  # what the base has besides stays


def test_another_memory_takes_the_place_of_all_that_the_bases_brought(tmp_path: Path) -> None:
    path = written(tmp_path, "m.toml", 'base = "mtia-2i"\n[dram]\ndevice = "hbm3"\nchannels = 8\n')
    chip = load_chip(path)
    assert chip == load_chip("mtia-2i", {"name": "m", "dram.device": "hbm3", "dram.channels": 8})
    assert chip.dram.burst_bytes != load_chip("mtia-2i").dram.burst_bytes


def test_a_base_may_stand_on_one_in_its_folder(tmp_path: Path) -> None:
    written(tmp_path, "a.toml", 'base = "tiny"\n[sram]\nbytes = 65536\n')
    chip = load_chip(written(tmp_path, "b.toml", 'base = "a.toml"\nclock_hz = 5e8\n'))
    assert (chip.name, chip.sram.bytes, chip.clock_hz) == ("b", 65536, 5e8)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ('"../a.toml"', "in the same folder"),
        ('"/etc/passwd.toml"', "in the same folder"),
        ('"nosuch"', "one of mtia-1"),
        ("3", "one of mtia-1"),
        ('"self.toml"', "more than 4 bases"),
        ('"missing.toml"', "is not a file"),
    ],
)
def test_a_base_that_is_none_is_refused(base: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        chip_values(written(tmp_path, "self.toml", f"base = {base}\n"))


def test_all_faults_are_named_at_once_and_where(tmp_path: Path) -> None:
    path = written(tmp_path, "m.toml", 'base = "tiny"\nclock_hz = -1\n[sram]\nbites = 3\n')
    with pytest.raises(UserError, match=r"(?s)m\.toml.*(clock_hz.*bites|bites.*clock_hz)"):
        load_chip(path)
