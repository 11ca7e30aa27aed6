"""`chips`: lists, one chip, a new one, two beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtia_emu.cli import chips as command
from mtia_emu.machine.chip import load_chip


def test_a_name_may_stand_where_a_command_does(cli: Any) -> None:
    assert cli("chips", "tiny").output == cli("chips", "list", "tiny").output
    assert "mtia-2i" in cli("chips").output
    assert cli("chips", "nosuch").exit_code == 2


def test_two_chips_differ_in_what_is_set(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "half.toml"
    file.write_text('name = "tiny"\nbase = "tiny"\n[sram]\nbytes = 98304\n')
    shown = cli("chips", "diff", str(file), "tiny").output
    rows = [line.split() for line in shown.splitlines() if line.split()[:1] == ["sram.bytes"]]
    assert len(rows) == 1 and rows[0][-1] == f"{load_chip('tiny').sram.bytes / 98304:.3g}"
    assert "equal in every parameter" in cli("chips", "diff", "tiny", "tiny").output


def test_a_new_chip_is_its_base_but_for_what_is_given(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    given = ("--set", "sram.bytes=65536", "--set", "dram.device=hbm3")
    done = cli("chips", "new", "mine", "--base", "mtia-2i", *given, "-o", str(file))
    assert done.exit_code == 0 and "taken over from the base as estimates" in done.output
    assert load_chip(str(file)) == load_chip(
        "mtia-2i", {"name": "mine", "sram.bytes": 65536, "dram.device": "hbm3"}
    )
    again = cli("chips", "new", "mine", "-o", str(file))
    assert again.exit_code == 2 and "is there already" in again.output


@pytest.mark.parametrize("name", ["mtia-2i", "a/b", "", "x y"])
def test_a_name_that_is_taken_or_none_is_refused(name: str, cli: Any, tmp_path: Path) -> None:
    done = cli("chips", "new", name, "-o", str(tmp_path / "x.toml"))
    assert done.exit_code == 2 and not list(tmp_path.iterdir())


def test_a_wrong_number_writes_nothing(cli: Any, tmp_path: Path) -> None:
    done = cli("chips", "new", "mine", "--set", "grid.rows=0", "-o", str(tmp_path / "x.toml"))
    assert done.exit_code == 2 and "grid.rows" in done.output and not list(tmp_path.iterdir())


def test_on_a_terminal_it_asks_for_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(key: str, default: str) -> str:
        asked.append(key)
        return {"grid.rows": "4", "dram.device": "hbm3"}.get(key, default)

    monkeypatch.setattr(command.click, "prompt", answer)
    out = command._answers(load_chip("mtia-2i"), {"clock_hz": 1e9})
    assert out == {"grid.rows": 4, "dram.device": "hbm3"}
    assert asked == [key for key in command.ASKED if key != "clock_hz"]
