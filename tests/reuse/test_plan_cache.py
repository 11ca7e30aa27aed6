"""Choices on disk: found by what they depend on, by several processes, and never trusted."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mtia_emu import settings
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.reuse.memo import Memo, noted
from mtia_emu.reuse.plan_cache import FILE, Chosen, PlanCache, default_cache, remembered, rules_digest

CHIP = load_chip("tiny")
FIVE, SEVEN = (5, "rows=m"), (7, "rows=m")


class Work:
    """A choice that reads one parameter of the chip, and counts how often it is made."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, chip: Chip) -> Chosen:
        self.done += 1
        return chip.dram.channels + 3, "rows=m"


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / FILE)


def test_a_choice_is_made_once_for_all_chips_that_agree_in_what_it_read(cache: PlanCache) -> None:
    work, memoise = Work(), remembered(cache)
    others = [CHIP, load_chip("tiny", {"sram.bytes": 65536}), load_chip("tiny", {"dram.channels": 4})]
    assert [memoise("choice", "k", chip, work) for chip in others] == [FIVE, FIVE, SEVEN] and work.done == 2
    assert [memoise("choice", "k", chip, work) for chip in others] == [FIVE, FIVE, SEVEN] and work.done == 2
    memoise("choice", "another", CHIP, work)
    assert work.done == 3


def test_only_choices_are_kept(cache: PlanCache) -> None:
    work, memoise = Work(), remembered(cache)
    assert memoise("plan", "k", CHIP, work) == memoise("plan", "k", CHIP, work) == FIVE and work.done == 2
    assert not cache.file.exists()


def test_a_choice_from_disk_notes_what_it_depends_on(cache: PlanCache) -> None:
    remembered(cache)("choice", "k", CHIP, Work())
    notes: set[str] = set()
    assert remembered(cache)("choice", "k", noted(CHIP, notes), Work()) == FIVE
    assert notes == {"dram.channels"}
    shared, work = Memo(), Work()
    memoise = remembered(cache, shared)
    wide = load_chip("tiny", {"dram.channels": 4})
    assert [memoise("choice", "k", c, work) for c in (CHIP, wide, CHIP)] == [FIVE, SEVEN, FIVE]
    assert work.done == 1 and shared.reused["choice"] == 1


def test_other_rules_make_choices_anew(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    remembered(cache)("choice", "k", CHIP, work)
    monkeypatch.setattr("mtia_emu.reuse.plan_cache.rules_digest", lambda: "others")
    remembered(cache)("choice", "k", CHIP, work)
    assert work.done == 2 and len(rules_digest()) == 32


BROKEN = [
    b"",
    b"not a database, and long enough to be read as the first page of one" * 99,
    pickle.dumps({"k": 5}),
]


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "text", "pickle"])
def test_a_broken_file_is_begun_anew(cache: PlanCache, content: bytes) -> None:
    cache.file.write_bytes(content)
    work = Work()
    assert [remembered(cache)("choice", "k", CHIP, work) for _ in range(3)] == [FIVE, FIVE, FIVE]
    assert work.done <= 2 and cache.file.read_bytes().startswith(b"SQLite format 3\0")


def test_a_torn_file_is_begun_anew(cache: PlanCache) -> None:
    for n in range(200):
        remembered(cache)("choice", f"k{n}", CHIP, Work())
    whole = cache.file.read_bytes()
    cache.file.write_bytes(whole[: len(whole) // 2] + b"\xff" * (len(whole) // 4))
    for n in range(200):
        assert remembered(cache)("choice", f"k{n}", CHIP, Work()) == FIVE


HOSTILE = [
    "UPDATE choices SET place = -1",
    "UPDATE choices SET place = place + 1",
    "UPDATE choices SET proof = x'00'",
    "UPDATE choices SET text = 'rows=n'",
    "UPDATE choices SET text = x'ff00'",
    "UPDATE choices SET text = NULL",
    "UPDATE choices SET place = 'x'",
    "UPDATE choices SET place = 1e300",
    "UPDATE reads SET paths = '[\"__class__.__init__\"]'",
    "UPDATE reads SET paths = '[[[[]]]]'",
    "UPDATE reads SET paths = x'ff00ff'",
    "UPDATE reads SET paths = 5",
    "CREATE TABLE more (x)",
    "CREATE TRIGGER t AFTER INSERT ON reads BEGIN DELETE FROM choices; END",
    "ALTER TABLE choices RENAME TO old; CREATE VIEW choices AS SELECT key, 1 AS place, text, proof FROM old",
]


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_a_hostile_file_says_is_not_believed(cache: PlanCache, attack: str) -> None:
    remembered(cache)("choice", "k", CHIP, Work())
    with sqlite3.connect(cache.file) as file:
        file.executescript(attack)
    file.close()
    assert [remembered(cache)("choice", "k", CHIP, Work()) for _ in range(2)] == [FIVE, FIVE]


def test_a_folder_in_its_place_is_no_error(cache: PlanCache) -> None:
    cache.file.mkdir()
    assert remembered(cache)("choice", "k", CHIP, Work()) == FIVE


def test_a_file_that_another_process_keeps_is_not_waited_for(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtia_emu.reuse.plan_cache.WAIT_SECONDS", 0.01)
    remembered(cache)("choice", "k", CHIP, Work())
    other = sqlite3.connect(cache.file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert remembered(cache)("choice", "j", CHIP, Work()) == FIVE
    other.close()
    assert cache.file.exists()


def test_the_file_does_not_grow_without_end(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtia_emu.reuse.plan_cache.MOST_CHOICES", 5)
    for n in range(23):
        remembered(cache)("choice", n, CHIP, Work())
    with sqlite3.connect(cache.file) as file:
        assert file.execute("SELECT count(*) FROM choices").fetchone()[0] <= 5
    file.close()


def test_several_processes_write_at_once(cache: PlanCache) -> None:
    script = (
        "import sys; from pathlib import Path; from mtia_emu.machine.chip import load_chip\n"
        "from mtia_emu.reuse.plan_cache import PlanCache, remembered\n"
        "share, chip = remembered(PlanCache(Path(sys.argv[1]))), load_chip('tiny')\n"
        "print([share('choice', n, chip, lambda c: (c.dram.channels + n, '')) for n in range(40)])"
    )
    words = [sys.executable, "-c", script, str(cache.file)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {p.communicate()[0] for p in running} == {f"{[(n + 2, '') for n in range(40)]}\n"}
    work = Work()
    assert remembered(cache)("choice", 7, CHIP, work) == (9, "") and work.done == 0


def test_the_cache_is_in_the_users_folder_unless_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path / "mine"))
    found = default_cache()
    assert found is not None and found.file == tmp_path / "mine" / FILE
    monkeypatch.setenv(settings.TUNE_CACHE.name, "0")
    assert default_cache() is None
    monkeypatch.setenv(settings.TUNE_CACHE.name, "1")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path / "file"))
    assert default_cache() is None
