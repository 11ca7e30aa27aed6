"""What stands at the door of the project: how to cite it, and of which version."""

from __future__ import annotations

import re
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


def test_every_form_of_json_is_listed_with_its_version() -> None:
    """Versions before the ones of today are read, not written."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "mtia_emu").rglob("*.py"))
    forms = {form for text in texts for form in re.findall(r'"(mtia-emu[.][a-z-]+[.]v\d+)"', text)}
    assert forms - {"mtia-emu.report.v1"} == set(re.findall(r"`(mtia-emu[.][a-z-]+[.]v\d+)`", page))
