"""CHECK mode: what no command has written may not be read; the message names command and layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import checking, packed, program_of
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.function import Executor, execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Block, Opcode, Program
from mtia_emu.types import FP32

CHIP = load_chip("tiny")
RELU = emit_rowwise(
    CHIP,
    "map",
    parse("1 -> t0 | t0 = relu(x0)"),
    [packed(FP32, (4, 8))],
    [packed(FP32, (4, 8), written=True)],
)
INPUTS = {"in0": np.ones(32, np.float32), "in1": np.zeros(32, np.float32)}


def without(block: Block, op: Opcode) -> Program:
    """Return a program whose block has lost its commands of one kind, for any reason."""
    return program_of(replace(block, commands=block.commands[block.commands["op"] != op]), CHIP)


def test_a_slot_that_no_command_has_written_is_named() -> None:
    with checking(), pytest.raises(RuntimeError) as error:
        execute(without(RELU, Opcode.LOAD), CHIP, INPUTS)
    assert str(error.value).startswith("layer (map): command 0 `simd    pe0")
    assert "of which no command has written" in str(error.value)


def test_without_check_it_passes_in_silence() -> None:
    execute(without(RELU, Opcode.LOAD), CHIP, INPUTS)


def test_a_tile_larger_than_what_was_written_is_refused() -> None:
    commands = RELU.commands.copy()
    load = np.flatnonzero(commands["op"] == Opcode.LOAD)[0]
    commands["cols"][load] -= 1
    with checking(), pytest.raises(RuntimeError, match=r"reads \d+ elements of s0 of pe 0, 1 of which"):
        execute(program_of(replace(RELU, commands=commands), CHIP), CHIP, INPUTS)


def test_what_an_earlier_launch_left_in_local_memory_does_not_count() -> None:
    whole, broken = program_of(RELU, CHIP), without(RELU, Opcode.LOAD)
    launches = (whole.launches[0], replace(whole.launches[0], block=1, name="second"))
    program = replace(whole, blocks=(*whole.blocks, *broken.blocks), launches=launches)
    with checking(), pytest.raises(RuntimeError, match=r"second .map.: command 0"):
        execute(program, CHIP, INPUTS)


def test_an_output_that_was_never_written_is_named() -> None:
    program = without(RELU, Opcode.STORE)
    program = replace(program, inputs=program.inputs[:1])
    with checking(), pytest.raises(RuntimeError, match=r"output %out1: 32 of 32 elements were never written"):
        execute(program, CHIP, INPUTS)


def test_memory_starts_poisoned() -> None:
    with checking():
        machine = Executor(program_of(RELU, CHIP), CHIP, {})
    assert set(np.unique(machine.local[0].raw)) == {0xA5}
    assert set(np.unique(machine.memory["dram"].raw)) == {0xA5}


def test_a_program_larger_than_the_limit_is_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_MEMORY_BYTES", "1000")
    with pytest.raises(UserError, match=r"needs .* bytes of memory, at most 1000 are allowed"):
        execute(program_of(RELU, CHIP), CHIP, INPUTS)


def test_missing_inputs_are_named() -> None:
    with pytest.raises(UserError, match=r"inputs missing: in0 \(given: in1\)"):
        execute(program_of(RELU, CHIP), CHIP, {"in1": INPUTS["in1"]})
    with pytest.raises(UserError, match=r"%in0: given float32\[31\], compiled for fp32\[32\]"):
        execute(program_of(RELU, CHIP), CHIP, {**INPUTS, "in0": np.ones(31, np.float32)})
