"""What must not be in the repository, and what a wheel of it holds."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mtia_emu.reuse.code import code_digest, digest_of

ROOT = Path(__file__).parents[1]
MOST_BYTES = 2 << 20
UNREACHABLE = ("No matching distribution", "Could not find a version", "Connection", "No module named pip")
PRIVATE = re.compile(r"(?<![\w.])/(home|Users|root|tmp|work|private|var/folders)/[\w.-]+")
ALLOWED = re.compile(r"/tmp/(mtia-emu|x|a|b|model|out)?\b")


def tracked() -> list[Path]:
    """Return the files that git knows; skip outside a checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_is_large() -> None:
    assert {str(f): f.stat().st_size for f in tracked() if f.stat().st_size > MOST_BYTES} == {}


def test_no_file_names_a_folder_of_someones_machine() -> None:
    found = []
    for file in tracked():
        if file.suffix in (".png", ".npz", ".onnx"):
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{file.relative_to(ROOT)}: {m[0]}" for m in PRIVATE.finditer(text) if not ALLOWED.match(m[0])
        ]
    assert found == []


def test_no_compiled_or_temporary_files() -> None:
    bad = (".pyc", ".so", ".tmp", ".orig", ".rej", ".egg-info", ".whl", ".mtia")
    assert [str(f) for f in tracked() if f.name.endswith(bad) or f.name.startswith(".mtia-emu-")] == []


def test_the_licence_and_the_readme_are_there() -> None:
    names = {f.name for f in tracked()}
    assert {"LICENSE", "pyproject.toml", "Makefile"} <= names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files in a wheel that is built of a copy of the checkout."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for file in tracked():
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    if not (copy / "README.md").exists():
        (copy / "README.md").write_text("mtia-emu\n")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip("pip reaches no index that has the build backend")
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_owns_only_our_name(wheel: dict[str, bytes]) -> None:
    assert {re.sub(r"-.*", "", name.partition("/")[0]) for name in wheel} == {"mtia_emu"}


def test_a_wheel_is_whole(wheel: dict[str, bytes]) -> None:
    for name in (
        "machine/chips/mtia-2i.toml",
        "gpu/gpus/h100-sxm.toml",
        "compiler/ops/__init__.py",
        "kernels/matmul/dense.py",
        "py.typed",
    ):
        assert f"mtia_emu/{name}" in wheel
    assert not [name for name in wheel if "test_" in name]


def test_a_wheel_goes_on_with_the_sweeps_of_its_checkout(wheel: dict[str, bytes]) -> None:
    code = {
        name.removeprefix("mtia_emu/"): text
        for name, text in wheel.items()
        if name.endswith((".py", ".toml"))
    }
    assert digest_of((name, code[name]) for name in sorted(code)) == code_digest()


def test_how_hypothesis_searches_is_set_in_one_place() -> None:
    """A deadline or a health check fails where a machine is slow: `tests/conftest.py` has none, for all."""
    files = [p for p in (ROOT / "tests").rglob("*.py") if p.name != "conftest.py" and p != Path(__file__)]
    words = ("deadline=", "HealthCheck")
    assert [p.name for p in files if any(w in p.read_text(encoding="utf-8") for w in words)] == []
