"""Motifs that come with the package of a pass, and how often passes fire on random graphs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from mtia_emu.compiler.pass_text import parse_passes

from mtia_emu.testing import BUILTIN, MOTIFS, fuzz
from mtia_emu.testing.brought import digest, own_motifs

Cli = Callable[..., Result]
Refused = Callable[..., str]
PASSES = '''
from dataclasses import dataclass
from mtia_emu.compiler.passes.base import Rules, become, building


@dataclass(frozen=True)
class Signs(Rules):
    """Make the magnitude of -x that of x; with `wrong` x itself."""

    wrong: bool = False

    @property
    def rules(self):
        return (self._drop,)

    def _drop(self, node, match):
        inner = match.producer(node.inputs[0], "neg") if node.op == "abs" else None
        if inner is None:
            return None
        new, x = building(node, match), inner.inputs[0]
        return become(node, new, x if self.wrong else new.add("abs", x))


@dataclass(frozen=True)
class Idle(Rules):
    """Fire on what no graph holds."""

    @property
    def rules(self):
        return ()
'''
MOTIFS_TEXT = '''
def signed(g):
    """The magnitude of what was negated."""
    g.add(g.op("abs", g.op("neg", g.value(1, 3))))


NOTHING = None
'''
FILE = f"from mtia_emu import testing\n{PASSES}{MOTIFS_TEXT}\ntesting.motif(signed)\n"
ENTRIES = """[mtia_emu.passes]
signs = signs_passes:Signs
idle = signs_passes:Idle

[mtia_emu.motifs]
signed = signs_motifs:signed
"""


@pytest.fixture
def signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with passes and a motif; return the file of its entry points."""
    folder = tmp_path / "site"
    about = folder / "signs-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "signs_passes.py").write_text(PASSES)
    (folder / "signs_motifs.py").write_text(MOTIFS_TEXT)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: signs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(folder)
    for name in ("signs_passes", "signs_motifs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("mtia_emu.testing.motifs.MOTIFS", MOTIFS)
    yield about / "entry_points.txt"
    MOTIFS.pop("signed", None)


def test_a_pass_fires_on_the_motifs_of_its_package(cli: Cli, signs: Path) -> None:
    words = ("fuzz", "--count", 50, "--workers", 1, "--passes")
    done = cli(*words, "signs")
    assert done.exit_code == 0 and "no mismatch" in done.stderr
    said = done.stderr.partition("signs fired on ")[2]
    assert int(said.split()[0]) > 10 and said.split()[1:4] == ["of", "50", "graphs"]
    wrong = "signs{wrong=true}"
    tried = fuzz.first_wrong(0, range(20), wrong, own_motifs(parse_passes(wrong)))
    found = next(found for found in tried if found is not None)
    assert found.stage == f"passes {wrong}" and "(sample: usual, seed" in found.what


def test_a_pass_that_never_fires_is_not_verified(cli: Cli, signs: Path) -> None:
    done = cli("fuzz", "--count", 50, "--workers", 1, "--passes", "legalise,idle")
    assert done.exit_code == 1
    assert "idle fired on 0 of 50 graphs: on fewer than 5%" in done.stderr
    assert "nothing was verified of idle: no graph made it fire" in done.stderr


def test_motifs_belong_to_the_passes_that_are_named(signs: Path) -> None:
    assert own_motifs(parse_passes("legalise,fold")) == ()
    assert own_motifs(parse_passes("legalise,signs")) == ("signed",)
    assert "signed" not in BUILTIN  # so that graphs of a seed stay what they are


def test_half_of_a_graph_is_of_ones_own_motifs(signs: Path) -> None:
    own = own_motifs(parse_passes("signs"))
    ops = [Counter(n.op for n in fuzz.numbered_graph(0, number, own).nodes) for number in range(60)]
    assert sum(found["neg"] > 0 and found["abs"] > 0 for found in ops) > 20


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("signs_motifs:NOTHING", "None is no motif (right: a function of a testing.Grower)"),
        ("signs_motifs:gone", "cannot be imported: AttributeError"),
    ],
)
def test_what_is_no_motif_is_refused(refused: Refused, signs: Path, value: str, message: str) -> None:
    signs.write_text(ENTRIES.replace("signs_motifs:signed", value))
    said = refused("fuzz", "--count", 50, "--workers", 1, "--passes", "signs")
    assert f"motif 'signed', entry point {value!r} of group mtia_emu.motifs: {message}" in said


def test_a_motif_that_raises_is_named_with_its_line(refused: Refused, signs: Path) -> None:
    file = signs.parent.parent / "signs_motifs.py"
    file.write_text("def signed(g):\n    g.op('cast', g.value(), to=g.kind)\n")
    said = refused("fuzz", "--count", 50, "--workers", 1, "--passes", "signs")
    assert "motif 'signed' raises UserError: cast.to: an attribute is" in said
    assert said.strip().endswith("signs_motifs.py:2)")


def test_what_is_kept_is_of_the_code_that_was_tried(cli: Cli, tmp_path: Path) -> None:
    file, words = tmp_path / "signs.py", ("fuzz", "--count", 10, "--workers", 1, "-o", tmp_path / "kept")
    file.write_text(FILE)
    done = [cli(*words, "--passes", f"{file}:signs").stderr for _ in range(2)]
    assert done[0] == done[1] and "50 graphs of seed 0: no mismatch" in done[0]
    file.write_text(FILE.replace("wrong: bool = False", "wrong: bool = True"))
    again = cli(*words, "--passes", f"{file}:signs")
    assert again.exit_code == 1 and "is of other passes or another mtia-emu: begun anew" in again.stderr
    assert "of 50 graphs of seed 0 are off" in again.stderr


def test_a_digest_is_of_what_lies_beside_a_file_and_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "signs_beside.py").write_text("")
    (tmp_path / "signs_unread.py").write_text("")
    (tmp_path / "signs.py").write_text(f"import signs_beside\n{PASSES}")
    steps = parse_passes(f"{tmp_path / 'signs.py'}:signs")
    first = digest(steps)
    (tmp_path / "signs_unread.py").write_text("1")
    assert digest(steps) == first
    (tmp_path / "signs_beside.py").write_text("1")
    assert digest(steps) != first
