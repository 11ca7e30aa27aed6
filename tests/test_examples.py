"""The examples run, and print what the files beside them hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OUTPUTS = sorted(EXAMPLES.glob("*.out"))
LONG = {"run_custom_chip", "sweep_design_space", "compare_gpus", "serve_recommender"}
SILENT = {
    "main_job.py",  # its times are those of this machine, its errors those of the installed onnxruntime
    "gpu_measure.py",  # it measures a GPU
}


def run(script: Path, folder: Path) -> str:
    """Return what a script prints, run in a folder of its own; it must exit with 0."""
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "output", [pytest.param(o, marks=[pytest.mark.deep] * (o.stem in LONG), id=o.stem) for o in OUTPUTS]
)
def test_example_prints_what_it_should(output: Path, tmp_path: Path) -> None:
    printed = run(output.with_suffix(".py"), tmp_path)
    assert printed == output.read_text(encoding="utf-8"), (
        f"{output.name} is stale: run `make docs` and look at what it changes"
    )


def test_main_job_exits_with_0(tmp_path: Path) -> None:
    assert "summary" in run(EXAMPLES / "main_job.py", tmp_path)


def test_every_example_has_an_output() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} - SILENT == {
        path.with_suffix(".py").name for path in OUTPUTS
    }


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".toml", ".out"):
            assert f"({path.name})" in listed, f"examples/README.md does not list {path.name}"
