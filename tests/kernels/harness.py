"""Blocks on their own: random small chips, operands with memory of their own, runs that check themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from mtia_emu.engine.function import Execution, execute
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Binding, Block, Launch, Operand, Program
from mtia_emu.program.verify import verify
from mtia_emu.types import DType, TensorType

Array = np.ndarray[Any, Any]
LINE = 64


def chips() -> st.SearchStrategy[Chip]:
    """Return small chips of every dataflow, on which limits are near."""
    side = st.integers(1, 3)
    lanes = st.sampled_from([1, 2, 4, 8])
    return st.fixed_dictionaries(
        {
            "grid.rows": side,
            "grid.cols": side,
            "pe.matrix.rows": lanes,
            "pe.matrix.cols": lanes,
            "pe.matrix.arrays": st.integers(1, 2),
            "pe.matrix.dataflow": st.sampled_from(["ws", "os", "is"]),
            "pe.matrix.stationary_buffers": st.sampled_from([1, 2]),
            "pe.matrix.skewed": st.booleans(),
            "pe.reduce.banks": st.integers(1, 4),
            "pe.reduce.bank_rows": st.sampled_from([4, 8]),
            "pe.reduce.bank_cols": st.sampled_from([4, 8]),
            "pe.local.bytes": st.sampled_from([6144, 16384, 65536]),
            "noc.broadcast": st.booleans(),
        }
    ).map(lambda settings: load_chip("tiny", settings))


def packed(kind: DType, shape: Sequence[int], space: str = "dram", *, written: bool = False) -> Operand:
    """Return a row-major operand."""
    strides = [1]
    for n in reversed(shape[1:]):
        strides.append(strides[-1] * n)
    return Operand(kind, tuple(shape), tuple(reversed(strides)), space, written)


def values(kind: DType, shape: Sequence[int], seed: int) -> Array:
    """Return random numbers that are small enough for sums to be near-exact."""
    rng = np.random.default_rng(seed)
    if kind.name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if not kind.is_float:
        return rng.integers(0 if kind.name.startswith("u") else -9, 9, shape).astype(kind.numpy)
    return rng.standard_normal(shape).astype(np.float32).astype(kind.numpy)


@contextmanager
def checking() -> Any:
    """Run with MTIA_EMU_CHECK=1."""
    with mock.patch.dict(os.environ, {"MTIA_EMU_CHECK": "1"}):
        yield


@dataclass(frozen=True)
class Run:
    """A block's outputs, one array an operand that it writes, and what it ran in."""

    outputs: list[Array]
    program: Program
    execution: Execution


def strided(flat: Array, operand: Operand) -> Array:
    """Return a flat array seen through an operand's strides."""
    strides = tuple(s * flat.itemsize for s in operand.strides)
    return np.lib.stride_tricks.as_strided(flat, operand.shape, strides)


def program_of(block: Block, chip: Chip) -> Program:
    """Return a program of one launch, each operand in memory of its own: `in<i>` and `out<i>` are flat
    tensors.
    """
    top = {"dram": 0, "sram": 0}
    places, inputs, outputs = [], [], []
    for i, x in enumerate(block.operands):
        if x.space == "scratch":
            places.append(0)
            continue
        at = top[x.space]
        flat = TensorType(x.dtype, (x.extent_bytes // x.dtype.bytes,))
        top[x.space] = -(-(at + flat.bytes) // LINE) * LINE
        places.append(at)
        inputs.append(Binding(f"in{i}", flat, flat, x.space, at))
        if x.written:
            outputs.append(Binding(f"out{i}", flat, flat, x.space, at))
    launch = Launch(0, tuple(places), "layer", block.kernel)
    return Program(
        "test",
        "",
        "fp32",
        {},
        chip.model_dump(),
        (block,),
        (launch,),
        tuple(inputs),
        tuple(outputs),
        (),
        {},
        top["dram"],
        top["sram"],
    )


def run(
    block: Block,
    chip: Chip,
    inputs: Sequence[Array],
    library: Any = None,
    views: Sequence[Operand] | None = None,
) -> Run:
    """Verify and execute a block on its inputs under CHECK; memory between an output's elements must keep its
    value.

    `views` are the operands as the kernel was given them, where the block sees them in another shape.
    """
    program = program_of(block, chip)
    verify(program, chip)
    given, unread = {}, list(inputs)
    operands = views or block.operands
    for i, x in enumerate(operands):
        if x.space == "scratch":
            continue
        flat = np.zeros(x.extent_bytes // x.dtype.bytes, x.dtype.numpy)
        if x.written:
            flat[:] = 1  # a value to keep
        else:
            strided(flat, x)[...] = unread.pop(0)
        given[f"in{i}"] = flat
    with checking():
        execution = execute(program, chip, given, library)
    found = []
    for name, flat in execution.outputs.items():
        operand = operands[int(name[3:])]
        found.append(strided(flat, operand).copy())
        strided(flat, operand)[...] = 1
        assert (flat == 1).all(), f"{name}: bytes beside the operand were written"
    return Run(found, program, execution)
