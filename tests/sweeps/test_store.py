"""The store: what is put comes back; what is not a store, is damaged or is another's is refused unharmed."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

from mtia_emu.errors import UserError
from mtia_emu.files import disk_cache
from mtia_emu.sweeps.evaluate import Job, make_job
from mtia_emu.sweeps.row import Row
from mtia_emu.sweeps.store import VERSION, Store, create, read, resume
from mtia_emu.sweeps.study import Study

FACTS: dict[str, Any] = {"base": {}, "gpu": {}}
GROUP = ["matmul", "matmul", "dram", 2, 0.5, 10, 20, 30, 1.5]


@pytest.fixture
def job(make: Any) -> Job:
    return make_job(make())


def row(index: int) -> Row:
    return Row(
        index, {"dram.channels": 1}, "ok", "", {"seconds": 0.1 + index, "dollars": None}, {"product": [GROUP]}
    )


def test_rows_come_back_in_order_and_once(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    with create(path, job, FACTS) as store:
        for index in (2, 0, 1, 2):
            store.put(row(index))
    with read(path) as store:
        assert list(store.rows(layers=True)) == [row(i) for i in range(3)]
        assert store.done() == {0, 1, 2} and store.count() == 3
        assert store.spec == job.spec and store.get("seed") == 0 and store.get("nothing") is None


def test_what_is_there_is_not_written_over(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    create(path, job, FACTS).close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists: --resume continues it"):
        create(path, job, FACTS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"seed": 7}, "the spec has changed: 'seed' was 0, is 7"),
        ({"chip": "systolic"}, "the spec has changed: 'chip' was tiny, is systolic"),
        ({"set": {"dram.channels": [1]}}, "the spec has changed: 'set' was"),
    ],
)
def test_another_spec_is_noticed_and_named(
    tmp_path: Path, job: Job, make: Any, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "s.db"
    create(path, job, FACTS).close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        resume(path, make_job(make(**changes)), lambda: FACTS)
    assert path.read_bytes() == before


def test_another_version_chip_or_model_is_noticed_and_named(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    create(path, job, FACTS).close()
    other = {
        "rows of two versions": Job(job.spec, job.chip, "0" * 16, job.models),
        "the base chip's file has changed": Job(job.spec, job.chip | {"clock_hz": 1.0}, job.code, job.models),
        "a model's file has changed": Job(job.spec, job.chip, job.code, ("0" * 16,)),
    }
    for words, changed in other.items():
        with pytest.raises(UserError, match=words):
            resume(path, changed, lambda: FACTS)
    resume(path, job, lambda: FACTS).close()


def test_a_store_killed_while_it_was_made_is_begun_anew(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    path.touch()
    with resume(path, job, lambda: {"gpu": {"name": "new"}}) as store:
        assert store.get("gpu") == {"name": "new"} and store.count() == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_done_without(
    tmp_path: Path, job: Job, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(disk_cache, "_said", set())
    path = tmp_path / "s.db"
    create(path, job, FACTS).close()
    with resume(path, job, lambda: FACTS) as store:
        store.put(row(0))
    with read(path) as store:
        assert store.count() == 1
    said = capsys.readouterr().err
    assert said.count("its file system has no locks") == 1 and os.strerror(number) in said


def test_a_store_that_cannot_be_begun_leaves_nothing(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "commit", full)
    with pytest.raises(UserError, match="disk is full"):
        create(tmp_path / "s.db", job, FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_keeps_what_was_written(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    with pytest.raises(UserError, match="database or disk is full"), create(path, job, FACTS) as store:
        store.put(row(0))
        store.commit()
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 1}")  # a disk of so many pages
        for index in range(1, 2000):
            store.put(row(index))
    with resume(path, job, lambda: FACTS) as store:
        assert 0 in store.done()
        store.put(row(5000))


def test_one_writer_at_a_time(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    with create(path, job, FACTS) as store:
        store.put(row(0))
        store.commit()
        with pytest.raises(UserError, match="is being written by another sweep"):
            resume(path, job, lambda: FACTS)
        with read(path) as other:  # reading is free
            assert other.count() == 1
        store.put(row(1))
    assert read(path).count() == 2


def changed(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def _layers(text: str) -> str:
    """Return the statement that puts a text into a row in place of its layers."""
    return f"UPDATE rows SET layers = x'{zlib.compress(text.encode()).hex()}'"


@pytest.mark.parametrize(
    "statement, words",
    [
        (f"PRAGMA user_version = {VERSION + 1}", "is of form 2, this version reads up to 1"),
        ("PRAGMA application_id = 7", "not the store of a sweep"),
        ("UPDATE meta SET value = '{' WHERE key = 'spec'", "a value is not JSON"),
        ("DELETE FROM meta WHERE key = 'spec'", "it has no spec"),
        ("UPDATE meta SET value = '{\"chip\": 3}' WHERE key = 'spec'", "'chip' is '3'"),
        ("UPDATE rows SET params = '[]'", "row 0 is not one of a sweep"),
        ("UPDATE rows SET status = 'fine'", "row 0 is not one of a sweep"),
        ("UPDATE rows SET metrics = '{\"seconds\": [1]}'", "'seconds' is neither a number nor a text"),
        ("UPDATE rows SET metrics = '{\"seconds\": Infinity}'", "a value is not JSON"),
        ("UPDATE rows SET metrics = '{\"seconds\": 1e999}'", "a value is not JSON"),
        (f"UPDATE rows SET metrics = '{{\"seconds\": {'9' * 400}}}'", "a value is not JSON"),
        (
            'UPDATE meta SET value = \'{"params": {}, "metrics": {"seconds": []}, "layers": {}}\' '
            "WHERE key = 'base'",
            "the base chip's row: 'seconds' is neither",
        ),
        ("UPDATE rows SET layers = x'00'", "the layers of a row cannot be read"),
        (_layers('{"decode": [["a", "b", "c", NaN, 0, 0, 0, 0, 0]]}'), "the layers of a row cannot be read"),
        (
            _layers(f'{{"decode": [["a", "b", "c", {"9" * 400}, 0, 0, 0, 0, 0]]}}'),
            "the layers of a row cannot be read",
        ),
        (_layers('{"decode": [' + " " * (1 << 20) + "]}"), "the layers of a row cannot be read"),
        ("DROP TABLE rows", "a table is missing"),
        ("CREATE TABLE more (x)", "it has table 'more' of its own"),
        ("CREATE VIEW v AS SELECT 1", "it has view 'v' of its own"),
        (
            "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
            "it has trigger 't' of its own",
        ),
        ("ALTER TABLE rows ADD COLUMN more TEXT", "it has table 'rows' of its own"),
    ],
)
def test_a_store_that_was_tampered_with_is_refused(
    tmp_path: Path, job: Job, statement: str, words: str
) -> None:
    path = tmp_path / "s.db"
    with create(path, job, FACTS) as store:
        store.put(row(0))
    changed(path, statement)
    before = path.read_bytes()
    with pytest.raises(UserError, match=words), read(path) as store:
        Study.of(store, layers=True)
    assert path.read_bytes() == before


ENDLESS = (
    "CREATE VIEW rows AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS point, "
    "'{}' AS params, 'ok' AS status, '' AS reason, '{}' AS metrics, x'' AS layers FROM n"
)


def test_rows_that_are_an_endless_view_are_refused(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    create(path, job, FACTS).close()
    changed(path, "DROP TABLE rows")
    changed(path, ENDLESS)
    for open_it in (read, lambda p: resume(p, job, lambda: FACTS)):
        with pytest.raises(UserError, match="it has view 'rows' of its own"):
            open_it(path)


def test_what_is_no_store_is_refused(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    for content, words in (
        (b"hello", "not an SQLite file"),
        (b"SQLite format 3\0" + b"x" * 4096, "cannot be read"),
    ):
        path.write_bytes(content)
        for open_it in (read, lambda p: resume(p, job, lambda: FACTS)):
            with pytest.raises(UserError, match=words):
                open_it(path)
            assert path.read_bytes() == content
    with pytest.raises(UserError, match="is not a file"):
        read(tmp_path)
    changed(tmp_path / "other.db", "CREATE TABLE rows (x)")
    with pytest.raises(UserError, match="not the store of a sweep"):
        resume(tmp_path / "other.db", job, lambda: FACTS)


def test_a_damaged_page_is_noticed(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "s.db"
    with create(path, job, FACTS) as store:
        for index in range(300):
            store.put(row(index))
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|cannot be read"), read(path) as store:
        list(store.rows())
