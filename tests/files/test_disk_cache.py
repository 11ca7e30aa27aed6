"""What is kept on disk: private, whole, and never needed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mtia_emu import settings
from mtia_emu.files import disk_cache
from mtia_emu.files.disk_cache import folder, read, say_once, trim, write

posix = pytest.mark.skipif(os.name != "posix", reason="this system has no owners and modes of files")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(disk_cache, "_said", set())
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path / "cache"))
    return tmp_path / "cache"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
def test_folders_and_files_are_the_users_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        place = folder("code", "x")
        assert place == base / "code" / "x" and write(place / "file", b"content")
    finally:
        os.umask(before)
    assert [mode(path) for path in (base, base / "code", place)] == [0o700] * 3
    assert mode(place / "file") == 0o600 and read(place / "file", 7) == b"content"


@posix
def test_a_folder_that_others_could_read_is_closed(base: Path) -> None:
    (base / "code").mkdir(parents=True, mode=0o755)
    assert folder("code") == base / "code" and mode(base / "code") == 0o700
    base.chmod(0o755)  # named by the user, who may share it
    assert folder("code") and mode(base) == 0o755


@posix
@pytest.mark.parametrize("name", ["", "code"])
@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH])
def test_a_folder_that_others_could_write_is_not_used(base: Path, name: str, bit: int, capsys: Any) -> None:
    (base / name).mkdir(parents=True)
    (base / name).chmod(0o700 | bit)
    assert folder("code") is None and folder("code") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "other users may write to it (right: chmod go-w" in said
    assert mode(base / name) == 0o700 | bit


@posix
def test_a_folder_of_another_user_is_not_used(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    base.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: base.stat().st_uid + 1)
    assert folder() is None
    assert "it belongs to another user" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_done_without(base: Path, capsys: Any) -> None:
    base.write_text("a file")
    assert folder("code") is None and folder("dram") is None
    assert capsys.readouterr().err == f"note: the cache folder {str(base)!r} is not used: File exists\n"


@pytest.mark.parametrize(
    ("cache", "xdg", "home", "expected"),
    [
        ("given", "/xdg", "/h", "given"),
        ("", "/xdg", "/h", "/xdg/mtia-emu"),
        ("", "relative", "/h", "/h/.cache/mtia-emu"),
        ("", "", "/h", "/h/.cache/mtia-emu"),
        ("", "", "nowhere", None),
        ("", "", "", None),
        ("", "", "/", None),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, cache: str, xdg: str, home: str, expected: str | None
) -> None:
    for name, value in ((settings.CACHE.name, cache), ("XDG_CACHE_HOME", xdg), ("HOME", home)):
        monkeypatch.setenv(name, value)
    found = settings.cache_folder()
    assert found == (None if expected is None else Path(expected))


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(disk_cache, "_said", set())
    monkeypatch.setattr(settings, "cache_folder", lambda: None)
    assert folder("code") is None and "no home folder" in capsys.readouterr().err


def damaged(content: bytes) -> list[bytes]:
    """Return what a crash, a full disk and a bad one leave of a file."""
    flipped = [bytearray(content) for _ in range(3)]
    for at, copy in zip((0, len(content) // 2, len(content) - 1), flipped, strict=True):
        copy[at] ^= 4
    return [
        b"",
        content[:1],
        content[: len(content) // 2],
        content[:-1],
        content + b"x",
        *map(bytes, flipped),
    ]


def test_a_damaged_file_is_as_one_that_is_not_there(base: Path, capsys: Any) -> None:
    place = folder("code")
    assert place is not None
    file = place / "file"
    write(file, b"content" * 9)
    for bad in damaged(file.read_bytes()):
        file.write_bytes(bad)
        assert read(file, 99) is None and not file.exists()
    assert capsys.readouterr().err.count("\n") == 1
    assert write(file, b"whole") and read(file, 99) == b"whole"


@posix
def test_a_file_that_another_could_have_written_is_not_read(base: Path) -> None:
    place = folder("code")
    assert place is not None
    file, other = place / "file", place / "other"
    write(file, b"content")
    file.chmod(0o620)
    assert read(file, 99) is None
    write(other, b"content")
    file.symlink_to(other)
    assert read(file, 99) is None and read(other, 99) == b"content"
    os.mkfifo(file)
    assert read(file, 99) is None  # and is not waited for


def test_a_larger_file_is_not_read(base: Path) -> None:
    place = folder("code")
    assert place is not None and write(place / "file", bytes(100))
    assert read(place / "file", 99) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_leaves_nothing_half_written(
    base: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    place = folder("code")
    assert place is not None
    monkeypatch.setattr(os, "replace", full)
    assert not write(place / "file", b"content") and not write(place / "file", b"content")
    assert list(place.iterdir()) == []
    assert capsys.readouterr().err == f"note: nothing is kept in {str(place)!r}: {os.strerror(number)}\n"


def test_the_oldest_files_go(base: Path) -> None:
    place = folder("code")
    assert place is not None
    for age in range(5):
        write(place / str(age), b"")
        os.utime(place / str(age), (age, age))
    trim(place, 2)
    assert sorted(file.name for file in place.iterdir()) == ["3", "4"]
    trim(place / "gone", 2)


def test_a_note_is_said_once_of_each_kind(base: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("a", "b", "a"):
        say_once(kind, kind * 3)
    assert capsys.readouterr().err == "note: aaa\nnote: bbb\n"
    monkeypatch.setattr("sys.stderr", None)
    say_once("c", "nobody hears it")
