"""The choice of a memory: what comes with it, and what of a chip's own stays."""

from __future__ import annotations

from typing import Any

import pytest

from mtia_emu.errors import UserError
from mtia_emu.files import toml
from mtia_emu.machine.chip import Chip, chip_text, load_chip, validate
from mtia_emu.machine.memory_choice import BROUGHT, bring, own


def brought_to(chip: Chip) -> dict[str, Any]:
    """Return a chip's value of each key that a memory brings."""
    return {key: getattr(getattr(chip, key.split(".")[0]), key.split(".")[1]) for key in BROUGHT}


@pytest.mark.parametrize("device", ["lpddr5x", "ddr5", "gddr6", "hbm2e", "hbm3", "hbm3e"])
def test_another_memory_changes_all_in_one_go(device: str) -> None:
    chip = load_chip("mtia-2i", {"dram.device": device})
    assert brought_to(chip) == bring(device, 128e9)
    assert chip.dram.bytes == 128e9
    assert own(device, 128e9, brought_to(chip)) == []


def test_hbm3_by_hand() -> None:
    """128 GB are eight stacks of 16 GB with 32 channels of 25.6 GB/s; 86 mW a GB at rest."""
    chip = load_chip("mtia-2i", {"dram.device": "hbm3"})
    assert chip.dram.channels == 8 * 32 and chip.dram.bytes_per_s == pytest.approx(8 * 819.2e9)
    assert chip.energy.dram_idle_w == pytest.approx(128 * 0.086)
    assert chip.energy.dram_read_pj_per_byte == 56.2 and chip.dram.burst_bytes == 32
    assert chip.dram.ecc_data_bytes == 0


def test_settings_beside_the_choice_stay_whatever_their_order() -> None:
    one = load_chip("mtia-2i", {"dram.channels": 64, "dram.device": "hbm3"})
    other = load_chip("mtia-2i", {"dram.device": "hbm3", "dram.channels": 64})
    assert one == other and one.dram.channels == 64
    assert [x.key for x in own("hbm3", 128e9, brought_to(one))] == ["dram.channels"]
    assert load_chip("mtia-2i", {"dram.device": "hbm3", "dram.bytes": 16e9}).dram.channels == 32


@pytest.mark.parametrize("same", ["lpddr5", "lpddr5-6400"])
def test_the_memory_that_a_chip_has_already_changes_nothing(same: str) -> None:
    chip = load_chip("mtia-2i")
    found = load_chip("mtia-2i", {"dram.device": same})
    assert brought_to(found) == brought_to(chip)


def test_an_ideal_memory_keeps_the_numbers_of_the_file() -> None:
    chip = load_chip("mtia-2i")
    assert brought_to(load_chip("mtia-2i", {"dram.device": "ideal"})) == brought_to(chip)
    assert brought_to(load_chip("tiny", {"dram.device": "hbm3"})) == bring("hbm3", 1e9)


def test_a_file_may_leave_out_what_the_memory_brings() -> None:
    values = toml.parse(*chip_text("mtia-300"))
    for key in BROUGHT:
        table, name = key.split(".")
        del values[table][name]
    assert brought_to(validate(values, "test")) == bring("hbm3e", 216e9)
    del values["dram"]["bytes"]
    with pytest.raises(UserError, match=r"key 'dram\.bytes' is missing"):
        validate(values, "test")


@pytest.mark.parametrize("wrong", ["hbm33", "", "../hbm3", "hbm3-", "-6400"])
def test_an_unknown_memory_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="unknown dram"):
        load_chip("mtia-2i", {"dram.device": wrong})


@pytest.mark.parametrize("wrong", [4, None, True, ["hbm3"]])
def test_what_is_no_name_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match=r"dram\.device"):
        load_chip("mtia-2i", {"dram.device": wrong})


@pytest.mark.parametrize("bytes_", [float("inf"), float("nan"), 1e300, -1e300, 10**30, True])
def test_a_capacity_that_cannot_be_is_refused_in_words(bytes_: Any) -> None:
    with pytest.raises(UserError, match=r"dram\.bytes"):
        load_chip("mtia-2i", {"dram.device": "hbm3", "dram.bytes": bytes_})
