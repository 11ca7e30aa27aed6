"""What stands at the door of the project: how to cite it, and of which version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import mtia_emu

ROOT = Path(__file__).parents[1]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "docs" / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation and f"license: {project['license']}\n" in citation
    assert mtia_emu.__version__ == project["version"]
    changes = (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {project['version']}" in changes
