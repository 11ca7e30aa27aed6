"""Heads and prefetches: launches compute and move together what they did, and no command is held up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import checking, chips, packed, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul
from mtia_emu.kernels.prefetch import PIECES, Head, LoadedTiles, spread, tiles_of, with_head, with_prefetch
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Binding, Block, Launch, Opcode, Operand, Program
from mtia_emu.program.text import dump
from mtia_emu.program.verify import verify
from mtia_emu.types import FP16, TensorType

Array = np.ndarray[Any, Any]
SIZE = st.integers(1, 40)
TINY = load_chip("tiny")


def product(
    chip: Chip, m: int, k: int, n: int, mapping: MatmulMapping | None = None, *, turned: bool = True
) -> Block:
    """Return a product whose weight [k, n] lies in DRAM tile after tile, stored [n, k] where `turned`."""
    problem = MatmulProblem(1, m, k, n, FP16, FP16, FP16, "sram", "dram", b_batched=False, b_tiled=True)
    weight = Operand(FP16, (k, n), (1, k) if turned else (n, 1), "dram", tiled=True)
    plan = plan_matmul(problem, chip, mapping)
    return emit_matmul(plan, packed(FP16, (m, k), "sram"), weight, packed(FP16, (m, n), "sram", written=True))


def step(chip: Chip, rows: int, cols: int, space: str) -> Block:
    """Return what runs before a product: an elementwise step."""
    x, out = packed(FP16, (rows, cols), space), packed(FP16, (rows, cols), "sram", written=True)
    return emit_rowwise(chip, "map", parse("1 -> t0 | t0 = exp(x0)"), [x], [out])


def weight_of(block: Block) -> LoadedTiles:
    tiles = tiles_of(block, 1)
    assert tiles is not None
    return tiles


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Chip, Block, Block, Head, list[range]]:
    """Return a step, a product, a head of it, and its pieces in one or two parts."""
    chip = draw(chips())
    mapping = None
    if draw(st.booleans()):
        over = draw(st.sampled_from([(r, c) for r in "bmnk" for c in "bmnk" if (r, c) != ("k", "k")]))
        mapping = MatmulMapping(*over, 4, 4, draw(st.sampled_from([2, 8])), draw(st.sampled_from("mn")))
    reader = product(chip, draw(SIZE), draw(SIZE), draw(SIZE), mapping, turned=draw(st.booleans()))
    tiles = weight_of(reader)
    assume(len(tiles))  # none where the whole weight is staged
    head = Head(reader.operands[1], tiles, spread(draw(st.integers(1, len(tiles))), tiles))
    cut = draw(st.integers(0, len(head.chosen) * PIECES))
    parts = [p for p in (range(cut), range(cut, len(head.chosen) * PIECES)) if len(p)]
    before = step(chip, draw(SIZE), draw(SIZE), draw(st.sampled_from(["dram", "sram"])))
    return chip, before, reader, head, parts


def program(chip: Chip, blocks: list[Block], heads: list[tuple[int, int]]) -> Program:
    """Return a program of blocks one after another: `heads` are (block, operand) that lie in one place.

    The sources of prefetches lie where operand 1 of the last block does; all else has a place of its own.
    """
    top, inputs, outputs, launches = {"dram": 0, "sram": 0}, [], [], []
    places: dict[tuple[int, int], int] = {}
    reader = len(blocks) - 1
    shared = dict.fromkeys(heads, heads[0] if heads else (0, 0))
    shared |= {(b, i - 1): (reader, 1) for b, i in heads if b != reader}
    for b in reversed(range(len(blocks))):
        for i, x in enumerate(blocks[b].operands):
            at = shared.get((b, i), (b, i))
            if at not in places:
                flat = TensorType(x.dtype, (x.extent_bytes // x.dtype.bytes,))
                places[at] = top[x.space]
                top[x.space] += -(-flat.bytes // 64) * 64
                if (b, i) not in heads:
                    side = outputs if x.written else inputs
                    side.append(Binding(f"{b}.{i}", flat, flat, x.space, places[at]))
            places[b, i] = places[at]
        launches.append(Launch(b, tuple(places[b, i] for i in range(len(blocks[b].operands))), f"{b}", "x"))
    return Program(
        "test", "", "fp16", {}, chip.model_dump(), tuple(blocks), tuple(reversed(launches)),
        tuple(inputs), tuple(outputs), (), {}, top["dram"], top["sram"],
    )  # fmt: skip


def feed(made: Program) -> dict[str, Array]:
    """Return an input for each binding, by its name alone."""
    return {b.name: values(b.type.dtype, b.type.shape, sum(map(ord, b.name))) for b in made.inputs}


def executed(made: Program, chip: Chip) -> dict[str, Array]:
    verify(made, chip)
    with checking():
        return execute(made, chip, feed(made)).outputs


@settings(max_examples=80)
@given(pairs())
def test_a_head_is_filled_and_read(case: tuple[Chip, Block, Block, Head, list[range]]) -> None:
    chip, before, reader, head, parts = case
    steps = [with_prefetch(before, head, part) for part in parts]
    last = with_head(reader, head)
    blocks = [*steps, last]
    heads = [(i, len(b.operands) - 1) for i, b in enumerate(blocks)]
    got = executed(program(chip, blocks, heads), chip)
    expected = executed(program(chip, [*[before] * len(parts), reader], []), chip)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


@settings(max_examples=100)
@given(pairs())
def test_bytes_move_from_one_launch_to_the_other(case: tuple[Chip, Block, Block, Head, list[range]]) -> None:
    chip, before, reader, head, parts = case
    copied = [events(with_prefetch(before, head, part), chip) for part in parts]
    base, plain, after = events(before, chip), events(reader, chip), events(with_head(reader, head), chip)
    written = sum(x.sram_write_bytes.sum() for x in copied) - len(parts) * base.sram_write_bytes.sum()
    tiles = head.tiles
    assert (
        written == (tiles.arrays.rows * tiles.arrays.cols)[head.chosen].sum() * 2
    )  # each element once, fp16
    if (tiles.arrays.loads[head.chosen] == 1).all():
        assert after.sram_read_bytes.sum() - plain.sram_read_bytes.sum() == written
    burst = chip.dram.burst_bytes
    moved = sum(x.dram_read_bytes.sum() for x in copied) - len(parts) * base.dram_read_bytes.sum()
    ends = burst * sum(
        np.count_nonzero(with_prefetch(before, head, p).commands["op"] == Opcode.STAGE) for p in parts
    )
    assert moved <= plain.dram_read_bytes.sum() - after.dram_read_bytes.sum() + ends
    assert (after.macs == plain.macs).all()


@settings(max_examples=60)
@given(pairs())
def test_a_prefetch_holds_nothing_up(case: tuple[Chip, Block, Block, Head, list[range]]) -> None:
    chip, before, _, head, parts = case
    for ordered in (False, True):
        plain = timeline(before, chip, ordered=ordered)
        more = timeline(with_prefetch(before, head, parts[0]), chip, ordered=ordered)
        assert (more.end[: len(plain.end)] == plain.end).all()
        assert more.cycles == more.end.max() >= plain.cycles
    fast = timeline(with_prefetch(before, head, parts[0]), chip)
    assert fast.cycles == pytest.approx(more.cycles, rel=0.3, abs=64)


def test_a_prefetch_takes_what_dram_has_left() -> None:
    chip, reader = TINY, product(TINY, 8, 64, 64)
    tiles = weight_of(reader)
    head = Head(reader.operands[1], tiles, spread(len(tiles), tiles))
    size = int((tiles.arrays.rows * tiles.arrays.cols).sum()) * 2
    before = step(chip, 64, 64, "dram")
    whole = timeline(with_prefetch(before, head, range(len(tiles) * PIECES)), chip)
    dram = timeline(before, chip).busy["dram"] + size / 16  # tiny's DRAM moves 16 B a cycle
    reach = 50 + 1 + 4  # latency, a hop, set-up
    assert dram <= whole.cycles <= dram + reach + 64


def test_a_block_with_a_head_and_a_prefetch_as_text() -> None:
    reader = product(TINY, 4, 16, 8, MatmulMapping("m", "n", 4, 4, 8, "m"))
    tiles = weight_of(reader)
    head = Head(reader.operands[1], tiles, spread(2, tiles))
    text = dump(program(TINY, [with_prefetch(step(TINY, 2, 4, "sram"), head, range(2, 9))], []))
    assert [line.strip() for line in text.splitlines() if "stage" in line] == [
        "stage   pe0   %3[0, 2] = %2[0+8, 2+2] ahead",
        "stage   pe0   %3[8, 0] = %2[8+8, 0+1] ahead",
    ]
    loads = [
        x.split("= ")[1]
        for x in dump(program(TINY, [with_head(reader, head)], [])).splitlines()
        if "= %3" in x
    ]
    assert loads == ["%3[0+8, 0+4] cast col", "%3[8+8, 0+4] cast col"]


def test_loads_that_begin_at_one_corner_have_no_tiles() -> None:
    reader = product(TINY, 4, 16, 8)
    commands = reader.commands.copy()
    at = np.flatnonzero((commands["op"] == Opcode.LOAD) & (commands["operand"] == 1))
    commands = np.concatenate([commands, commands[at[:1]]])
    commands["rows"][-1] -= 1
    assert tiles_of(replace(reader, commands=commands), 1) is None
