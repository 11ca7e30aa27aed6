"""Machine code on disk: loaded where it is whole and of the same source, else compiled anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtia_emu import settings
from mtia_emu.files import code_cache, disk_cache
from mtia_emu.files.disk_cache import write
from mtia_emu.numerics import jitted


def twice(x: Any) -> Any:
    return 2 * x


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(disk_cache, "_said", set())
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(base: Path) -> list[Path]:
    return sorted(base.rglob("*.code"))


def call(operand: Any) -> int:
    """Call a function as a new process would; return how often its code came from disk."""
    compiled: Any = jitted(twice).compiled()
    assert (np.asarray(compiled(operand)) == 2 * np.asarray(operand)).all()
    return sum(compiled._cache_hits.values())


def test_code_is_kept_for_each_type_and_loaded(base: Path) -> None:
    operands = [3, 0.5, np.arange(3), np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)[:, ::2]]
    assert [call(x) for x in operands] == [0] * 5
    assert len(kept(base)) == 5
    assert [call(x) for x in operands] == [1] * 5
    assert len(kept(base)) == 5


@pytest.mark.parametrize("length", [0, 1, 40, -1, None])
def test_damaged_code_is_compiled_anew(base: Path, length: int | None, capsys: Any) -> None:
    call(3)
    (file,) = kept(base)
    whole = file.read_bytes()
    file.write_bytes(
        whole[:length] if length is not None else whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    )
    assert (call(3), call(3)) == (0, 1)
    assert capsys.readouterr().err.count("is damaged: it is made anew") == 1


def test_code_that_cannot_be_loaded_is_compiled_anew(base: Path) -> None:
    call(3)
    (file,) = kept(base)
    write(file, b"whole, but no pickle")
    assert (call(3), call(3)) == (0, 1)


@pytest.fixture
def held(base: Path) -> Iterator[tuple[Path, Any]]:
    """Give the file of code that is not there, and its lock, which another process holds."""
    fcntl = pytest.importorskip("fcntl")
    call(3)
    (file,) = kept(base)
    with open(file.with_suffix(".lock"), "w") as other:  # a second opening is as another process's
        fcntl.flock(other, fcntl.LOCK_EX)
        yield file, other


def test_a_process_waits_for_the_code_that_another_makes(held: Any, monkeypatch: Any) -> None:
    file, other = held
    content = file.read_bytes()
    file.unlink()

    def another_ends(_: float) -> None:
        file.write_bytes(content)
        other.close()

    monkeypatch.setattr(code_cache.time, "sleep", another_ends)
    assert call(3) == 1


def test_a_process_that_waits_in_vain_compiles(held: Any, monkeypatch: Any) -> None:
    file, _ = held
    file.unlink()
    monkeypatch.setattr(code_cache, "PATIENCE_S", 2 * code_cache.POLL_S)
    assert call(3) == 0
    assert file.exists()


def test_code_goes_into_the_folder_that_numba_is_given(base: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    call(3)
    assert not base.exists() and len(kept(tmp_path / "numba")) == 1


def test_where_nothing_can_be_kept_code_is_compiled(base: Path, monkeypatch: Any, capsys: Any) -> None:
    base.write_text("a file")
    assert (call(3), call(3)) == (0, 0)
    base.unlink()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert (call(3), call(0.5)) == (0, 0)
    assert kept(base) == [] and capsys.readouterr().err.count("\n") == 1


def test_code_of_other_texts_goes_after_a_while(base: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(code_cache, "MOST_FOLDERS", 2)
    for age in range(4):
        (base / "code" / str(age)).mkdir(parents=True)
        os.utime(base / "code" / str(age), (age, age))
    call(3)
    assert len(kept(base)) == 1 and len(list((base / "code").iterdir())) == 2


SMALL = ["gemm", "64", "64", "64", "--chip", "tiny", "--gpu", "none", "--json", "-"]


def run(cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    words = [sys.executable, "-c", "from mtia_emu.cli import main; main()", *SMALL]
    environment |= {settings.CACHE.name: str(cache)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


PRODUCT = """
import numpy as np
from mtia_emu.numerics import tile_matmul
acc = np.zeros((3, 3), np.float32)
tile_matmul(np.ones((3, 4), np.float32), np.ones((4, 3), np.float32), acc, 2)
print(acc.sum())
"""


@pytest.mark.deep
def test_many_processes_on_one_cold_cache(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    how: dict[str, Any] = {"env": environment | {settings.CACHE.name: str(tmp_path / "cache")}, "text": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, "-c", PRODUCT], **how) for _ in range(20)]
    assert {(p.communicate(), p.returncode) for p in started} == {(("36.0\n", ""), 0)}
    names = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    names = [name for name in names if not name.endswith(".lock")]
    assert len(names) == 1 and not any("draft" in name for name in names)
    last = subprocess.Popen([sys.executable, "-c", PRODUCT], **how)
    assert last.communicate() == ("36.0\n", "")


@pytest.mark.deep
def test_a_disk_too_small_for_the_cache(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        small, wide = run(disk / "cache"), run(tmp_path / "cache")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert (small.returncode, small.stdout) == (0, wide.stdout)
    assert small.stderr.count("\n") == 1 and "No space left on device" in small.stderr


@pytest.mark.deep
@pytest.mark.parametrize("damage", ["empty", "half", "flip"])
def test_every_file_damaged(tmp_path: Path, damage: str) -> None:
    whole = run(tmp_path / "cache").stdout
    for file in [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]:
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 16
        file.write_bytes({"empty": b"", "half": data[: len(data) // 2], "flip": bytes(data)}[damage])
    again = run(tmp_path / "cache")
    assert (again.returncode, again.stdout) == (0, whole) and again.stderr.count("\n") == 1
    assert run(tmp_path / "cache").stderr == ""
