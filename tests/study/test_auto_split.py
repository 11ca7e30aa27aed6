"""Which split `auto` takes, and which it does not time."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.study import auto_split
from mtia_emu.study.auto_split import AutoSplit, candidates, experts_apart, meshes
from mtia_emu.system.load import load_system

from .systems import machine, model


def test_auto_tries_no_more_chips_than_there_are() -> None:
    assert {mesh.chips for mesh in candidates(4)} == {1, 2, 4}
    assert max(mesh.chips for mesh in candidates(24)) == 16


def test_auto_tries_experts_apart_where_there_are_some() -> None:
    assert [mesh.chips for mesh in experts_apart(32)] == [4, 4, 32, 32, 16, 16]
    assert set(map(str, meshes(8, True))) - set(map(str, meshes(8, False))) == {"ep=4", "ep=4,dispatch"}


@pytest.mark.parametrize("name", ["llama-tiny", "mixture-tiny"])
def test_the_fastest_is_taken_and_what_was_passed_over_would_not_have_been(name: str) -> None:
    given, board = model(name), load_system("tiny-board")
    search = AutoSplit(board, {}, given)
    best, report = search.fastest()
    timed = {str(x.machine.mesh): x.report.seconds for x in search.tried}
    assert timed[str(best.mesh)] == report.seconds == min(timed.values())
    assert ("ep=4" in timed) == (name == "mixture-tiny") and {"tp=1", "tp=4", "pp=2,tp=4"} <= set(timed)
    note = report.notes[-1]
    assert note.startswith(f"--parallel auto took {best.mesh} of tp=1 ") and note.endswith("are slower")
    every = [mesh for mesh in meshes(len(board.chips), name == "mixture-tiny") if str(mesh) not in timed]
    left = [mesh for mesh in every if not mesh.dispatch]  # a batch of 1 is not split
    for mesh in left:
        assert machine(str(mesh)).report(given).seconds > report.seconds
    assert left


def test_a_model_larger_than_all_chips_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("split")

    monkeypatch.setattr(auto_split, "partition_prepared", never)
    with pytest.raises(UserError, match=r"weights of zoo:llama-3-8b do not fit tiny-board in any way"):
        AutoSplit(load_system("tiny-board"), {}, model("llama-3-8b")).fastest()
