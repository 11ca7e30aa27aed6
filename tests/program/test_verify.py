"""The law of a program, by mutation: what is not refused must run and be timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.bags.gather import emit_gather
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags
from mtia_emu.kernels.beside import beside
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul
from mtia_emu.kernels.prefetch import Head, spread, tiles_of, with_prefetch
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.scalar import emit_scalar
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import COMMAND, Binding, Block, Launch, Opcode, Operand, Program, Slot
from mtia_emu.program.verify import MOST_BYTES, verify
from mtia_emu.types import DTYPES, FP16, FP32, INT64, TensorType

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from harness import packed, program_of

CHIP = load_chip("tiny")
LIBRARY = {"cumsum": lambda inputs, attrs: [np.cumsum(inputs[0], axis=1)]}
SOFTMAX = "1 -> t4 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1); t3 = fold_sum(t2); t4 = div(t2, t3)"
WHERE = "2 -> t1 | t0 = greater(x0, 0.5); t1 = where(t0, x1, 2.0)"


def _beside() -> Block:
    part, shape = CHIP.part(1, CHIP.grid.cols), (9, 20)
    blocks = [
        emit_rowwise(part, kernel, parse(tape), [packed(FP16, shape)], [packed(FP16, shape, written=True)])
        for kernel, tape in (("row", SOFTMAX), ("copy", "1 -> x0 | "))
    ]
    return beside(blocks, [1, 1], CHIP.grid.cols, [2.0, 1.0])


def _matmul(mapping: MatmulMapping, kind: Any = FP16) -> Block:
    p = MatmulProblem(1, 20, 24, 18, kind, kind, FP16, "dram", "dram", b_batched=False)
    return emit_matmul(
        plan_matmul(p, CHIP, mapping),
        packed(kind, (1, 20, 24)),
        packed(kind, (24, 18)),
        packed(FP16, (1, 20, 18), "sram", written=True),
    )


BLOCKS = (
    _matmul(MatmulMapping("m", "k", 8, 8, 8, "m")),
    _matmul(MatmulMapping("n", "n", 8, 4, 8, "n", stage=True)),
    _matmul(MatmulMapping("m", "n", 4, 4, 8, "m"), FP32),
    emit_rowwise(CHIP, "row", parse(SOFTMAX), [packed(FP16, (9, 20))], [packed(FP16, (9, 20), written=True)]),
    emit_rowwise(
        CHIP,
        "map",
        parse(WHERE),
        [packed(FP16, (9, 20)), Operand(FP16, (9, 20), (0, 1), "sram")],
        [packed(FP16, (9, 20), written=True)],
    ),
    emit_gather(CHIP, packed(FP32, (2, 5, 6)), packed(INT64, (1, 7)), packed(FP32, (14, 6), written=True)),
    emit_embedding_bags(
        CHIP,
        [
            BagOperands(
                packed(FP16, (rows, 12)),
                packed(INT64, (1, 30)),
                packed(INT64, (1, 11)),
                packed(FP16, (10, 12), written=True),
                packed(FP32, (1, 30)),
            )
            for rows in (9, 7)
        ],
        "mean",
    ),
    _beside(),
    emit_scalar(
        CHIP, "cumsum", {"axis": 1}, [packed(FP32, (3, 4))], [packed(FP32, (3, 4), "sram", written=True)]
    ),
)
WEIGHT = tiles_of(BLOCKS[0], 1)
assert WEIGHT is not None
AHEAD = with_prefetch(BLOCKS[3], Head(BLOCKS[0].operands[1], WEIGHT, spread(3, WEIGHT)), range(3, 20))
BLOCKS = (*BLOCKS, AHEAD)
WILD = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([63, 64, 127, 255, 1 << 15, (1 << 31) - 1, -(1 << 31), 1 << 40, 1 << 62]),
)


def program(index: int) -> Program:
    return program_of(BLOCKS[index], CHIP)


def survives(p: Program) -> None:
    """Check that a program is refused, or else runs and is timed with no error but the user's."""
    try:
        verify(p)
        report(p, CHIP)
        inputs = {b.name: np.zeros(b.type.shape, b.type.dtype.numpy) for b in p.inputs}
        execute(p, CHIP, inputs, LIBRARY)
    except UserError:
        pass


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_whole_programs_pass(index: int) -> None:
    verify(program(index))
    survives(program(index))


@pytest.mark.parametrize("index", range(len(BLOCKS)))
@settings(max_examples=60)
@given(st.data())
def test_a_broken_command_is_refused_or_runs(index: int, data: st.DataObject) -> None:
    broken_command(index, data)


@pytest.mark.deep
@pytest.mark.parametrize("index", range(len(BLOCKS)))
@settings(max_examples=400)
@given(st.data())
def test_a_broken_command_is_refused_or_runs_many_times(index: int, data: st.DataObject) -> None:
    broken_command(index, data)


def broken_command(index: int, data: st.DataObject) -> None:
    """Change fields of a command of a program: it is refused, or it runs."""
    p = program(index)
    commands = p.blocks[0].commands.copy()
    at = data.draw(st.integers(0, len(commands) - 1))
    for name in data.draw(st.lists(st.sampled_from(COMMAND.names), min_size=1, max_size=2)):
        kind = COMMAND[name]
        if kind.kind == "f":
            commands[name][at] = data.draw(st.floats(width=32))
        else:
            low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
            commands[name][at] = min(max(data.draw(WILD), low), high)
    survives(replace(p, blocks=(replace(p.blocks[0], commands=commands),)))


def wild(data: st.DataObject, value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return data.draw(WILD)
    if isinstance(value, tuple) and value:
        at = data.draw(st.integers(0, len(value)))
        return value[:at] if data.draw(st.booleans()) else (*value[:at], data.draw(WILD), *value[at + 1 :])
    if isinstance(value, TensorType):
        return TensorType(wild(data, value.dtype), tuple(abs(x) for x in wild(data, value.shape)))
    if type(value) is type(FP16):
        return data.draw(st.sampled_from(list(DTYPES.values())))
    return value


def mutate(data: st.DataObject, record: Any) -> Any:
    """Return a record with one field changed."""
    name = data.draw(st.sampled_from([f.name for f in fields(record)]))
    if name == "space":
        return replace(record, space=data.draw(st.sampled_from(["dram", "sram", "scratch", "disk"])))
    return replace(record, **{name: wild(data, getattr(record, name))})


def _other_operand(data: st.DataObject, p: Program) -> Program:
    block = p.blocks[0]
    i = data.draw(st.integers(0, len(block.operands) - 1))
    operands = (*block.operands[:i], mutate(data, block.operands[i]), *block.operands[i + 1 :])
    return replace(p, blocks=(replace(block, operands=operands),))


def _other_slot(data: st.DataObject, p: Program) -> Program:
    block = p.blocks[0]
    i = data.draw(st.integers(0, len(block.slots)))
    if i == len(block.slots):
        return replace(p, blocks=(replace(block, slots=block.slots[:-1]),))
    slots = (*block.slots[:i], mutate(data, block.slots[i]), *block.slots[i + 1 :])
    return replace(p, blocks=(replace(block, slots=slots),))


def _other_launch(data: st.DataObject, p: Program) -> Program:
    return replace(p, launches=(mutate(data, p.launches[0]),))


def _other_binding(data: st.DataObject, p: Program) -> Program:
    return replace(
        p, inputs=(mutate(data, p.inputs[0]), *p.inputs[1:]), outputs=(mutate(data, p.outputs[0]),)
    )


def _other_size(data: st.DataObject, p: Program) -> Program:
    name = data.draw(st.sampled_from(["dram_bytes", "sram_bytes", "scratch_bytes", "stages", "bands"]))
    if name == "bands":
        return replace(p, blocks=(replace(p.blocks[0], bands=tuple(data.draw(st.lists(WILD, max_size=3)))),))
    if name in ("dram_bytes", "sram_bytes"):
        return replace(p, **{name: data.draw(WILD)})
    return replace(p, blocks=(replace(p.blocks[0], **{name: data.draw(WILD)}),))


def survives_change(
    change: Callable[[st.DataObject, Program], Program], data: st.DataObject, index: int
) -> None:
    """Hold a changed program to the law; no operand can be put into a memory that there is not."""
    try:
        changed = change(data, program(index))
    except UserError:
        return
    survives(changed)


CHANGES = [_other_operand, _other_slot, _other_launch, _other_binding, _other_size]


@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=100)
@given(st.data(), st.integers(0, len(BLOCKS) - 1))
def test_a_broken_table_is_refused_or_runs(
    change: Callable[[st.DataObject, Program], Program], data: st.DataObject, index: int
) -> None:
    survives_change(change, data, index)


@pytest.mark.deep
@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=400)
@given(st.data(), st.integers(0, len(BLOCKS) - 1))
def test_a_broken_table_is_refused_or_runs_many_times(
    change: Callable[[st.DataObject, Program], Program], data: st.DataObject, index: int
) -> None:
    survives_change(change, data, index)


def edited(index: int, kind: Opcode, **values: int) -> Program:
    """Return a program with fields of its first command of a kind changed."""
    p = program(index)
    commands = p.blocks[0].commands.copy()
    at = np.flatnonzero(commands["op"] == kind)[0]
    for name, value in values.items():
        commands[name][at] = value
    return replace(p, blocks=(replace(p.blocks[0], commands=commands),))


