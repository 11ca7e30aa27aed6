"""Every parameter that is listed has a unit or a meaning, and shipped ones have a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.gpu import gpu_names
from mtia_emu.machine.chip import chip_names, chip_text, known_keys
from mtia_emu.study.listing import chip_parameters, gpu_parameters


@pytest.mark.parametrize("name", chip_names())
def test_every_chip_parameter_is_listed_with_its_meaning_and_source(name: str) -> None:
    rows = chip_parameters(name)
    keys = [p.key for p in rows]
    assert len(keys) == len(set(keys))
    assert {
        k for k in keys if not k.startswith(("pe.matrix.rates.", "energy.mac_pj.", "energy.zero_mac_pj."))
    } <= set(known_keys())
    assert all(p.text for p in rows)
    assert all(p.source for p in rows if p.key != "name"), [p.key for p in rows if not p.source]


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_parameter_is_listed_with_its_meaning_and_source(name: str) -> None:
    rows = gpu_parameters(name)
    assert all(p.text for p in rows)
    assert all(p.source for p in rows if p.key not in ("name", "text")), [p.key for p in rows if not p.source]


def test_other_spellings_of_the_same_file(tmp_path: Path) -> None:
    text = chip_text("tiny")[0]
    inline = []
    for line in text.splitlines():
        inline.append("[ grid ]" if line.strip() == "[grid]" else line)
    (tmp_path / "c.toml").write_text("\r\n".join(inline))
    assert [p.value for p in chip_parameters(str(tmp_path / "c.toml"))] == [
        p.value for p in chip_parameters("tiny")
    ]
