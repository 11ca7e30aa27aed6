"""Faults planted in kernels and commands: the layer that has one is named, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.lower.expected import ExpectedMemory
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.text import parse
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.rows.kernel import TapeKernel

from mtia_emu.cli.app import main
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.file import load, save
from mtia_emu.program.isa import FUNCTION_NAMES, Opcode, Program
from mtia_emu.results.check import LayerCheck
from mtia_emu.study.by_layer import by_layer
from mtia_emu.testing.fuzz import TOGETHER, numbered_graph, random_chip

GRAPH = """graph g {
  in %x : fp32[40,64]
  in %w : fp32[64,48]
  %h : fp32[40,48] = matmul(%x, %w)
  %t : fp32[40,48] = tanh(%h)
  %s : fp32[40,48] = softmax(%t) {axis=1}
  %y : fp32[40,48] = matmul(%s, %v)
  in %v : fp32[48,48]
  out %y
  out %h
}
"""
CHIP = "tiny"


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_graph(parse(GRAPH), load_chip(CHIP))


def checked(compiled: Compiled, program: Program | None = None) -> tuple[LayerCheck, ...]:
    inputs = random_inputs(compiled.onnx, 0)
    return by_layer(compiled, load_chip(CHIP), inputs, program=program)


def planted(program: Program, layer: int, change: Callable[[Any], int]) -> tuple[Program, int]:
    """Return a program with a command of a layer's block changed, and what `change` says is its number."""
    number = program.launches[layer].block
    block = program.blocks[number]
    commands = block.commands.copy()
    at = change(commands)
    blocks = list(program.blocks)
    blocks[number] = replace(block, commands=commands)
    return replace(program, blocks=tuple(blocks)), at


def nth(commands: Any, op: Opcode, n: int = 0) -> int:
    return int(np.flatnonzero(commands["op"] == op)[n])


def test_right_layers_pass_and_none_is_left_out(compiled: Compiled) -> None:
    found = checked(compiled)
    assert [x.op for x in found] == [x.op for x in compiled.program.launches]
    assert all(x.passed and x.compared and x.command is None for x in found)


def test_each_layer_is_judged_on_right_operands(compiled: Compiled) -> None:
    """A layer before a wrong one is right, and so is the one behind it that reads what it made."""

    def wrong(commands: Any) -> int:
        at = nth(commands, Opcode.SIMD)
        commands["fn"][at] = FUNCTION_NAMES.index("neg")
        return at

    program, at = planted(compiled.program, 1, wrong)
    found = checked(compiled, program)
    assert [x.passed for x in found] == [x.launch != 1 for x in found]
    command = found[1].command
    assert command is not None and any(text.startswith(f"{at} ") for text in command.chain)
    assert command.unlike.startswith(f"{at} ") and "neg" in command.unlike


def misplaced_store(commands: Any) -> int:
    at = nth(commands, Opcode.STORE)
    commands["src0"][at] = commands["dst"][nth(commands, Opcode.LOAD)]
    return at


def misplaced_load(commands: Any) -> int:
    at = nth(commands, Opcode.LOAD)
    commands["row"][at] += 1
    commands["col"][at] += commands["rows"][at] == 1
    return at


def elsewhere(commands: Any) -> int:
    """Load into another PE: who needs it finds nothing there."""
    at = nth(commands, Opcode.LOAD)
    commands["pe"][at] = 1 - commands["pe"][at]
    commands["cast"][at] = 0
    return at


@pytest.mark.parametrize("plant", [misplaced_store, misplaced_load, elsewhere])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_planted_command_is_in_the_chain(
    compiled: Compiled, layer: int, plant: Callable[[Any], int]
) -> None:
    program, at = planted(compiled.program, layer, plant)
    first = next(x for x in checked(compiled, program) if not x.passed)
    assert first.launch == layer and first.command is not None
    command = first.command
    if plant is elsewhere:
        assert "which no command of the block has written" in command.why and command.index > at
    else:
        assert at in [int(text.split()[0]) for text in command.chain]
        assert at == command.index or command.unlike.startswith(f"{at} ")


