"""The commands that print systems and collectives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtia_emu.cli.app import main
from mtia_emu.cli.collective import parse_ranks, parse_sizes
from mtia_emu.errors import UserError
from mtia_emu.system.load import system_names


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def test_all_systems_are_printed() -> None:
    shown = cli("systems").stdout
    assert all(f"  {name} " in shown for name in system_names())
    value = json.loads(cli("systems", "--json", "-").stdout)
    assert [each["name"] for each in value] == system_names()


def test_a_system_is_printed_with_its_sources() -> None:
    shown = cli("systems", "mtia-2i-server").stdout
    assert "2 of 12" in shown and "64.0 GB/s, each way" in shown and "as socket0" in shown
    value = json.loads(cli("systems", "dgx-h100*2", "--json", "-").stdout)
    assert len(value["ranks"]) == 16 and value["host"]["servers"] == 2


def test_a_collective_is_printed_by_size(tmp_path: Path) -> None:
    done = cli("collective", "all_reduce", "--system", "hgx-h200", "--bytes", "1KiB:4KiB")
    assert [line.split()[0] for line in done.stdout.splitlines()[3:] if line.strip()] == [
        "1,024",
        "2,048",
        "4,096",
    ]
    file = tmp_path / "c.json"
    assert (
        cli("collective", "send", "--system", "tiny-board", "--bytes", "8MB", "--json", str(file)).exit_code
        == 0
    )
    value = json.loads(file.read_text("utf-8"))
    assert value["ranks"] == [0, 7] and value["rows"][0]["seconds"] == pytest.approx(1e-3, rel=0.01)


def test_algorithms_side_by_side() -> None:
    words = ["collective", "all_reduce", "--system", "hgx-h200", "--bytes", "64KiB", "--algorithm", "each"]
    rows = json.loads(cli(*words, "--json", "-").stdout)["rows"]
    assert {row["algorithm"] for row in rows} == {"ring", "direct", "one_shot", "in_switch"}


def test_sizes_and_ranks() -> None:
    assert parse_sizes("1KiB:8KiB") == [1024, 2048, 4096, 8192]
    assert parse_sizes("1e3,2kB,1:100:10") == [1000, 2000, 1, 10, 100]
    assert parse_ranks("0-2,5", "all_reduce", 8) == (0, 1, 2, 5)
    assert parse_ranks("3", "all_reduce", 8) == (0, 1, 2)
    assert parse_ranks(None, "send", 8) == (0, 7)


@pytest.mark.parametrize(
    "text", ["", "x", "1X", "-1", "1e19", "8KiB:1KiB", "0:8", "1:2:3:4", "1:8:1", "1:8:x", "nan"]
)
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(UserError, match="--bytes"):
        parse_sizes(text)


@pytest.mark.parametrize("text", ["0", "9", "1-9", "3-1", "x", "1,,2", "-1"])
def test_wrong_ranks(text: str) -> None:
    with pytest.raises(UserError, match="--ranks"):
        parse_ranks(text, "all_reduce", 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["systems", "hgx-h20"], "did you mean 'hgx-h200'"),
        (["systems", "dgx-h100*2000"], "16000 chips"),
        (["systems", "hgx-h200", "--set", "x"], "not KEY=VALUE"),
        (["systems", "hgx-h200", "--set", "name='a'", "--set", "name='b'"], "given twice"),
        (["collective", "all_sum", "--system", "tiny-board"], "unknown collective"),
        (["collective", "all_reduce", "--system", "tiny-board", "--algorithm", "rong"], "unknown algorithm"),
        (["collective", "all_reduce", "--system", "tiny-board", "--algorithm", "in_switch"], "right: direct"),
        (["collective", "send", "--system", "tiny-board", "--ranks", "3"], "who sends and who receives"),
    ],
)
def test_wrong_words_end_with_2(words: list[str], message: str) -> None:
    done = cli(*words)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr
