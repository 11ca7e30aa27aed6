"""Passes as text: lists, changes of the default pipeline, files of the user's; what commands make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from mtia_emu.compiler.formats import FORMATS, Format
from mtia_emu.compiler.pass_text import Steps, files_of, parse_passes, steps_of
from mtia_emu.compiler.pipeline import chosen_steps

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.file import load
from mtia_emu.types import FP16, FP32

Cli = Callable[..., Result]
CHIP = load_chip("tiny")
FORM = Format(FP16)
DEFAULT = Steps(
    parse_passes("legalise,fold,fuse-norms,fuse-maps,fuse-tails,fold,prune"),
    parse_passes("fuse-attention,merge-siblings,fold,prune"),
)
FILE = """
from dataclasses import dataclass, replace

from mtia_emu.compiler.passes import Pass

@dataclass(frozen=True)
class Wrong(Pass):
    times: int = 2

    def __call__(self, graph):
        nodes = [replace(n, op="tanh") if n.op == "relu" else n for n in graph.nodes]
        return graph.with_nodes(nodes)
"""


def names(steps: Steps) -> list[str]:
    return [step.name for step in steps.all]


FIRST = "fuse-attention"  # of the passes that suit the graph to a chip


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("+fuse-bags{}@after:fuse-norms", "fuse-norms", "fuse-maps"),
        ("+fuse-bags@before:legalise", None, "legalise"),
        ("+fuse-bags@after:fold.1", "fold", "fuse-norms"),
        ("+fuse-bags@after:prune", "prune", FIRST),
        (f"+fuse-bags@before:{FIRST}", "prune", FIRST),
        ("+fuse-bags@after:prune.2", "prune", None),
    ],
)
def test_a_pass_is_added_at_its_place(text: str, before: str | None, after: str | None) -> None:
    whole, made = names(DEFAULT), names(steps_of(DEFAULT, text))
    assert len(made) == len(whole) + 1
    at = next(i for i, (a, b) in enumerate(zip(made, [*whole, ""], strict=True)) if a != b)
    assert made[at] == "fuse-bags" and made[:at] + made[at + 1 :] == whole
    assert (made[at - 1] if at else None) == before
    assert (made[at + 1] if at + 1 < len(made) else None) == after


def test_a_pass_beside_the_seam_is_in_the_part_of_its_anchor() -> None:
    last = steps_of(DEFAULT, "+fuse-tails@after:prune")
    first = steps_of(DEFAULT, f"+fuse-tails@before:{FIRST}")
    assert (len(last.fused), len(last.mapping)) == (len(DEFAULT.fused) + 1, len(DEFAULT.mapping))
    assert (len(first.fused), len(first.mapping)) == (len(DEFAULT.fused), len(DEFAULT.mapping) + 1)


def test_passes_are_left_out_all_of_a_name_or_one() -> None:
    assert names(steps_of(DEFAULT, "-fold")) == [n for n in names(DEFAULT) if n != "fold"]
    one = names(steps_of(DEFAULT, "-fold.1,-merge-siblings"))
    assert "merge-siblings" not in one
    assert one[:2] == ["legalise", "fuse-norms"] and one.count("fold") == 2


def test_a_list_is_the_pipeline_and_default_all_that_would_run() -> None:
    assert steps_of(DEFAULT, None) is DEFAULT and steps_of(DEFAULT, "default") == DEFAULT
    assert names(steps_of(DEFAULT, "fuse-maps,default")) == ["fuse-maps", *names(DEFAULT)]
    made = steps_of(DEFAULT, "legalise,fold,merge-siblings,fold")
    assert [s.name for s in made.fused] == ["legalise", "fold"]
    assert [s.name for s in made.mapping] == ["merge-siblings", "fold"]
    assert steps_of(DEFAULT, "").all == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "+fuse-maps",
            r"\+fuse-maps needs its place in the pipeline .right: \+fuse-maps@after:fuse-tails; "
            "passes: legalise, fold",
        ),
        ("+fuse-maps@after:tailz", "unknown pass of the pipeline 'tailz'; did you mean 'fuse-tails'"),
        ("+fuse-maps@after:fold.9", r"there is no fold\.9"),
        ("+fuse-mops@after:fuse-tails", "unknown pass 'fuse-mops'; did you mean 'fuse-maps'"),
        ("-sibling", "unknown pass of the pipeline 'sibling'; did you mean 'merge-siblings'"),
        ("-fuse-maps{max-inputs=3}", "has neither place nor options"),
        ("+fuse-maps@after:fuse-tails,fold", "both changes the pipeline and lists passes .fold."),
        ("fuse-maps@after:fuse-tails", r"a place is for \+fuse-maps"),
        ("+fuse-maps@behind:fuse-tails", "not a pass"),
        ("nowhere.py", "there is no such file"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        steps_of(DEFAULT, text)


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("attention", "fuse-attention"),
        ("bags", "fuse-bags"),
        ("caches", "append-caches"),
        ("epilogue", "fuse-epilogue"),
        ("heads", "group-heads"),
        ("indexing", "lower-indexing"),
        ("layout", "set-weight-layout"),
        ("maps", "fuse-maps"),
        ("norms", "fuse-norms"),
        ("packed", "keep-packed"),
        ("precision", "set-precision"),
        ("rotary", "fuse-rotary"),
        ("rounding", "keep-rounding"),
        ("siblings", "merge-siblings"),
        ("strips", "split-into-strips"),
        ("tables", "merge-tables"),
        ("tails", "fuse-tails"),
    ],
)
def test_the_noun_alone_leads_to_the_name(word: str, right: str) -> None:
    """These were the names of passes once."""
    with pytest.raises(UserError, match=f"unknown pass '{word}'; did you mean '{right}'"):
        parse_passes(word)


def test_a_format_needs_its_pass() -> None:
    with pytest.raises(UserError, match=r"leaves out set-precision\{to=fp16\}.*--dtype fp32"):
        chosen_steps(FP32, FORM, CHIP, "-set-precision")
    with pytest.raises(UserError, match="leaves out quantise"):
        chosen_steps(FP32, Format(FP16, FORMATS["int8"]), CHIP, "legalise,set-precision{to=fp16}")
    assert "set-precision" not in names(chosen_steps(FP32, Format(FP32), CHIP, "-fuse-maps"))


def test_a_change_is_no_list_of_passes() -> None:
    with pytest.raises(UserError, match="changes a pipeline, here is none"):
        parse_passes("+fuse-maps@after:fuse-tails")


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_a_file_has_passes(wrong: Path) -> None:
    (one,) = parse_passes(f"{wrong}{{times=3}}")
    assert one.spelling == "wrong{times=3}" and parse_passes(f"{wrong}:wrong{{times=3}}") == (one,)
    assert files_of(f"+{wrong}:wrong@after:fuse-tails,-fold") == [wrong]
    with pytest.raises(UserError, match=r"unknown pass of .*mine\.py 'right'"):
        parse_passes(f"{wrong}:right")


def test_a_name_of_several_words_has_hyphens(wrong: Path) -> None:
    wrong.write_text(FILE + FILE.replace("class Wrong", "class WrongFP16Too"))
    (one,) = parse_passes(f"{wrong}:wrong-fp16-too{{times=3}}")
    assert one.spelling == "wrong-fp16-too{times=3}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            FILE + "\n@dataclass(frozen=True)\nclass Other(Wrong):\n    pass\n",
            "2 passes are in it .right: one of",
        ),
        ("x = 1\n", "0 passes are in it"),
        ("x = 1\nraise ValueError('no')\n", r"line 2: ValueError: no"),
        (FILE.replace("@dataclass(frozen=True)\n", ""), "Wrong is no dataclass"),
    ],
)
def test_a_file_without_one_pass_is_refused(wrong: Path, body: str, message: str) -> None:
    wrong.write_text(body)
    with pytest.raises(UserError, match=message):
        parse_passes(str(wrong))


GRAPH = """graph g {
  in %x : fp32[4,8]
  %y : fp32[4,8] = relu(%x)
  %z : fp32[4,8] = add(%y, %x)
  out %z
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.ir"
    path.write_text(GRAPH)
    return path


def test_every_command_that_compiles_runs_the_users_pass(
    cli: Cli, model: Path, wrong: Path, tmp_path: Path
) -> None:
    given = ("--chip", "tiny", "--passes", f"+{wrong}@before:fuse-maps")
    assert "tanh" in cli("show", model, "--at", "graph", *given).stdout
    assert "tanh" not in cli("show", model, "--at", "graph", "--chip", "tiny").stdout
    report = json.loads(cli("run", model, "--gpu", "none", "--json", "-", *given).stdout)
    # where the file lies is the user's own business
    assert "passes: +mine.py@before:fuse-maps" in report["notes"]
    cli("compile", model, "-o", tmp_path / "p.mtia", *given)
    assert "passes: +mine.py@before:fuse-maps" in load(tmp_path / "p.mtia").notes
    explained = json.loads(cli("explain", model, "--no-what-if", "--json", "-", *given).stdout)
    assert "passes: +mine.py@before:fuse-maps" in explained["notes"]


def test_a_wrong_pass_fails_the_check(cli: Cli, model: Path, wrong: Path) -> None:
    given = ("run", model, "--chip", "tiny", "--gpu", "none", "--check")
    assert cli(*given).exit_code == 0
    assert cli(*given, "--passes", f"+{wrong}@after:legalise").exit_code == 1


def test_sweeps_compile_with_the_users_pass(model: Path, wrong: Path) -> None:
    spec: dict[str, Any] = {"chip": "tiny", "gpu": "none", "model": [{"model": str(model)}]}
    spec |= {"set": {"dram.channels": [1]}, "passes": f"+{wrong}@after:legalise"}
    plain, own = (mtia_emu.sweep(s, jobs=0)[0] for s in (spec | {"passes": None}, spec))
    assert plain["joules"] != own["joules"]