def test_a_result_that_nothing_writes_is_told(compiled: Compiled) -> None:
    def drop(commands: Any) -> int:
        stores = np.flatnonzero(commands["op"] == Opcode.STORE)
        commands["row"][stores], commands["col"][stores] = (commands[n][stores[0]] for n in ("row", "col"))
        return -1

    program, _ = planted(compiled.program, 0, drop)
    first = next(x for x in checked(compiled, program) if not x.passed)
    assert first.launch == 0 and first.command is not None


def test_a_saved_program_is_held_to_the_model(compiled: Compiled, tmp_path: Path) -> None:
    program, at = planted(compiled.program, 3, misplaced_load)
    save(program, tmp_path / "p.mtia")
    first = next(x for x in checked(compiled, load(tmp_path / "p.mtia")) if not x.passed)
    assert first.launch == 3 and first.command is not None
    assert any(text.startswith(f"{at} ") for text in first.command.chain)
    other = replace(program, launches=program.launches[:-1])
    with pytest.raises(UserError, match="3 launches; the model compiles to 4"):
        checked(compiled, other)


def test_too_large_a_model_is_refused(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_MEMORY_BYTES", "64000")
    with pytest.raises(UserError, match=r"--by-layer keeps every value of g: \d+ bytes, at most 64000"):
        checked(compiled)


@settings(max_examples=15)
@given(st.integers(0, 1 << 20))
def test_no_right_layer_is_called_wrong(number: int) -> None:
    graph, chip = numbered_graph(5, number), random_chip(5, number)
    made = compile_graph(graph, chip, tuning=TOGETHER)
    with np.errstate(all="ignore"):
        found = by_layer(made, chip, random_inputs(graph, number))
    assert all(x.passed for x in found)


def test_memory_should_hold_what_the_graph_computes(compiled: Compiled) -> None:
    """Of each step, results that it writes for good; and what it reads is there before it runs."""
    schedule = compiled.schedule
    inputs = {
        name: np.asarray(x).astype(compiled.graph.inputs[name].dtype.numpy)
        for name, x in random_inputs(compiled.onnx, 0).items()
    }
    right, outputs = ExpectedMemory(schedule, inputs), evaluate(compiled.graph, inputs)
    for name, view in schedule.outputs.items():
        np.testing.assert_array_equal(right.of(view), outputs[name])
    for index, step in enumerate(schedule.steps):
        assert all(right.written(index, view).all() for view in step.outputs)
        assert all(right.there(index, view).all() for view in step.inputs)
        assert not any(right.there(index, view).any() for view in step.outputs)


def test_the_command_line_names_layer_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TapeKernel):
        def emit(self, chip: Chip, *given: Any) -> Any:
            block = super().emit(chip, *given)
            commands = block.commands.copy()
            products = (commands["op"] == Opcode.SIMD) & (commands["fn"] == FUNCTION_NAMES.index("mul"))
            commands["fn"][products] = FUNCTION_NAMES.index("add")
            return replace(block, commands=commands)

    monkeypatch.setitem(KERNELS, "row", Broken("row", "", folds=True))
    words = ["run", "zoo:llama-tiny", "--dim", "seq=1", "--gpu", "none", "--check", "--by-layer"]
    done = CliRunner().invoke(main, [*words, "--chip", CHIP, "--json", "-"])
    report = json.loads(done.stdout)
    layers = report["check"]["layers"]
    first = next(x for x in layers if not x["passed"])
    assert first["kernel"] == "row" and first["command"]["index"] >= 0
    assert done.exit_code == 1 and not report["check"]["passed"]
    assert all(x["passed"] == (x["kernel"] != "row") for x in layers)


def test_by_layer_is_part_of_the_check() -> None:
    done = CliRunner().invoke(main, ["run", "zoo:dlrm-small", "--by-layer"])
    assert done.exit_code == 2 and "give --check too" in done.stderr
