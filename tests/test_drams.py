"""The DRAM channels that ship with the product."""

from __future__ import annotations

import pytest

from mtia_emu.drams import dram_names, dram_text, load_dram
from mtia_emu.errors import UserError
from mtia_emu.units.dram import DramTiming


@pytest.mark.parametrize("name", dram_names())
def test_every_number_has_its_source_beside_it(name: str) -> None:
    lines = [line for line in dram_text(name).splitlines() if "=" in line.partition("#")[0]]
    assert len(lines) == len(DramTiming.model_fields)
    assert all(line.partition("#")[2].strip() for line in lines)
    assert isinstance(load_dram(name), DramTiming)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown dram 'lpddr5-640'; did you mean 'lpddr5-6400'"):
        load_dram("lpddr5-640")
