"""Folders for a while: gone with their work, or found and removed after their process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mtia_emu.files.scratch import OWNER, PREFIX, remove_stale, scratch

pytest.importorskip("fcntl", reason="this system has no such locks")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def old(folder: Path) -> Path:
    """Return a folder made to look as if it had been made long ago."""
    os.utime(folder, (1e9, 1e9))
    return folder


def left(place: Path, name: str, *, owner: bool = True) -> Path:
    """Return a folder as a process that was killed leaves it."""
    folder = place / name
    folder.mkdir()
    (folder / "weights").write_bytes(b"123")
    if owner:
        (folder / OWNER).touch()
    return old(folder)


def test_a_folder_goes_with_its_work(place: Path) -> None:
    with pytest.raises(RuntimeError), scratch() as folder:
        (folder / "inner").mkdir()
        raise RuntimeError
    assert list(place.iterdir()) == []


def test_folders_of_dead_processes_go(place: Path) -> None:
    left(place, f"{PREFIX}1")
    left(place, f"{PREFIX}2")
    with scratch() as folder:
        assert list(place.iterdir()) == [folder]


def test_what_is_not_ours_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [left(place, "other"), left(place, f"{PREFIX}3", owner=False), left(place, "mtia-emu-results")]
    link = place / f"{PREFIX}link"
    link.symlink_to(kept[0])
    young = left(place, f"{PREFIX}young")
    os.utime(young)
    remove_stale(place)
    assert all(folder.exists() for folder in (*kept, link, young))
    dead = left(place, f"{PREFIX}4")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: -1)
        remove_stale(place)
    assert dead.exists()
    remove_stale(place)
    assert not dead.exists()


HOLD = (
    "import sys, time; from mtia_emu.files.scratch import scratch\n"
    "with scratch() as folder:\n    print(folder, flush=True)\n    time.sleep(600)"
)


def test_a_folder_in_use_stays_until_its_process_is_killed(place: Path) -> None:
    words = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(
        words, env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    remove_stale(old(folder).parent)
    assert (folder / OWNER).exists()
    process.kill()
    process.communicate()
    assert folder.exists()
    remove_stale(old(folder).parent)
    assert not folder.exists()


def test_a_signal_to_end_takes_the_folder_along(place: Path) -> None:
    script = HOLD.replace("import sys", "from mtia_emu.processes import end_tidily; end_tidily(); import sys")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(place.iterdir()) == []
