"""Answers that are kept: the same bytes again, and anew whenever anything that they depend on is other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.cli import answers

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
        ["sweep", "spec.toml"],
        ["run", "."],
        [],
    ],
)
def test_what_executes_writes_or_runs_code_is_done_anew(words: list[str], own_cache: Path) -> None:
    assert answers.question(words) is None


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
