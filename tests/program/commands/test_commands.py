"""The table of commands: it is whole, and says all that numbers of opcodes once did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtia_emu.machine.chip import load_chip
from mtia_emu.program.commands import (
    COMMANDS,
    PIECE,
    QUEUES,
    RESOURCES,
    UNITS,
    batches,
    by_table,
    pieces,
    table,
    table_of,
)
from mtia_emu.program.isa import COMMAND, Block, Opcode

RENUMBERED = Path(__file__).with_name("renumbered.py")


def test_every_opcode_has_a_kind() -> None:
    assert {kind.opcode for kind in COMMANDS.values()} == set(Opcode)
    for kind in COMMANDS.values():
        with pytest.raises(TypeError, match=f"^command {kind.opcode.name} is not declared: opcode, unit, "):
            table(other for other in COMMANDS.values() if other is not kind)


def test_no_opcode_has_two_kinds() -> None:
    first = COMMANDS[Opcode.LOAD]
    with pytest.raises(TypeError, match=r"^command LOAD is declared twice: LoadTile and LoadTile$"):
        table([*COMMANDS.values(), type(first)()])


def test_queues_and_what_they_bind_follow_from_the_kinds() -> None:
    assert {*UNITS} >= {"load", "store", "matrix", "reduce", "simd", "core", "chip dma"}
    assert {*RESOURCES} >= {"array", "reduce", "simd", "dma", "core"}
    assert len(set(UNITS)) == len(QUEUES)
    assert UNITS[-1] == "chip dma" and QUEUES[-1].chip_wide  # of PEs before the chip's
    assert {q.resource for q in QUEUES} - {""} == set(RESOURCES)


def test_a_table_of_a_member_is_indexed_by_opcode() -> None:
    adds = table_of(lambda kind: kind.adds)
    assert set(np.flatnonzero(adds).tolist()) == {Opcode.MATMUL, Opcode.REDUCE}
    assert len(adds) == 256  # of any number that a saved record may hold


def test_commands_come_apart_by_kind_and_by_the_table_that_they_look_up() -> None:
    commands = np.zeros(5, COMMAND)
    commands["op"] = [Opcode.STORE, Opcode.GATHER, Opcode.STORE, Opcode.GATHER, Opcode.GATHER]
    commands["operand"] = [1, 1, 0, 2, 1]
    parts = [(k.opcode, b.at.tolist()) for k, b in batches(Block("t", (), (), commands), load_chip("tiny"))]
    assert sorted(parts) == [(Opcode.STORE, [0, 2]), (Opcode.GATHER, [1, 4]), (Opcode.GATHER, [3])]


def test_commands_behind_the_first_piece_are_where_they_stand() -> None:
    commands = np.zeros(2 * PIECE + 3, COMMAND)
    commands["op"] = np.where(np.arange(len(commands)) % 3, Opcode.STORE, Opcode.LOAD)
    found: dict[Opcode, list[int]] = {Opcode.LOAD: [], Opcode.STORE: []}
    for kind, batch in batches(Block("t", (), (), commands), load_chip("tiny")):
        found[kind.opcode] += batch.at.tolist()
    for opcode, at in found.items():
        assert at == np.flatnonzero(commands["op"] == opcode).tolist()


def test_no_meaning_is_in_the_numbers_of_opcodes() -> None:
    """Other numbers, in another order and with gaps: the same programs, times, joules and outputs."""
    runs = [
        subprocess.Popen([sys.executable, RENUMBERED, *words], stdout=subprocess.PIPE, text=True)
        for words in ((), ("renumber",))
    ]
    usual, renumbered = (run.communicate(timeout=300)[0] for run in runs)
    assert "numbers 0 1 2" in usual and "numbers 0 1 2" not in renumbered
    assert usual.splitlines()[1:] == renumbered.splitlines()[1:]
    assert len(usual.splitlines()) > 20


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3])
def test_pieces_of_a_block_have_each_command_once(count: int) -> None:
    commands = np.arange(count)
    found = [commands[piece] for piece in pieces(commands)]
    assert all(0 < len(part) <= PIECE for part in found)
    assert np.concatenate([np.arange(0), *found]).tolist() == commands.tolist()


def test_commands_are_apart_by_table_in_their_order() -> None:
    commands = np.zeros(6, COMMAND)
    commands["operand"] = [3, 1, 3, 0, 1, 3]
    parts = by_table(np.array([0, 1, 2, 4, 5]), commands)
    assert [part.tolist() for part in parts] == [[1, 4], [0, 2, 5]]
    assert by_table(np.zeros(0, np.int64), commands) == []
