"""Commands that follow a table of turns, and such blocks in program files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.file_turns import read_routed, routed_record, stored
from mtia_emu.program.isa import COMMAND, Block, Opcode, Program
from mtia_emu.program.routed import Marks, Routed
from mtia_emu.program.verify import verify, verify_block

EXPERTS, K = 3, 8
GRAPH = """graph moe {
  in %x : fp16[4,16]
  in %chosen : int64[4,2]
  const %w : fp16[5,16,24] = absent
  %y : fp16[8,24] = expert_matmul(%x, %w, %chosen)
  out %y
}
"""


def routed() -> Routed:
    """Return two turns of four rows: the weights of each, then its rows by two."""
    commands = np.zeros(6, COMMAND)
    commands["op"] = Opcode.LOAD
    commands["operand"] = [1, 0, 0, 1, 0, 0]
    commands["row"] = [0, 0, 2, 0, 4, 6]
    commands["rows"] = [K, 2, 2, K, 2, 2]
    turn, first = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 2, 0, 0, 2])
    marks = Marks(turn, first, commands["operand"] == 1)
    return Routed(2, EXPERTS, ((1, K),), commands, marks, np.zeros((2, 2), np.int32))


def table(*turns: tuple[int, int]) -> np.ndarray:
    return np.array(turns, np.int32)


def test_rows_are_cut_and_weights_are_the_experts() -> None:
    made = routed().followed(table((2, 3), (0, 1)))
    assert made["row"].tolist() == [2 * K, 0, 2, 0, 4]
    assert made["rows"].tolist() == [K, 2, 1, K, 1]


def test_a_turn_without_rows_has_no_commands() -> None:
    assert len(routed().followed(table((1, 2), (0, 0)))) == 2
    assert not len(routed().followed(table((1, 0), (2, 0))))


@pytest.mark.parametrize("wrong", [(3, 1), (-1, 1), (0, -1)])
def test_a_table_of_nonsense_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"turn 1 has .*; right: experts 0 to 2"):
        routed().followed(table((0, 1), wrong))


def test_commands_of_no_turn_stay() -> None:
    more = np.zeros(2, COMMAND)
    more["row"] = 7
    made = routed().with_more(more).followed(table((1, 0), (2, 0)))
    assert made["row"].tolist() == [7, 7]


def program() -> Program:
    from mtia_emu.compiler import text
    from mtia_emu.compiler.pipeline import compile_graph

    return compile_graph(text.parse(GRAPH), load_chip("tiny")).program


def test_a_file_keeps_what_follows_a_table(tmp_path: Path) -> None:
    before = program()
    api.save_program(before, tmp_path / "p.mtia")
    after = api.load_program(tmp_path / "p.mtia")
    assert [b.routed is not None for b in after.blocks] == [b.routed is not None for b in before.blocks]
    for a, b in zip(after.blocks, before.blocks, strict=True):
        assert np.array_equal(a.commands, b.commands)
        if a.routed is not None and b.routed is not None:
            other = table(*((4, 1) for _ in b.routed.table))
            assert np.array_equal(a.following(other).commands, b.following(other).commands)


def lawful() -> tuple[Block, Program]:
    made = program()
    return next(b for b in made.blocks if b.kernel == "expert_matmul"), made


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"operand": 9}, "follows operand %9"),
        ({"operand": 0}, "follows operand %0"),
        ({"strides": ((1, 7),)}, "has not 7 rows for each"),
        ({"strides": ((9, 16),)}, "operand %9 has not"),
    ],
)
def test_what_no_compiler_makes_is_refused(changed: dict[str, object], said: str) -> None:
    block, _ = lawful()
    assert block.routed is not None
    verify_block(block, load_chip("tiny"))
    with pytest.raises(UserError, match=said):
        verify_block(replace(block, routed=replace(block.routed, **changed)), load_chip("tiny"))


def test_weights_of_two_experts_are_refused() -> None:
    block, _ = lawful()
    assert block.routed is not None
    commands = block.routed.commands.copy()
    load = np.flatnonzero((commands["op"] == Opcode.LOAD) & (commands["operand"] == 1))[0]
    commands["row"][load] += 16
    with pytest.raises(UserError, match="reads rows of two experts"):
        verify_block(replace(block, routed=replace(block.routed, commands=commands)), load_chip("tiny"))


@given(st.integers(0, 200), st.integers(-(1 << 31), (1 << 31) - 1))
def test_changed_marks_are_refused_or_lawful(at: int, value: int) -> None:
    block, made = LAWFUL
    members = stored(block)
    words = np.frombuffer(members["turns"], np.int32).copy()
    words[at % len(words)] = value
    assert block.routed is not None
    bare = replace(block, commands=block.routed.commands, routed=None)
    try:
        again = read_routed(bare, routed_record(block.routed), words.tobytes())
        verify(replace(made, blocks=tuple(again if b is block else b for b in made.blocks)))
    except UserError:
        return
    assert len(again.commands) <= len(block.routed.commands)


LAWFUL = lawful()
