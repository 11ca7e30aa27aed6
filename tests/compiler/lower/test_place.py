"""Where buffers lie: no two that live at the same time in the same place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.lower.place import LINE, Arena, Placement, place, vacant
from mtia_emu.compiler.lower.schedule import schedule

from mtia_emu.machine.chip import load_chip

CHAIN = """graph g {{
  in %x : fp16[{n},64]
  const %w : fp16[64,64] = absent
  %a : fp16[{n},64] = softmax(%x) {{axis=1}}
  %b : fp16[{n},64] = softmax(%a) {{axis=1}}
  %c : fp16[{n},64] = softmax(%b) {{axis=1}}
  %y : fp16[{n},64] = matmul(%c, %w)
  out %y
}}"""


def placed(rows: int, inputs_in: str = "dram", sram: int = 65536) -> Placement:
    """Return the placement of three activations of rows * 128 bytes."""
    return place(
        schedule(text.parse(CHAIN.format(n=rows)), load_chip("tiny", {"sram.bytes": sram})), inputs_in
    )


lives = st.tuples(st.integers(1, 2000), st.integers(0, 9), st.integers(0, 4))


@settings(max_examples=200)
@given(st.lists(lives, max_size=80), st.sampled_from([None, 2048, 8192]))
def test_no_two_pieces_alive_at_once_overlap(wanted: list[tuple[int, int, int]], limit: int | None) -> None:
    arena, pieces = Arena(limit), []
    for size, first, more in wanted:
        at = arena.take(size, first, first + more)
        assert at is not None or limit is not None
        if at is None:
            continue
        assert at % LINE == 0 and (limit is None or at + size <= limit) and at + size <= arena.top
        for other, end, begin, last in pieces:
            assert at + size <= other or end <= at or first + more < begin or last < first
        pieces.append((at, at + size, first, first + more))


def test_the_lowest_free_address_is_taken() -> None:
    arena = Arena(None)
    assert [arena.take(256, 0, 1), arena.take(512, 1, 2), arena.take(256, 2, 3)] == [0, 256, 0]
    assert arena.take(512, 0, 3) == 768


def test_activations_take_turns_in_sram() -> None:
    where = placed(64)
    assert {where.space[v] for v in "abc"} == {"sram"} and {where.space[v] for v in "xwy"} == {"dram"}
    assert where.sram_bytes == 2 * 64 * 128  # two live at any time
    assert where.spilled == () and where.kept_out == ()


def test_what_finds_no_room_spills() -> None:
    where = placed(64, sram=8192 + 4096)
    assert len(where.spilled) == 1 and {where.space[v] for v in where.spilled} == {"dram"}
    assert where.sram_bytes <= 12288 * 3 // 4


def test_the_models_tensors_start_in_sram_where_they_fit() -> None:
    where = placed(64, "sram")
    assert set(where.space.values()) == {"sram"} and where.dram_bytes == 0 and where.kept_out == ()
    assert placed(512, "sram").kept_out


@pytest.mark.parametrize("home", ["dram", "sram"])
def test_what_is_vacant_is_what_no_buffer_has(home: str) -> None:
    """A buffer that is taken in a step meets none that lives then."""
    made = schedule(text.parse(CHAIN.format(n=64)), load_chip("tiny"))
    where = place(made, home)
    arena = vacant(made, where, 1 << 16)
    for index, step in enumerate(made.steps):
        at = arena.take(256, index, index)
        assert at is not None
        alive = {v.buffer for v in (*step.inputs, *step.outputs)}
        alive |= {b.name for b in made.buffers.values() if b.role != "temp"}
        for name in alive:
            if where.space[name] == "sram":
                low, size = where.address[name], made.buffers[name].type.bytes
                assert at + 256 <= low or low + size <= at


def first_fit(taken: list[tuple[int, int, int, int]], size: int, first: int, last: int) -> int:
    """Return the lowest line from which `size` bytes are free in all steps, found by trying each."""
    at = 0
    while any(
        begin <= last and first <= end and low < at + size and at < high for begin, end, low, high in taken
    ):
        at += LINE
    return at


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 6), st.integers(0, 4)), max_size=12))
def test_a_buffer_takes_the_lowest_address_that_is_free(wanted: list[tuple[int, int, int]]) -> None:
    arena, taken = Arena(None), []
    for size, first, steps in wanted:
        lines = -(-size // LINE) * LINE
        at = arena.take(size, first, first + steps)
        assert at == first_fit(taken, lines, first, first + steps)
        taken.append((first, first + steps, at, at + lines))
    assert arena.top == max((high for *_, high in taken), default=0)
