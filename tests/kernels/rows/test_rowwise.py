"""Elementwise, row-wise and copy blocks: any views, any tape, the values of `Tape.evaluate`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from harness import Array, chips, packed, run, values
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.rows.rowwise import emit_rowwise, simplify
from mtia_emu.kernels.rows.tape import Tape, TapeBuilder, parse

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Opcode, Operand
from mtia_emu.types import BF16, BOOL, FP16, FP32, INT8, INT32, INT64, DType

COPY = Tape(1, (), (0,))
ELEMENTWISE = (
    "2 -> t0 | t0 = add(x0, x1) : fp32",
    "2 -> t1 | t0 = mul(x0, 0.5) : fp32; t1 = max(t0, x1) : fp16",
    "3 -> t2 | t0 = greater(x0, x1) : bool; t1 = neg(x2) : fp32; t2 = where(t0, t1, x0) : fp32",
    "2 -> t0, t1 | t0 = sub(x0, x1) : fp32; t1 = mul(t0, t0) : fp32",
    "1 -> t0, x0, 2.5 | t0 = silu(x0) : fp32",
    "2 -> t1, t1 | t0 = abs(x0) : fp32; t1 = add(t0, x1) : fp32",
    "0 -> t0 | t0 = copy(3.0) : fp32",
)
ROWS = (
    "1 -> t0 | t0 = fold_sum(x0) : fp32",
    "1 -> t4 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1); t3 = fold_sum(t2); t4 = div(t2, t3)",
    "2 -> t2 | t0 = mul(x0, x0); t1 = fold_sum(t0); t2 = mul(x1, t1)",
    "1 -> t1, t0 | t0 = fold_min(x0); t1 = fold_max(x0)",
)
FLOATS = [FP16, BF16, FP32]


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...], kind: DType, *, written: bool = False) -> Operand:
    """Return an operand of a shape: packed or transposed, with gaps, with broadcast dimensions where it is
    read.
    """
    order = draw(st.permutations(range(len(shape))))
    gap = draw(st.sampled_from([1, 1, 2]))
    strides, at = [0] * len(shape), gap
    for d in order:
        strides[d] = at
        at *= shape[d] * draw(st.sampled_from([1, 1, 2]))
    if not written:
        strides = [0 if draw(st.integers(0, 3)) == 0 else s for s in strides]
    return Operand(kind, shape, tuple(strides), draw(st.sampled_from(["dram", "sram"])), written)


SHAPES = st.lists(st.sampled_from([1, 2, 3, 5, 8, 17]), min_size=1, max_size=4).map(tuple)


def data_of(x: Operand, seed: int) -> Array:
    """Return values for an operand: equal along its broadcast dimensions."""
    small = tuple(1 if s == 0 else n for n, s in zip(x.shape, x.strides, strict=True))
    return np.broadcast_to(values(x.dtype, small, seed), x.shape)


def check(chip: Chip, tape: Tape, inputs: list[Operand], outputs: list[Operand], seed: int = 0) -> None:
    """Emit, run and compare with the tape's own values, bit by bit."""
    given = [data_of(x, seed + i) for i, x in enumerate(inputs)]
    wanted = tape.evaluate(given, [x.dtype for x in outputs])
    block = emit_rowwise(chip, "map", tape, inputs, outputs)
    found = run(block, chip, given, views=[*inputs, *outputs]).outputs
    for x, want, got in zip(outputs, wanted, found, strict=True):
        np.testing.assert_array_equal(got, np.broadcast_to(want, x.shape), err_msg=str(tape))


@settings(max_examples=300)
@given(st.data(), chips(), SHAPES, st.sampled_from(ELEMENTWISE), st.sampled_from(FLOATS))
def test_elementwise(draw: st.DataObject, chip: Chip, shape: tuple[int, ...], text: str, kind: DType) -> None:
    tape = parse(text)
    inputs = [draw.draw(views(shape, kind)) for _ in range(tape.inputs)]
    outputs = [
        draw.draw(views(shape, draw.draw(st.sampled_from(FLOATS)), written=True)) for _ in tape.results
    ]
    check(chip, tape, inputs, outputs, draw.draw(st.integers(0, 99)))


