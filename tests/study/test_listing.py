"""Every parameter that is listed has a unit or a meaning, and shipped ones have a source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtia_emu.cli.app import main
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


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("words", [["chips", "mtia-2i"], ["gpus", "h100-sxm"]], ids=" ".join)
def test_the_command_prints_every_parameter_whole_however_narrow(words: list[str], width: int) -> None:
    rows = {"chips": chip_parameters, "gpus": gpu_parameters}[words[0]](words[1])
    shown = CliRunner(env={"COLUMNS": str(width)}).invoke(main, words).stdout
    letters = _columns(shown)
    assert "…" not in shown
    for p in rows:
        for text in (p.key, str(p.value), p.unit, p.text, p.source):
            assert "".join(text.split()) in letters, text


def _columns(page: str) -> str:
    """Return the letters of a table column by column, top to bottom, without spaces."""
    lines = page.splitlines()
    rule = next(line for line in lines if "──" in line)
    head = lines[lines.index(rule) - 1]
    starts = [m.start() for m in re.finditer(r"\S+", head)]
    columns = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return "\n".join("".join("".join(line[c].split()) for line in lines) for c in columns)
