"""Files are written whole or not at all, and errors say what would be right."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import IO

import pytest

from mtia_emu.errors import UserError
from mtia_emu.files.writing import write_atomic, write_json

ROOT = not hasattr(os, "geteuid") or os.geteuid() == 0


def test_bytes_and_functions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one")
    write_atomic(str(tmp_path / "b"), lambda file: file.writelines([b"two", b"three"]))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").read_bytes() == b"twothree"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic("here", b"x")
    assert (tmp_path / "here").read_bytes() == b"x"


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old = os.umask(0o027)
    try:
        write_atomic(path, b"one")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_atomic(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/report.json", "the folder '.*missing' does not exist; create it"),
        ("folder", "it is a folder; name a file in it, as in '.*folder/report.json'"),
        ("new/", "it is a folder"),
        ("file/report.json", "'.*file' is not a folder"),
        ("n" * 300, "the name is too long"),
        ("nul\0", "a path has no null character"),
    ],
)
def test_paths_that_cannot_be(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=words) as caught:
        write_atomic(f"{tmp_path}/{name}", b"x")
    assert str(caught.value).startswith("cannot write '")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert not os.listdir(tmp_path / "folder")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder here that takes no files")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(UserError, match="no file can be made in '/proc/self'"):
        write_atomic("/proc/self/report.json", b"x")


def test_an_empty_name() -> None:
    with pytest.raises(UserError, match=r"the file name is empty; give a path such as 'report\.json'"):
        write_atomic("", b"x")


@pytest.mark.skipif(ROOT, reason="permissions do not bind this user")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write in"):
        write_atomic(tmp_path / "a", b"x")


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only disk")])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failing_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(f"mtia_emu.files.writing.os.{call}", fail)
    with pytest.raises(UserError, match=words):
        write_atomic(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), KeyboardInterrupt(), ValueError("bad")])
def test_other_errors_pass_through_and_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    def fill(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomic(tmp_path / "a", fill)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("amount", [1, 10_000_000])
def test_a_full_device(amount: int) -> None:
    with pytest.raises(UserError, match="cannot write '/dev/full': the disk is full, nothing was kept"):
        write_atomic("/dev/full", b"x" * amount)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)  # not replaced by a file


def test_a_device_is_written_and_stays() -> None:
    write_atomic(os.devnull, b"x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": math.nan, "y": [1.5, math.inf, (1, True, None)], "name": "\udc80é"})
    value = json.loads((tmp_path / "a").read_bytes())
    assert value == {"x": None, "y": [1.5, None, [1, True, None]], "name": "\udc80é"}


def test_drafts_of_killed_processes_go_and_others_stay(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    names = (".mtia-emu-1.tmp", ".mtia-emu-2.tmp", ".mtia-emu-3.tmp", "mine.tmp", ".mtia-emu-results")
    left, busy, young, *others = (tmp_path / name for name in names)
    for file in (left, busy, young, *others):
        file.write_bytes(b"half")
        os.utime(file, (1e9, 1e9))
    os.utime(young)
    with open(busy, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_atomic(tmp_path / "report", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([busy, young, *others, tmp_path / "report"])