@settings(max_examples=200)
@given(st.data(), chips(), SHAPES, st.sampled_from([FP16, INT8, INT64, BOOL]))
def test_copies(draw: st.DataObject, chip: Chip, shape: tuple[int, ...], kind: DType) -> None:
    check(chip, COPY, [draw.draw(views(shape, kind))], [draw.draw(views(shape, kind, written=True))])


@settings(max_examples=200)
@given(st.data(), chips(), SHAPES, st.sampled_from(ROWS))
def test_rows(draw: st.DataObject, chip: Chip, shape: tuple[int, ...], text: str) -> None:
    tape = parse(text)
    inputs = [draw.draw(views(shape, FP16)) for _ in range(tape.inputs)]
    outputs = []
    for result in tape.results:
        folded = tape.steps[~int(result)].folds
        out = draw.draw(views((*shape[:-1], 1) if folded else shape, FP32, written=True))
        outputs.append(replace(out, shape=shape, strides=(*out.strides[:-1], 0)) if folded else out)
    check(chip, tape, inputs, outputs)


@settings(max_examples=200)
@given(st.data(), SHAPES, st.booleans())
def test_simplified_views_name_the_same_elements(
    draw: st.DataObject, shape: tuple[int, ...], keep: bool
) -> None:
    views_ = [draw.draw(views(shape, FP32)) for _ in range(2)]
    simple = simplify(views_, keep_last=keep)
    assert simple[0].shape == simple[1].shape
    assert len(simple[0].shape) >= 2
    seen = [sorted(zip(*(_offsets(x) for x in group), strict=True)) for group in (views_, simple)]
    assert seen[0] == seen[1]
    if keep:
        assert simple[0].shape[-1] == shape[-1]


def _offsets(x: Operand) -> list[int]:
    index = np.indices(x.shape).reshape(len(x.shape), -1)
    return [int(i) for i in np.array(x.strides) @ index]


@settings(max_examples=60)
@given(chips(), st.integers(1, 60), st.integers(1, 60))
def test_integers_stay_exact(chip: Chip, rows: int, cols: int) -> None:
    b = TapeBuilder(2)
    tape = b.done(b.call("add", b.call("mul", 0, 1, to=INT32), 0, to=INT32), b.call("fold_sum", 0, to=INT64))
    out = packed(INT32, (rows, cols), written=True)
    total = replace(packed(INT64, (rows, 1), written=True), shape=(rows, cols), strides=(1, 0))
    check(chip, tape, [packed(INT32, (rows, cols)), packed(INT8, (rows, cols))], [out, total])


def test_a_fill_reaches_every_element() -> None:
    fill = parse("0 -> t0 | t0 = copy(7.0) : fp32")
    check(load_chip("tiny"), fill, [], [packed(FP32, (3, 50), written=True)])


def test_a_sum_over_repeated_rows_is_written_for_each_row() -> None:
    x = Operand(FP32, (40, 6), (0, 1), "dram")
    out = Operand(FP32, (40, 6), (1, 0), "dram", True)
    check(load_chip("tiny"), parse("1 -> t0 | t0 = fold_sum(x0) : fp32"), [x], [out])


def test_what_all_tiles_share_is_loaded_once_for_all() -> None:
    chip = load_chip("tiny")
    tape = parse("2 -> t0 | t0 = mul(x0, x1) : fp16")
    weights = Operand(FP16, (64, 8), (0, 1), "dram")
    block = emit_rowwise(
        chip, "row", tape, [packed(FP16, (64, 8)), weights], [packed(FP16, (64, 8), written=True)]
    )
    loads = block.commands[(block.commands["op"] == Opcode.LOAD) & (block.commands["operand"] == 1)]
    assert loads["cast"].tolist() == [3]


def test_a_row_that_does_not_fit_says_what_it_needs() -> None:
    chip = load_chip("tiny")
    shape = (2, 10_000)
    with pytest.raises(NoRoom, match=r"a row of 10000 elements needs .* bytes of local memory"):
        emit_rowwise(chip, "row", parse(ROWS[1]), [packed(FP32, shape)], [packed(FP32, shape, written=True)])
    assert math.prod(shape) * 4 > chip.pe.local.bytes
