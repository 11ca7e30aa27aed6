"""Answers that are kept: the same bytes again, and anew whenever anything that they depend on is other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.cli import answers
from mtia_emu.cli import options as o
from mtia_emu.cli.app import main

WORDS = ["gemm", "64", "64", "64", "--gpu", "none"]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep answers, in a folder of this test's own."""
    monkeypatch.setenv("MTIA_EMU_ANSWERS", "1")
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / answers.FOLDER


@pytest.mark.usefixtures("own_cache")
def test_notes_are_kept_beside_what_is_printed() -> None:
    answer = answers.Answer(True)
    answer.note("a note\n", err=True)
    answer.note("a line\n", err=False)
    answers.keep("0" * 64, answer)
    assert answers.find("0" * 64) == answer


@pytest.mark.parametrize(
    "words",
    [
        ["run", "zoo:dlrm-small", "--check"],
        ["run", "zoo:dlrm-small", "--json", "report.json"],
        ["run", "zoo:dlrm-small", "--json=report.json"],
        ["run", "zoo:dlrm-small", "--trace=t.json"],
        ["run", "zoo:dlrm-small", "--passes", "mine"],
        ["explain", "zoo:dlrm-small", "--passes=own.py"],
        ["chips", "new", "mine"],
        ["run", "zoo:dlrm-small", "--system", "tiny-board", "--annotations", "split.onnx"],
        ["train", "zoo:dlrm-small", "--loss", "bce", "--steps", "2"],
        ["train", "zoo:dlrm-small", "--loss", "bce", "--steps=2"],
        ["serve", "zoo:llama-tiny", "-opage.html"],
        ["serve", "zoo:llama-tiny", "--scheduler", "localhost:1"],
        ["steps", "zoo:llama-tiny", "-o", "table.json"],
        ["sweep", "spec.toml"],
        ["run", "."],
        [],
    ],
)
def test_what_executes_writes_or_runs_code_is_done_anew(words: list[str], own_cache: Path) -> None:
    assert answers.question(words) is None


@pytest.mark.parametrize("name", sorted(answers.DONE_ANEW))
def test_each_option_that_writes_has_its_command_done_anew(name: str) -> None:
    command = main.commands[name]
    writes = {
        option
        for param in command.params
        if getattr(param.callback, "__module__", "") == o.__name__ and param.name != "json_file"
        for option in param.opts
    }
    assert writes <= answers.DONE_ANEW[name]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "words",
    [
        ["train", "zoo:dlrm-small", "--loss", "bce", "--output", "p", "--json", "-"],
        ["collective", "all_reduce", "--system", "tiny-board"],
        ["systems", "tiny-board"],
        ["shard", "zoo:dlrm-small", "--system", "tiny-board"],
        ["fleet", "zoo:dlrm-small", "--inputs"],
        ["serve", "zoo:llama-tiny", "--trace", "none"],
    ],
)
def test_what_only_times_prices_or_lists_is_kept(words: list[str]) -> None:
    assert answers.question(words) is not None


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("form", ["{}", "{}*3", "grid='{}'", "trace=none,{}", "trace={},none"])
def test_files_are_found_wherever_a_word_names_them(form: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / "file.txt"
    file.parent.mkdir()
    file.write_text("1")
    words = ["serve", "zoo:llama-tiny", "--over", form.format(file)]
    before = answers.question(words)
    file.write_text("2")
    assert before is not None and answers.question(words) != before


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("line", ['grid = "hours"', "grid = 'hours'", 'at = "{}/hours"', 'model = "hf:{}"'])
def test_a_file_that_names_others_keeps_no_answer(line: str, tmp_path: Path) -> None:
    (tmp_path / "hours").write_text("1")
    scenario = tmp_path / "own.toml"
    scenario.write_text("one = 1\n")
    assert answers.question(["fleet", str(scenario)]) is not None
    scenario.write_text(line.format(tmp_path) + "\n")
    assert answers.question(["fleet", str(scenario)]) is None


@pytest.mark.usefixtures("own_cache")
def test_the_digest_is_of_all_that_an_answer_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = tmp_path / "chip" / "my.toml"
    chip.parent.mkdir()
    chip.write_text("clock_hz = 1e9\n")
    words = ["gemm", "8", "8", "8", "--chip", str(chip)]
    seen = [answers.question(words)]
    assert seen[0] is not None and seen[0] == answers.question(words)
    seen.append(answers.question([*words[:3], "9", *words[4:]]))
    seen += [answers.question([*words[:4], sign + str(chip)]) for sign in ("--chip=", "--set=dram.device=")]
    chip.write_text("clock_hz = 2e9\n")
    seen.append(answers.question(words))
    (chip.parent / "weights.bin").write_bytes(b"beside it")
    seen.append(answers.question(words))
    monkeypatch.setenv("MTIA_EMU_TUNE_CACHE", "0")
    seen.append(answers.question(words))
    monkeypatch.setenv("COLUMNS", "77")
    seen.append(answers.question(words))
    monkeypatch.setattr(answers, "_product", lambda: iter([b"other code"]))
    seen.append(answers.question(words))
    assert None not in seen and len(set(seen)) == len(seen)
    chip.write_text('[dram]\ndevice = "own.toml"\n')
    assert answers.question(words) is None  # it names another file


@pytest.mark.usefixtures("own_cache")
def test_another_package_below_asks_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "below_us.py"
    package.write_text("version = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(answers, "BELOW", ("below_us",))
    before = answers.question(WORDS)
    package.write_text("version = 10\n")
    assert None not in (before, answers.question(WORDS)) and before != answers.question(WORDS)


def test_nothing_is_kept_where_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_ANSWERS", "0")
    assert answers.question(WORDS) is None


def test_a_damaged_answer_is_made_anew(own_cache: Path) -> None:
    key = "f" * 64
    answers.keep(key, answers.Answer(True, ["x"]))
    file = own_cache / f"{key}.json"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert answers.find(key) is None and not file.exists()
