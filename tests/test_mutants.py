"""The mutants: every one has its place, and the runner tells what is noticed from what is not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutants.change import mutated, places
from mutants.table import Misplaced, Mutant, mutants

TESTS = Path(__file__).parent
SOURCE = '''
def price(ev, e):
    """Return joules."""
    total = ev.read * e.read_pj + ev.written * e.write_pj
    if total < 0:
        total = 0
    return total


def other(ev):
    return ev.read
'''


def changed(**fields: object) -> str:
    """Return the source with a mutant's change."""
    mutant = Mutant("mtia_emu.x", str(fields.pop("scope", "")), "", (), **fields)  # type: ignore[arg-type]
    return ast.unparse(mutated(SOURCE, mutant))


def test_names_are_swapped() -> None:
    assert "ev.read * e.write_pj + ev.written * e.read_pj" in changed(swap=("read_pj", "write_pj"))


def test_an_expression_gives_way_to_another() -> None:
    assert "total = ev.read * e.read_pj\n" in changed(
        before="ev.read * e.read_pj + ev.written*e.write_pj", after="ev.read * e.read_pj"
    )
    assert "if total <= 0" in changed(before="total < 0", after="total <= 0")


def test_statements_go() -> None:
    text = changed(before="if total < 0: total = 0")
    assert "if" not in text and "pass" in text


def test_a_scope_and_a_number_of_places_are_held_to() -> None:
    assert "return 0" in changed(before="ev.read", after="0", scope="other")
    with pytest.raises(Misplaced, match=r"looked for 1 such place\(s\), saw 2"):
        changed(before="ev.read", after="0")
    assert changed(before="ev.read", after="0", times=2).count("ev.read") == 0
    with pytest.raises(Misplaced, match="0 functions or classes named third"):
        changed(before="ev.read", after="0", scope="third")


def test_what_is_gone_is_an_error() -> None:
    with pytest.raises(Misplaced, match="saw 0"):
        changed(before="ev.lost", after="0")
    with pytest.raises(Misplaced, match="looked for both names"):
        changed(swap=("read_pj", "lost_pj"))
    with pytest.raises(Misplaced, match="no such module"):
        _ = Mutant("mtia_emu.lost", "", "", ()).file


def test_every_mutant_has_its_place_and_its_tests() -> None:
    table, wrong = mutants(), []
    for mutant in table:
        try:
            places(mutant.file.read_text(encoding="utf-8"), mutant)
        except Misplaced as error:
            wrong.append(str(error))
        wrong += [f"{x}: not there" for x in mutant.tests if not (TESTS / x.partition("::")[0]).is_file()]
    assert wrong == []
    assert len(table) >= 60 and len({x.name for x in table}) == len(table)


def test_mutants_are_of_every_kind_of_number() -> None:
    rooms = {x.module.removeprefix("mtia_emu.").partition(".")[0] for x in mutants()}
    assert rooms >= {"engine", "machine", "kernels", "compiler", "results"}
