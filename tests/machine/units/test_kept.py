"""Arrays kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.files import disk_cache
from mtia_emu.machine.units import kept as module
from mtia_emu.machine.units.kept import kept


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path))
    return tmp_path / "numbers"


def never() -> np.ndarray:
    raise AssertionError("made again")


def test_equal_sources_are_made_once(folder: Path) -> None:
    numbers = np.random.default_rng(0).random((3, 2))
    assert (kept("numbers", "a", (3, 2), lambda: numbers) == numbers).all()
    assert (kept("numbers", "a", (3, 2), never) == numbers).all()
    assert (kept("numbers", "b", (3, 2), lambda: -numbers) == -numbers).all()
    assert len(list(folder.iterdir())) == 2


def bad(what: object) -> bytes:
    return np.asarray(what, "<f8").tobytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", bad(np.zeros(3)), bad(np.full((3, 2), np.nan)), bad(np.zeros((3, 2)))[:-8]],
)
def test_a_file_of_another_form_is_made_anew(folder: Path, content: bytes) -> None:
    kept("numbers", "a", (3, 2), lambda: np.ones((3, 2)))
    (file,) = folder.iterdir()
    assert disk_cache.write(file, content)
    assert (kept("numbers", "a", (3, 2), lambda: np.full((3, 2), 2.0)) == 2).all()
    assert (kept("numbers", "a", (3, 2), never) == 2).all()


def test_a_bit_that_is_off_is_noticed(folder: Path) -> None:
    kept("numbers", "a", (3, 2), lambda: np.ones((3, 2)))
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # -1 would be a number too
    file.write_bytes(data)
    assert (kept("numbers", "a", (3, 2), lambda: np.full((3, 2), 2.0)) == 2).all()


def test_where_nothing_can_be_written_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / "file" / "below"))
    assert kept("numbers", "a", (1,), lambda: np.ones(1)).tolist() == [1]
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path))
    (tmp_path / "numbers").touch()
    assert kept("numbers", "a", (1,), lambda: np.ones(1)).tolist() == [1]


def test_the_oldest_files_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    monkeypatch.setattr(module, "ONCE", 1)
    for i in range(6):
        kept("numbers", str(i), (1,), lambda i=i: np.full(1, float(i)))  # type: ignore[misc]
    assert len(list(folder.iterdir())) == 3
    assert kept("numbers", "5", (1,), never).tolist() == [5]
