"""`timeline` and `opt --draw`: pictures from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from click.testing import Result

from mtia_emu.api import load_program

Cli = Callable[..., Result]
Refused = Callable[..., str]


def test_a_graph_is_drawn_after_its_passes(cli: Cli, tmp_path: Path) -> None:
    done = cli("opt", "zoo:dlrm-small", "-q", "--passes", "legalise,fold", "--draw", tmp_path / "g.svg")
    assert done.exit_code == 0 and done.stdout == "" and "boxes" in done.stderr
    text = (tmp_path / "g.svg").read_text()
    ET.fromstring(text)
    assert ">add<" in text and ">matmul_map<" not in text
    assert cli("opt", "zoo:dlrm-small", "-q", "--draw", tmp_path / "g.dot").exit_code == 0
    assert "matmul_map" in (tmp_path / "g.dot").read_text()


def test_a_program_is_drawn_over_time(cli: Cli, tmp_path: Path) -> None:
    program, picture = tmp_path / "m.mtia", tmp_path / "t.svg"
    assert cli("compile", "zoo:dlrm-small", "--chip", "tiny", "-o", program).exit_code == 0
    done = cli("timeline", program, "-o", picture)
    assert done.exit_code == 0 and "lanes" in done.stderr
    ET.fromstring(picture.read_text())
    layer = load_program(program).launches[-1].name
    done = cli("timeline", program, "--layer", layer, "--pe", 1, "-o", tmp_path / "l.png")
    assert done.exit_code == 0 and (tmp_path / "l.png").stat().st_size


def test_wrong_pictures_are_refused_before_work(refused: Refused, tmp_path: Path) -> None:
    assert "right: --draw graph.svg" in refused("opt", "zoo:dlrm-small", "--draw", tmp_path / "a.png")
    assert "right: -o timeline.svg" in refused("timeline", "zoo:dlrm-small", "-o", tmp_path / "a.dot")
    assert "does not exist" in refused("timeline", "zoo:dlrm-small", "-o", tmp_path / "no" / "a.svg")
    assert "no layer" in refused("timeline", "zoo:dlrm-small", "--layer", "?", "-o", tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