@pytest.mark.parametrize(
    ("index", "op", "values", "words"),
    [
        (0, Opcode.LOAD, {"op": 77}, "unknown opcode; right: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (0, Opcode.LOAD, {"pe": 4}, "no such PE; right: 0 to 3"),
        (0, Opcode.LOAD, {"cast": 4}, "no such cast"),
        (0, Opcode.LOAD, {"operand": 9}, "no such operand; right: 0 to 2"),
        (0, Opcode.LOAD, {"dst": 99}, "dst names no slot"),
        (0, Opcode.LOAD, {"row": -1}, "the tile leaves its operand"),
        (0, Opcode.LOAD, {"rows": 0}, "at least one row and column"),
        (0, Opcode.LOAD, {"dst": 4}, "of different types|must be in local memory"),
        (0, Opcode.STORE, {"operand": 0}, "the tile leaves its operand|not an output"),
        (0, Opcode.MATMUL, {"k": 0}, "from 1 to 2\\^40 multiply-adds"),
        (0, Opcode.MATMUL, {"k": 1 << 20}, "does not fit its slot|multiply-adds"),
        (0, Opcode.MATMUL, {"flags": 0}, "the accumulator was never written"),
        (0, Opcode.MATMUL, {"flags": 8}, "unknown flags"),
        (0, Opcode.REDUCE, {"src_pe": -1}, "no such PE"),
        (3, Opcode.SIMD, {"fn": 200}, "unknown function"),
        (3, Opcode.SIMD, {"src1": -1}, "more or fewer operands"),
        (3, Opcode.FOLD, {"fn": 9}, "unknown reduction"),
        (1, Opcode.STAGE, {"stage": -2}, "no such stage slot"),
        (1, Opcode.STAGE, {"stage": -1}, "into scratch, and without a stage slot into SRAM"),
        (1, Opcode.STAGE, {"operand2": 2}, "staging copies into scratch"),
        (9, Opcode.STAGE, {"stage": 0}, "no such stage slot"),
        (9, Opcode.STAGE, {"operand2": 1}, "the tile leaves its operand|without a stage slot into SRAM"),
        (5, Opcode.GATHER, {"row2": 6}, "the tile leaves its operand"),
        (6, Opcode.POOL, {"fn": 3}, "unknown mode"),
        (6, Opcode.POOL, {"row2": 0}, "fewer weights than indices|same weights"),
    ],
)
def test_a_refusal_says_what_is_wrong(index: int, op: Opcode, values: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        verify(edited(index, op, **values))
    assert "program test, block 0" in str(error.value)
    assert "command " in str(error.value)


def test_a_prefetch_stands_behind_all_other_commands() -> None:
    p = program(9)
    first = replace(p.blocks[0], commands=p.blocks[0].commands[::-1].copy())
    with pytest.raises(UserError, match="staged for a later launch stands behind all other commands"):
        verify(replace(p, blocks=(first,)))


def test_tables_are_refused_by_name() -> None:
    p = program(0)
    block, launch = p.blocks[0], p.launches[0]
    with pytest.raises(UserError, match=r"launch layer: operand .* at 999999 leaves"):
        verify(replace(p, launches=(replace(launch, addresses=(999999, *launch.addresses[1:])),)))
    with pytest.raises(UserError, match="launch layer: 2 addresses for 3 operands"):
        verify(replace(p, launches=(replace(launch, addresses=launch.addresses[:2]),)))
    with pytest.raises(UserError, match="launch layer: block 3 of 1"):
        verify(replace(p, launches=(replace(launch, block=3),)))
    with pytest.raises(UserError, match=r"dram of .* bytes; right: 0 to"):
        verify(replace(p, dram_bytes=MOST_BYTES + 1))
    with pytest.raises(UserError, match=r"slot s1 takes .* right: whole elements of fp16, from 128 to 16384"):
        verify(
            replace(p, blocks=(replace(block, slots=(block.slots[0], Slot(FP16, 0, 128), *block.slots[2:])),))
        )
    with pytest.raises(UserError, match=r"%x fp16.* outside the memory"):
        kind = TensorType(FP16, (1 << 20,))
        verify(replace(p, inputs=(Binding("x", kind, kind, "sram", 0),)))


@pytest.mark.parametrize(("index", "operand"), [(0, 0), (0, 2), (5, 0), (6, 0)])
@pytest.mark.parametrize("across", [0, 2, 3, 1 << 40])
def test_only_tiles_of_what_has_rows_have_several_dimensions_across(
    index: int, operand: int, across: int
) -> None:
    """Of [m,k] no dimension of rows is left; what is written or looked up has whole rows."""
    p = program(index)
    block = p.blocks[0]
    given = block.operands[operand]
    given = replace(given, shape=given.shape[-2:], strides=given.strides[-2:])
    if operand or index:
        given = replace(given, shape=(*given.shape, 1), strides=(*given.strides, 1))
    operands = (*block.operands[:operand], replace(given, across=across), *block.operands[operand + 1 :])
    with pytest.raises(UserError, match=rf"operand %{operand} has {across} dimensions across; right: 1 to"):
        verify(replace(p, blocks=(replace(block, operands=operands),)))


def test_a_program_for_a_larger_chip_is_refused_on_a_smaller_one() -> None:
    verify(program(0), CHIP)
    with pytest.raises(UserError, match="no such PE; right: 0 to 0"):
        verify(program(0), load_chip("tiny", {"grid.rows": 1, "grid.cols": 1}))
    assert isinstance(program(0).launches[0], Launch)
